//! What is carried to a machine with a GPU: `gpu-check` and its bundle.

use crate::make_model::{self, Weights};
use crate::{cargo, root, sh};
use anyhow::{Context, Result};
use std::path::Path;

/// Shapes that are checked, and those that are measured.
const SHAPES: [&str; 4] = ["llama-1b-layer", "llama-8b-layer", "llama-1b", "llama-8b"];
/// The program.
const PROGRAM: &str = "gpu-check";

/// Makes the bundle in `output`.
pub fn run(output: &Path) -> Result<()> {
    if output.exists() {
        std::fs::remove_dir_all(output).with_context(|| output.display().to_string())?;
    }
    std::fs::create_dir_all(output)?;
    let shapes = SHAPES.map(|name| root().join("target/models/zeros").join(name));
    for (name, folder) in SHAPES.iter().zip(&shapes) {
        make_model::run(name, folder, Weights::Zeros)?;
    }
    sh(cargo().args(["build", "--release", "-p", PROGRAM]))?;
    std::fs::copy(root().join("target/release").join(PROGRAM), output.join(PROGRAM))?;
    let mut make = cargo();
    make.args(["run", "--release", "-p", "llmc-tests", "--bin", "gpu-bundle", "--"]).arg(output).args(shapes);
    sh(&mut make)?;
    println!("{0}: run {0}/{PROGRAM} {0} where there is a GPU", output.display());
    Ok(())
}
