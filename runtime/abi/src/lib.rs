//! The contract between compiled code, its packer and the runtime.
//!
//! Three parts: the entry of a step ([`step`]), the bytes behind the code ([`payload`]), and the
//! description of everything in them ([`manifest`]). `lower` and `link` write what `rt` reads.

pub mod device;
pub mod features;
pub mod manifest;
pub mod payload;
pub mod step;
pub mod tokenizer;

pub use features::Feature;
pub use manifest::Manifest;
pub use step::{StepArgs, StepFn, Variant};
