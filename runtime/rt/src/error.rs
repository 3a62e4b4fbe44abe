//! Errors of an artifact: what went wrong in words for the user, and which exit code says so.

use std::fmt;

/// Which exit code an error has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The work failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// An input is not what it should be: a file, a text, the artifact itself.
    Input = 3,
    /// Memory or the context is too small.
    Fit = 4,
    /// The machine lacks a device or a CPU feature.
    Device = 5,
    /// SIGINT came.
    Interrupted = 130,
    /// SIGTERM came.
    Terminated = 143,
}

/// What went wrong, where, and what to do about it, as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Its exit code.
    pub kind: Kind,
    /// The line, without `error: `.
    pub message: String,
}

/// A result with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, message: message.into() }
    }

    /// Exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, message: message.into() }
    }

    /// Exit code 3.
    pub fn input(message: impl Into<String>) -> Self {
        Self { kind: Kind::Input, message: message.into() }
    }

    /// Exit code 4.
    pub fn fit(message: impl Into<String>) -> Self {
        Self { kind: Kind::Fit, message: message.into() }
    }

    /// Exit code 5.
    pub fn device(message: impl Into<String>) -> Self {
        Self { kind: Kind::Device, message: message.into() }
    }

    /// The process's exit code.
    pub fn code(&self) -> i32 {
        i32::from(self.kind as u8)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
