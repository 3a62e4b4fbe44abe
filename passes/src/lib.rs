//! Passes over the tensor IR: a module into a better one that computes the same.
//!
//! [`run`] is the pipeline. Its heart rewrites each block through one e-graph and takes the form
//! that the target's roofline finds cheapest.

pub mod dce;
pub mod egraph;
pub mod error;
pub mod fold;
pub mod pass;
pub mod pipeline;
pub mod prune;
pub mod rewrite;
pub mod target;

pub use egraph::choices::{Choice, Pruned};
pub use error::{Error, Result};
pub use pass::{BlockReport, PassReport, RuleReport};
pub use pipeline::{Options, Report, run, run_block};
pub use prune::Pruning;
pub use target::TargetFacts;
