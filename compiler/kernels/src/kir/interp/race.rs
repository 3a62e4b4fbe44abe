//! Who read and wrote each byte last.

use super::access::{Access, Last, SEVERAL};
use super::error::{Addr, Fault};

/// Accesses to the bytes of one buffer. Neighbours mostly have one history, so that one look serves for
/// all bytes of an access.
pub(super) struct Shadow {
    writes: Vec<Last>,
    reads: Vec<Last>,
}

impl Shadow {
    pub fn new(len: usize) -> Shadow {
        Shadow { writes: vec![Last::default(); len], reads: vec![Last::default(); len] }
    }

    /// Notes a read of `len` bytes from `at`, which is `addr`.
    #[inline]
    pub fn read(&mut self, at: usize, len: usize, addr: Addr, access: &Access) -> Result<(), Fault> {
        check(&self.writes[at..at + len], addr, "written", access)?;
        let note = |last: Last| {
            let thread = if access.races(last) { access.join(last) } else { access.thread };
            Last::new(access.moment, thread)
        };
        let reads = &mut self.reads[at..at + len];
        match alike(reads) {
            Some(last) => reads.fill(note(last)),
            None => reads.iter_mut().for_each(|last| *last = note(*last)),
        }
        Ok(())
    }

    /// Notes a write of `len` bytes from `at`, which is `addr`.
    #[inline]
    pub fn write(&mut self, at: usize, len: usize, addr: Addr, access: &Access) -> Result<(), Fault> {
        let writes = &mut self.writes[at..at + len];
        check(writes, addr, "written", access)?;
        check(&self.reads[at..at + len], addr, "read", access)?;
        writes.fill(Last::new(access.moment, access.thread));
        Ok(())
    }

    /// Notes a read and write that other such ones cannot come between, nor race with.
    pub fn update(&mut self, at: usize, len: usize, addr: Addr, access: &Access) -> Result<(), Fault> {
        let writes = &mut self.writes[at..at + len];
        if writes.iter().any(|last| last.thread() != SEVERAL) {
            check(writes, addr, "written", access)?;
        }
        check(&self.reads[at..at + len], addr, "read", access)?;
        writes.fill(Last::new(access.moment, SEVERAL));
        Ok(())
    }
}

/// What all bytes have in common, if they are alike.
#[inline]
fn alike(bytes: &[Last]) -> Option<Last> {
    let first = *bytes.first()?;
    (bytes.iter().fold(0, |differ, last| differ | (last.0 ^ first.0)) == 0).then_some(first)
}

/// Refuses what the present thread does to bytes from `addr` on if it races with these accesses.
#[inline]
fn check(bytes: &[Last], addr: Addr, earlier: &'static str, access: &Access) -> Result<(), Fault> {
    if alike(bytes).is_some_and(|last| !access.races(last)) {
        return Ok(());
    }
    match bytes.iter().position(|last| access.races(*last)) {
        None => Ok(()),
        Some(i) => Err(race(addr, i, earlier, bytes[i], access)),
    }
}

#[cold]
fn race(addr: Addr, i: usize, earlier: &'static str, last: Last, access: &Access) -> Fault {
    Fault::Race { addr: Addr(addr.0 + i as u64), earlier, other: access.name(last.thread()) }
}
