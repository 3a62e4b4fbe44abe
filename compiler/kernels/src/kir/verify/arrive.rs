//! Barriers in two halves: what is between a worker's arrival and its wait may store nothing, since others no longer
//! wait for it.

use super::{Callee, Checker};
use crate::kir::func::Region;
use crate::kir::inst::{Inst, Op};
use std::collections::BTreeMap;

/// Whether a region stores to memory that others may read, itself or by what it calls.
pub(super) fn stores(region: &Region, callees: &BTreeMap<&str, Callee>) -> bool {
    region.body.iter().any(|inst| stores_one(inst, callees))
}

fn stores_one(inst: &Inst, callees: &BTreeMap<&str, Callee>) -> bool {
    match &inst.op {
        Op::Store { .. } | Op::LastOf { .. } | Op::Barrier { .. } | Op::Arrive | Op::Await { .. } => true,
        Op::Call { callee, .. } => callees.get(callee.as_str()).is_none_or(|c| c.stores),
        Op::For { body, .. } => stores(body, callees),
        Op::If { then, els, .. } => stores(then, callees) || stores(els, callees),
        _ => false,
    }
}

impl Checker<'_> {
    /// Checks that each arrival of a region has its wait there, with nothing between that stores.
    pub(super) fn meetings(&mut self, region: &Region) {
        let mut arrival = None;
        for inst in &region.body {
            match (&inst.op, arrival) {
                (Op::Await { .. }, Some(_)) => arrival = None,
                (Op::Await { .. }, None) => self.error(Some(inst), "no arrive before it in its region"),
                (Op::Arrive, None) => arrival = Some(inst),
                (_, Some(_)) if stores_one(inst, self.callees) => {
                    self.error(Some(inst), "stores or meets others between an arrive and its await");
                }
                _ => {}
            }
        }
        if arrival.is_some() {
            self.error(arrival, "no await after it in its region");
        }
    }
}
