//! Copies to the worker's memory that a thread begins and waits for.
//!
//! A copy takes what was in its target away at once, and what it brings is there only after the wait
//! for it, which is the latest moment allowed. In between nobody may read the target, and neither
//! source nor target may be written. Copies that no commit follows never arrive.

use super::access::Access;
use super::error::{Addr, Fault};
use super::memory::{Memory, Place, same_buffer};
use std::collections::VecDeque;

/// What a thread does about its copies. Places in the frame, but for the numbers of bytes and groups.
pub(super) enum AsyncStep {
    Copy { to: usize, from: usize, bytes: u32 },
    Commit,
    Wait { pending: usize },
}

/// A copy under way.
pub(super) struct Copy {
    to: Place,
    from: Place,
    data: Vec<u8>,
}

impl Copy {
    /// Bytes from `from` to `to`, the worker's memory.
    pub fn begin(
        (to, from): (u64, u64),
        bytes: u32,
        align: u32,
        memory: &mut Memory,
        access: &Access,
    ) -> Result<Copy, Fault> {
        let place = |addr: u64| Place { addr: Addr(addr), len: bytes as usize, align };
        begin(place(to), place(from), memory, access)
    }

    /// Puts what was copied where it belongs, in nobody's name.
    pub fn deliver(&self, memory: &mut Memory, access: &Access) -> Result<(), Fault> {
        check(self, memory, access)?;
        memory.deliver(self.to, &self.data)
    }
}

/// A thread's copies under way.
#[derive(Default)]
pub(super) struct Copies {
    open: Vec<Copy>,
    groups: VecDeque<Vec<Copy>>,
}

impl Copies {
    /// Carries out a step on the places of a frame.
    pub fn step(
        &mut self,
        step: &AsyncStep,
        places: &[u64],
        memory: &mut Memory,
        access: &Access,
    ) -> Result<(), Fault> {
        match step {
            AsyncStep::Copy { to, from, bytes } => {
                let place = |at: usize| Place { addr: Addr(places[at]), len: *bytes as usize, align: *bytes };
                self.open.push(begin(place(*to), place(*from), memory, access)?);
            }
            AsyncStep::Commit => self.groups.push_back(std::mem::take(&mut self.open)),
            AsyncStep::Wait { pending } => self.wait(*pending, memory, access)?,
        }
        Ok(())
    }

    fn wait(&mut self, pending: usize, memory: &mut Memory, access: &Access) -> Result<(), Fault> {
        while self.groups.len() > pending {
            let group = self.groups.pop_front().into_iter().flatten();
            group.into_iter().try_for_each(|copy| arrive(&copy, memory, access))?;
        }
        Ok(())
    }

    /// The thread returns.
    pub fn finish(&self) -> Result<(), Fault> {
        if self.open.is_empty() && self.groups.iter().all(Vec::is_empty) {
            return Ok(());
        }
        Err(Fault::Operand("the thread returns with asynchronous copies under way"))
    }
}

fn begin(to: Place, from: Place, memory: &mut Memory, access: &Access) -> Result<Copy, Fault> {
    if !same_buffer(to.addr, access.shared) {
        return Err(Fault::Operand("the target of an asynchronous copy is not memory of the worker"));
    }
    let data = memory.load(from, access)?.to_vec();
    memory.poison(to, access)?;
    Ok(Copy { to, from, data })
}

fn arrive(copy: &Copy, memory: &mut Memory, access: &Access) -> Result<(), Fault> {
    check(copy, memory, access)?;
    memory.store(copy.to, access)?.copy_from_slice(&copy.data);
    Ok(())
}

/// Neither source nor target was written since.
fn check(copy: &Copy, memory: &mut Memory, access: &Access) -> Result<(), Fault> {
    if memory.load(copy.from, access)? != copy.data {
        return Err(Fault::Operand("the source of an asynchronous copy was written before the wait for it"));
    }
    if !memory.is_poisoned(copy.to)? {
        return Err(Fault::Operand("the target of an asynchronous copy was written before the wait for it"));
    }
    Ok(())
}
