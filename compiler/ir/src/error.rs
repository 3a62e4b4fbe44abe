//! Errors of the tensor IR.

use thiserror::Error;

/// What can be wrong with a module, its text form, or a run of the interpreter.
#[derive(Debug, Error)]
pub enum Error {
    /// The text form does not parse.
    #[error("line {line}: {message}")]
    Parse {
        /// 1-based line of the text.
        line: usize,
        /// What was found and what was expected.
        message: String,
    },
    /// The module breaks a rule of the IR; every finding is listed.
    #[error("the module is not valid:\n{}", .0.join("\n"))]
    Verify(Vec<String>),
    /// An op got operands it is not defined for.
    #[error("{op}: {message}")]
    Op {
        /// Name of the op, as printed.
        op: &'static str,
        /// What was found and what was expected.
        message: String,
    },
    /// A parameter could not be read.
    #[error("parameter {name}: {message}")]
    Param {
        /// Canonical name of the parameter.
        name: String,
        /// What went wrong.
        message: String,
    },
    /// The interpreter was given inputs that do not fit.
    #[error("interpreter: {0}")]
    Interp(String),
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;
