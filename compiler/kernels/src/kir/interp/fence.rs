//! Which bytes of a worker's memory products may read: those that the copy engine brought, and those that the thread
//! which wrote them has fenced before a barrier. See [`crate::kir::Op::SharedFence`].

use super::access::{Access, Last};
use super::error::Fault;
use std::collections::BTreeMap;

/// Who wrote each byte, and who has fenced.
pub(super) struct Fences {
    /// The thread, and how often it had fenced before; none if it was the copy engine, or nobody.
    writers: Vec<Option<(u32, u32)>>,
    /// The moments of each thread's fences.
    moments: BTreeMap<u32, Vec<u32>>,
}

impl Fences {
    /// For so many bytes.
    pub fn new(len: usize) -> Fences {
        Fences { writers: vec![None; len], moments: BTreeMap::new() }
    }

    /// The present thread writes.
    pub fn write(&mut self, at: usize, len: usize, access: &Access) {
        let before = self.moments.get(&access.thread).map_or(0, Vec::len) as u32;
        self.writers[at..at + len].fill(Some((access.thread, before)));
    }

    /// The copy engine has written.
    pub fn copy(&mut self, at: usize, len: usize) {
        self.writers[at..at + len].fill(None);
    }

    /// The present thread fences.
    pub fn fence(&mut self, access: &Access) {
        self.moments.entry(access.thread).or_default().push(access.moment);
    }

    /// The present thread reads in a product.
    pub fn check(&self, at: usize, len: usize, access: &Access) -> Result<(), Fault> {
        for (thread, before) in self.writers[at..at + len].iter().flatten() {
            let moment = self.moments.get(thread).and_then(|moments| moments.get(*before as usize));
            if moment.is_none_or(|moment| access.races(Last::new(*moment, *thread))) {
                return Err(Fault::Operand("a product reads what was written without a fence and a barrier after it"));
            }
        }
        Ok(())
    }
}
