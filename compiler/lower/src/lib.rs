//! Module to plan: which kernel computes what, where every value and weight lies, and when
//! workers wait for each other.
//!
//! [`plan::plan`] is the way in: [`runs`] groups calls of a block, [`block`] turns a block's graph
//! into kernels ([`select`]) over buffers ([`buffers`]), [`phases`] puts barriers between them, and
//! [`weights`] and [`pack`] lay out and write the weights.

pub mod ahead;
mod block;
pub mod buffers;
pub mod error;
pub mod pack;
pub mod phases;
pub mod plan;
pub mod runs;
pub mod select;
pub mod weights;

pub use error::{Error, Result};
pub use plan::{Options, Plan, VariantPlan, plan};
pub use weights::WeightsPlan;
