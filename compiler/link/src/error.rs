//! What can go wrong while an artifact is made.

use std::io;
use std::path::PathBuf;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output cannot be written where the user wants it.
    #[error("cannot write {}: {source}{}", path.display(), hint(source))]
    Output {
        /// The artifact's path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The output's name belongs to something that must not be replaced.
    #[error("cannot write {}: it is {what}; name another file with -o", path.display())]
    NotAFile {
        /// The artifact's path.
        path: PathBuf,
        /// What is there: `a folder`, `a device`.
        what: &'static str,
    },
    /// The linker refused its input.
    #[error("linking failed: {message}")]
    Link {
        /// The linker's own words.
        message: String,
    },
    /// The linker named by the user cannot be used.
    #[error("linker {}: {message}", path.display())]
    Linker {
        /// The linker's path.
        path: PathBuf,
        /// What happened.
        message: String,
    },
    /// The linker's output is not what this crate asked for.
    #[error("the linked file {what}; this linker cannot make artifacts")]
    Image {
        /// What it lacks.
        what: String,
    },
    /// The source of the payload failed.
    #[error(transparent)]
    Source(Box<dyn std::error::Error + Send + Sync>),
    /// The source of the payload wrote another number of bytes than it had announced.
    #[error("weights: {written} bytes were written, {announced} were announced")]
    WeightsLength {
        /// Bytes announced.
        announced: u64,
        /// Bytes written.
        written: u64,
    },
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space or name another folder with -o",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "; name a writable folder with -o",
        io::ErrorKind::NotFound => "; make the folder first or name another with -o",
        _ => "",
    }
}
