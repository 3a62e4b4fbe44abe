//! llmc as a library: [`compile::compile`] makes an artifact of a model.

pub mod cli;
pub mod commands;
pub mod compile;
mod device;
pub mod emit;
pub mod error;
pub mod isolate;
mod machine;
pub mod manifest;
pub mod options;
pub mod payload;
pub mod progress;
pub mod prune;
pub mod signals;

pub use compile::{Artifact, compile};
pub use error::{Error, Result};
pub use options::Options;
