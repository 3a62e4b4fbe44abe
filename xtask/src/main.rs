//! `cargo xtask`: the project's chores, each a file.

mod demo;
mod gpu_bundle;
mod make_model;
mod peers;
mod quality;
mod setup;
mod test;
mod tidy;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the llmc project")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing, build llmc, compile a small model and run it
    Demo,
    /// Run everything that CI runs
    Test,
    /// Check the rules that no compiler checks: dependency directions, file contents
    Tidy,
    /// Rewrite the expectations of file tests to what comes out now
    Bless,
    /// Measure what each quantization scheme costs, for docs/quantization.md
    Quality {
        /// Only this
        what: Option<quality::What>,
    },
    /// Measure llmc beside llama.cpp, the two taking turns
    Peers(peers::Peers),
    /// Write a random-weight checkpoint of a real shape with a full-size tokenizer
    MakeModel {
        /// llama-1b, qwen3-0.6b, llama-8b, or a layer of one: llama-1b-layer, llama-8b-layer
        name: String,
        /// Folder to write [default: target/models/NAME]
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Compile what is to be checked and measured on a machine with a GPU, with the program that does
    GpuBundle {
        /// Folder to write
        #[arg(short, long, default_value = "target/gpu-bundle")]
        output: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Demo => demo::run(&setup::prepare()?),
        Task::Test => test::run(&setup::prepare()?),
        Task::Tidy => tidy::run(),
        Task::Bless => {
            sh(cargo().args(["test", "--release", "--workspace", "--test", "filetests"]).env("LLMC_BLESS", "1"))
        }
        Task::Quality { what } => quality::run(what),
        Task::Peers(args) => peers::run(&args),
        Task::MakeModel { name, output } => {
            let output = output.unwrap_or_else(|| root().join("target/models").join(&name));
            make_model::run(&name, &output, make_model::Weights::Random)
        }
        Task::GpuBundle { output } => gpu_bundle::run(&root().join(output)),
    }
}

/// The workspace's folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// The cargo that runs this, in the workspace's folder.
fn cargo() -> Command {
    let mut c = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    c.current_dir(root());
    c
}

/// Runs a command and fails where it fails.
fn sh(command: &mut Command) -> Result<()> {
    let line = format!("{command:?}").replace('"', "");
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("starting {line}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// What a command prints; fails with what it complains of where it fails.
fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}
