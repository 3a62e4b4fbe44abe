//! `verify`: every byte of the artifact's file against the checksums it was written with.

use serde_json::json;

use crate::artifact::Artifact;
use crate::cli::Verify;
use crate::error::{Error, Result};
use crate::memory::megabytes;
use crate::output::{self, Progress};

/// Runs the command.
pub fn run(args: &Verify) -> Result<()> {
    let artifact = Artifact::open()?;
    let mut progress = Progress::new(args.quiet);
    let mut bytes = 0;
    artifact
        .payload
        .verify_with(&mut |done, total| {
            bytes = done;
            progress.show(|| format!("{} of {} checked", megabytes(done), megabytes(total)));
        })
        .map_err(Error::input)?;
    drop(progress);
    match args.json {
        true => output::print_line(&json!({ "ok": true, "bytes": bytes }).to_string()),
        false => output::print_line(&format!("ok: {bytes} bytes are as they were compiled")),
    }
}
