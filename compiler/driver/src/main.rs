//! The `llmc` command.

use clap::Parser;
use llmc::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    llmc::signals::install();
    let cli = Cli::parse();
    match llmc::commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}
