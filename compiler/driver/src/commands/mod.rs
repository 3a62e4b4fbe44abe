//! One file for each command.

mod compile;
mod doctor;
mod inspect;
mod plan;

use crate::cli::{Cli, Command};
use crate::error::{Error, Result};
use crate::isolate;
use crate::options::Options;
use clap::CommandFactory;
use std::path::Path;

/// Runs a command line.
///
/// # Errors
/// Whatever the command meets.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Compile(args) => compile::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::GenerateCode(args) => {
            set_jobs(args.jobs)?;
            isolate::serve(&*Options::new("").backend()?, &args.target, args.product)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "llmc", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// Writes text to standard output; a closed pipe is no error.
fn print(text: &str) -> Result<()> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::Failed(format!("writing to standard output: {e}"))),
        _ => Ok(()),
    }
}

/// Writes a file whole or not at all; a device or pipe that already has the name is written to.
fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let special = std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir());
    if special {
        return std::fs::write(path, bytes).map_err(|e| Error::io("writing", path, &e));
    }
    Ok(llmc_link::write_file(path, bytes)?)
}

/// Sets the number of the compiler's threads.
fn set_jobs(jobs: Option<usize>) -> Result<()> {
    let Some(jobs) = jobs else { return Ok(()) };
    if jobs == 0 {
        return Err(Error::Usage("-j 0: at least one thread is needed".into()));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .build_global()
        .map_err(|e| Error::Failed(format!("starting {jobs} threads: {e}")))
}
