//! What can go wrong, and the exit code it has.

use thiserror::Error;

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The command line asks for something that does not exist or does not fit.
    #[error("{0}")]
    Usage(String),
    /// The input is not what it has to be.
    #[error("{0}")]
    Input(String),
    /// Something else failed.
    #[error("{0}")]
    Failed(String),
    /// A checkpoint, its configuration, or a graph that could not be built.
    #[error(transparent)]
    Model(#[from] llmc_models::Error),
    /// A rewriting pass failed.
    #[error("optimizing: {0}")]
    Passes(#[from] llmc_passes::Error),
    /// A module is not valid: a bug of llmc.
    #[error("verifying: {0}")]
    Ir(#[from] llmc_ir::Error),
    /// A graph could not be lowered.
    #[error("lowering: {0}")]
    Lower(#[from] llmc_lower::Error),
    /// Code could not be generated.
    #[error(transparent)]
    Backend(#[from] llmc_kernels::BackendError),
    /// The artifact could not be made.
    #[error(transparent)]
    Link(#[from] llmc_link::Error),
}

impl Error {
    /// Exit code of the command: 1 failed, 2 bad usage, 3 bad input file.
    pub fn exit_code(&self) -> u8 {
        use llmc_models::Class;
        match self {
            Error::Usage(_) => 2,
            Error::Input(_) => 3,
            Error::Model(e) => match e.class() {
                Class::BadInput => 3,
                Class::BadUsage => 2,
                Class::Io | Class::Internal => 1,
            },
            Error::Backend(llmc_kernels::BackendError::Target { .. })
            | Error::Passes(llmc_passes::Error::UnknownRule(..)) => 2,
            _ => 1,
        }
    }

    /// An I/O error at a path.
    pub fn io(what: &str, path: &std::path::Path, source: &std::io::Error) -> Error {
        Error::Failed(format!("{what} {}: {source}", path.display()))
    }
}
