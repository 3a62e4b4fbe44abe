//! Errors of the passes.

use thiserror::Error;

/// What can go wrong in a pass.
#[derive(Debug, Error)]
pub enum Error {
    /// The module, or one op of it, is not valid.
    #[error(transparent)]
    Ir(#[from] llmc_ir::Error),
    /// A module was not valid after a pass: a bug of that pass.
    #[error("after pass {pass}: {source}; please report this, `--fuel` bisects it")]
    Broken {
        /// The pass that ran last.
        pass: &'static str,
        /// What the verifier found.
        source: llmc_ir::Error,
    },
    /// A term of the e-graph does not fit together.
    #[error("{op}: {message}")]
    Term {
        /// Name of the node's operator.
        op: String,
        /// What was found and what was expected.
        message: String,
    },
    /// A rule named in the options does not exist.
    #[error("there is no rewrite rule named {0}; the rules are: {1}")]
    UnknownRule(String, String),
    /// A pruning that the module does not allow.
    #[error("pruning: {0}")]
    Pruning(String),
    /// A target without facts.
    #[error("no cost facts for target {0}; known targets are: {1}")]
    UnknownTarget(String, String),
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;
