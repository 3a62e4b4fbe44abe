//! Who read and wrote each byte since the last barrier.

use super::error::{Addr, Fault};
use super::memory::Access;

/// Worker number that stands for several readers.
const SEVERAL: u32 = u32::MAX;

/// The last access of a kind to a byte.
#[derive(Clone, Copy, Default)]
struct Last {
    epoch: u32,
    worker: u32,
}

impl Last {
    /// The other worker that made this access in the present epoch, if any.
    fn by_other(self, access: Access) -> Option<u32> {
        (self.epoch == access.epoch && self.worker != access.worker).then_some(self.worker)
    }
}

/// Accesses to the bytes of one buffer.
pub(super) struct Shadow {
    writes: Vec<Last>,
    reads: Vec<Last>,
}

impl Shadow {
    pub fn new(len: usize) -> Shadow {
        Shadow { writes: vec![Last::default(); len], reads: vec![Last::default(); len] }
    }

    /// Notes a read of `len` bytes from `at`, which is `addr`.
    pub fn read(&mut self, at: usize, len: usize, addr: Addr, access: Access) -> Result<(), Fault> {
        let bytes = self.reads[at..at + len].iter_mut().zip(&self.writes[at..at + len]);
        for (i, (read, write)) in bytes.enumerate() {
            if let Some(other) = write.by_other(access) {
                return Err(race(addr, i, "written", other));
            }
            let worker = if read.by_other(access).is_some() { SEVERAL } else { access.worker };
            *read = Last { epoch: access.epoch, worker };
        }
        Ok(())
    }

    /// Notes a write of `len` bytes from `at`, which is `addr`.
    pub fn write(&mut self, at: usize, len: usize, addr: Addr, access: Access) -> Result<(), Fault> {
        let bytes = self.writes[at..at + len].iter_mut().zip(&self.reads[at..at + len]);
        for (i, (write, read)) in bytes.enumerate() {
            if let Some(other) = write.by_other(access) {
                return Err(race(addr, i, "written", other));
            }
            if let Some(other) = read.by_other(access) {
                return Err(race(addr, i, "read", other));
            }
            *write = Last { epoch: access.epoch, worker: access.worker };
        }
        Ok(())
    }
}

fn race(addr: Addr, i: usize, earlier: &'static str, other: u32) -> Fault {
    let other = (other != SEVERAL).then_some(other);
    Fault::Race { addr: Addr(addr.0 + i as u64), earlier, other }
}
