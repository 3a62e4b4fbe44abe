//! NVIDIA's assembler and disassembler, where they are.

use llmc_ptxas::{Disassembler, Tool};
use std::path::{Path, PathBuf};

/// Where `cargo xtask test` puts them.
fn fetched() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cuda-tools")
}

/// The assembler; where there is none it is told.
pub fn assembler() -> Option<Tool> {
    let tool = Tool::find(Some(&fetched())).or_else(|| Tool::find(None));
    if tool.is_none() {
        eprintln!("skipped: {}", Tool::require(None).expect_err("none was found"));
    }
    tool
}

/// The disassembler; where there is none it is told.
pub fn disassembler() -> Option<Disassembler> {
    let tool = Disassembler::find(Some(&fetched())).or_else(|| Disassembler::find(None));
    if tool.is_none() {
        eprintln!("instructions are not looked at: {}", Disassembler::require(None).expect_err("none was found"));
    }
    tool
}
