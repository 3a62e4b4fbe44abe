//! The demo: from a clone to a running model.

use crate::setup::Setup;
use crate::{cargo, root, sh};
use anyhow::Result;
use std::process::Command;

const PROMPTS: [&str; 2] = ["Once upon a time", "배우들의 연기"];

/// Builds llmc, compiles the bundled model, runs it in two languages and measures it.
pub fn run(setup: &Setup) -> Result<()> {
    sh(cargo().args(["build", "--release", "-p", "llmc"]).args(setup.features()))?;
    let folder = root().join("target/demo");
    std::fs::create_dir_all(&folder)?;
    let llmc = root().join("target/release/llmc");
    let artifact = folder.join("tinywiki");
    sh(Command::new(&llmc)
        .arg("compile")
        .arg(root().join("tests/models/tinywiki/model.safetensors"))
        .arg("-o")
        .arg(&artifact))?;
    for prompt in PROMPTS {
        sh(Command::new(&artifact).args(["run", prompt, "--raw", "-n", "40", "--temp", "0.7", "--seed", "3"]))?;
        println!();
    }
    sh(Command::new(&artifact).args(["bench", "-p", "128", "-n", "64", "-r", "3"]))?;
    let path = artifact.display();
    println!("\nThe artifact: {path}\nTry next:");
    println!("  {path} chat");
    println!("  {path} info");
    println!("  {path} bench --profile");
    println!("  {} compile tests/models/tinywiki --emit opt", llmc.display());
    Ok(())
}
