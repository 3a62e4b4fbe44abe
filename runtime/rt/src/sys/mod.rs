//! Where the runtime meets the system: start of the process, the payload in memory, the table of
//! compiled steps.

mod image;
pub mod payload;
#[cfg(llmc_artifact)]
pub mod start;
pub mod variants;
