//! NVIDIA's assembler and disassembler, where a machine has them.
//!
//! `ptxas` turns PTX into a cubin: machine code of one GPU generation, which loads without the
//! driver compiling it. Its licence does not let llmc carry it along, so it is looked for
//! ([`Tool::find`]) and llmc ships PTX where there is none. `nvdisasm` shows what it made. Together
//! they say without a GPU whether a kernel spills registers, or uses the instructions it was written
//! for: that is a [`Gate`].

mod error;
mod find;
mod gate;
mod report;
mod sass;
mod scratch;
mod tool;

pub use error::Error;
pub use gate::{Gate, Violations};
pub use report::KernelReport;
pub use sass::{Function, Instruction, Loop, count, functions};
pub use tool::{Assembled, Disassembler, Tool, Version};
