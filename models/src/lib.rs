//! Checkpoints and architectures: from files to a spec, weights by canonical name, and a module.
//!
//! [`open`] reads a model; [`build`](build::build) makes its [`llmc_ir::Module`]. A family of
//! models is one file in [`families`]. Every byte of a checkpoint is taken for hostile.

pub mod bind;
pub mod blocks;
pub mod build;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod families;
mod json;
pub mod open;
pub mod sources;
pub mod spec;
pub mod tokenizer;
pub mod weights;

pub use build::{Activations, BuildOptions, build};
pub use checkpoint::{Checkpoint, TensorFile};
pub use config::text::TextConfig;
pub use error::{Class, Error, Result};
pub use open::{Opened, open};
pub use spec::ArchSpec;
