//! Errors of lowering.

use thiserror::Error;

/// Why a module could not be lowered or packed.
#[derive(Debug, Error)]
pub enum Error {
    /// A node has no kernel in this form.
    #[error("block {block}, node %{node} ({op}): {message}")]
    Node {
        /// Name of the block.
        block: String,
        /// Number of the node.
        node: u32,
        /// Name of the op.
        op: &'static str,
        /// What was found and what was expected.
        message: String,
    },
    /// The plan does not fit the limits of addresses or of the step.
    #[error("{0}")]
    Limit(String),
    /// A parameter could not be read.
    #[error(transparent)]
    Ir(#[from] llmc_ir::Error),
    /// Packed weights could not be written.
    #[error("writing weights: {0}")]
    Write(#[from] std::io::Error),
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;
