//! Everything CI runs, cheapest first.

use crate::setup::Setup;
use crate::{cargo, demo, setup, sh, tidy};
use anyhow::Result;

/// Programs of Debian that some tests look over llmc's shoulder with, or run code for other processors with; without
/// them those tests say that they were skipped.
const WITNESSES: [&str; 5] = ["strace", "binutils", "qemu-user", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];

/// Runs formatting, lints, tidy checks, all tests, doc tests, and the demo.
pub fn run(setup: &Setup) -> Result<()> {
    setup::install_missing(&WITNESSES);
    setup::fetch_cuda_tools();
    sh(cargo().args(["fmt", "--all", "--check"]))?;
    tidy::run()?;
    let scope: Vec<&str> = match setup.llvm {
        true => vec!["--workspace"],
        false => vec!["--workspace", "--exclude", "llmc-codegen-llvm", "--no-default-features"],
    };
    sh(cargo().args(["clippy", "--release", "--all-targets"]).args(&scope).args(["--", "-D", "warnings"]))?;
    sh(cargo().args(["test", "--release", "--no-fail-fast"]).args(&scope))?;
    demo::run(setup)
}
