//! Everything CI runs, cheapest first.

use crate::setup::Setup;
use crate::{cargo, demo, sh, tidy};
use anyhow::Result;

/// Runs formatting, lints, tidy checks, all tests, doc tests, and the demo.
pub fn run(setup: &Setup) -> Result<()> {
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
