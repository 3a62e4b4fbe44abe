//! What the parts of a model contribute on a text: measured by running the model itself.
//!
//! A model runs layer by layer, so that memory holds the weights of one layer and the residual streams of the
//! text: one, and one more for each layer whose absence is measured. [`pieces`] cuts the module into small ones whose input is the residual
//! stream, [`machine`] compiles and runs them in this process, and [`measure()`] says what a layer and what
//! each channel of a feed-forward network is worth.
//!
//! Everything is computed in f32 by the kernels that artifacts have, whose bits do not depend on the
//! processor: the same text gives the same findings on every machine.

pub mod divergence;
pub mod machine;
pub mod measure;
pub mod pieces;

pub use machine::Setup;
pub use measure::{Findings, Request, measure};

use thiserror::Error;

/// Why a model cannot be measured.
#[derive(Debug, Error)]
pub enum Error {
    /// The module, or a weight, is not what it should be.
    #[error(transparent)]
    Ir(#[from] llmc_ir::Error),
    /// The passes failed.
    #[error(transparent)]
    Passes(#[from] llmc_passes::Error),
    /// A piece has no kernel.
    #[error(transparent)]
    Lower(#[from] llmc_lower::Error),
    /// The code generator failed.
    #[error("calibration: {0}")]
    Backend(String),
    /// Compiled code cannot be loaded.
    #[error(transparent)]
    Jit(#[from] llmc_jit::Error),
    /// The module has not the shape that is expected of a decoder.
    #[error("calibration: {0}")]
    Module(String),
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;
