//! The commands as users run them: `llmc` and its artifacts, from the outside.

mod artifact_cli;
mod artifact_files;
mod bad_input;
mod context;
mod cuda;
mod determinism;
mod llmc_cli;
mod output_files;
mod prune;
mod quantize;
mod signals;
mod standalone;
