//! Errors of opening and building a model.
//!
//! Each names the file, tensor or key, what was found and what was expected. [`Error::class`] says
//! which kind of failure it is, from which a program derives its exit code.

use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a model could not be opened or built.
#[derive(Debug, Error)]
pub enum Error {
    /// The operating system refused to read a file or folder.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file as a whole is not what it should be.
    #[error("{}: {message}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was found, what was expected, what to do.
        message: String,
    },
    /// A tensor is missing, unexpected, or not of the kind that is needed.
    #[error("{}: tensor {}: {message}", path.display(), quoted(tensor))]
    Tensor {
        /// The file it is in, or should be in.
        path: PathBuf,
        /// Its name in the file.
        tensor: String,
        /// What was found and what was expected.
        message: String,
    },
    /// A key of a JSON file is missing, or its value cannot be used.
    #[error("{}: {}: {message}", path.display(), quoted(key))]
    Key {
        /// The file.
        path: PathBuf,
        /// The key, with its parents before it, separated by dots.
        key: String,
        /// What was found and what was expected.
        message: String,
    },
    /// Something known that llmc cannot do yet.
    #[error("{}: {what} not supported yet; {advice}", path.display())]
    Unsupported {
        /// The file or folder.
        path: PathBuf,
        /// What it is, with its verb: `GGUF files are`.
        what: String,
        /// What the user can do instead.
        advice: String,
    },
    /// The build options do not fit the model.
    #[error("{0}")]
    Options(String),
    /// The builder broke a rule of the IR: a bug of llmc.
    #[error("building the graph: {0}")]
    Ir(#[from] llmc_ir::Error),
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The input is missing, broken or not supported.
    BadInput,
    /// The options do not fit the input.
    BadUsage,
    /// The system failed while reading.
    Io,
    /// A bug of llmc.
    Internal,
}

impl Error {
    /// The kind of failure.
    pub fn class(&self) -> Class {
        use std::io::ErrorKind::{InvalidData, IsADirectory, NotADirectory, NotFound, PermissionDenied, UnexpectedEof};
        match self {
            Error::Io { source, .. } => match source.kind() {
                NotFound | PermissionDenied | IsADirectory | NotADirectory | InvalidData | UnexpectedEof => {
                    Class::BadInput
                }
                _ => Class::Io,
            },
            Error::Options(_) => Class::BadUsage,
            Error::Ir(_) => Class::Internal,
            _ => Class::BadInput,
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    }

    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Error {
        Error::File { path: path.into(), message: message.into() }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, message: impl Into<String>) -> Error {
        Error::Tensor { path: path.into(), tensor: tensor.into(), message: message.into() }
    }

    pub(crate) fn key(path: &Path, key: &str, message: impl Into<String>) -> Error {
        Error::Key { path: path.into(), key: key.into(), message: message.into() }
    }
}

/// A text from a file, fit for a terminal: control characters escaped, at most 120 characters.
pub(crate) fn quoted(name: &str) -> String {
    const LIMIT: usize = 120;
    let mut text = String::new();
    for c in name.chars().take(LIMIT) {
        match c {
            '"' | '\'' | '\\' => text.push(c),
            c => text.extend(c.escape_debug()),
        }
    }
    if name.chars().nth(LIMIT).is_some() {
        text.push_str("..");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_harmless() {
        assert_eq!(quoted("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(quoted(&"x".repeat(500)).len(), 122);
    }
}
