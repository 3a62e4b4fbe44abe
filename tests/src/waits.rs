//! Barriers and waits of a program, and the program without one of them.

use llmc_kernels::kir::{Op, Program, Region};

/// A barrier or wait of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The function's name.
    pub kernel: String,
    /// Its number among those of the function.
    pub number: usize,
    /// What it is.
    pub op: &'static str,
}

/// The name of what waits.
fn wait(op: &Op) -> Option<&'static str> {
    match op {
        Op::Barrier { .. } => Some("barrier"),
        Op::GroupBarrier => Some("group_barrier"),
        Op::WarpBarrier => Some("warp_barrier"),
        Op::AsyncWait { .. } => Some("async_wait"),
        Op::Await { .. } => Some("await"),
        Op::SignalWait { .. } => Some("signal_wait"),
        Op::SharedFence => Some("shared_fence"),
        _ => None,
    }
}

/// Goes over the barriers and waits of a region and those inside it, in order; drops those that `keep` does not
/// want.
fn retain(region: &mut Region, keep: &mut dyn FnMut(&'static str) -> bool) {
    region.body.retain_mut(|inst| {
        match &mut inst.op {
            Op::For { body, .. } => retain(body, keep),
            Op::If { then, els, .. } => [then, els].into_iter().for_each(|r| retain(r, keep)),
            op => return wait(op).is_none_or(&mut *keep),
        }
        true
    });
}

/// Every site of a program.
pub fn sites(program: &Program) -> Vec<Site> {
    let mut found = Vec::new();
    for function in &mut program.clone().functions {
        let (kernel, mut number) = (function.name.clone(), 0);
        retain(&mut function.body, &mut |op| {
            found.push(Site { kernel: kernel.clone(), number, op });
            number += 1;
            true
        });
    }
    found
}

/// The program without one of its sites.
pub fn without(program: &Program, site: &Site) -> Program {
    let mut program = program.clone();
    let function = program.functions.iter_mut().find(|f| f.name == site.kernel).expect("the site's function");
    let mut passed = 0;
    retain(&mut function.body, &mut |_| {
        passed += 1;
        passed != site.number + 1
    });
    program
}
