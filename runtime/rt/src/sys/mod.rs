//! Where the runtime meets the system: start of the process, the payload in memory, the table of
//! compiled steps.

pub mod affinity;
pub mod amx;
pub mod clock;
pub mod futex;
mod image;
pub mod job;
pub mod mmap;
pub mod multiply;
pub mod payload;
pub mod read;
pub mod signals;
#[cfg(llmc_artifact)]
pub mod start;
pub mod step;
pub mod variants;
