//! The kernel IR (KIR) and the kernels written in it.
//!
//! [`kir`] is a small typed SSA language with structured loops; [`ops`] has one builder function
//! for each kernel; [`formats`] says how weights lie in memory and how they are decoded;
//! [`target`] and [`schedule`] say what a processor offers and how kernels use it; [`backend`] is
//! what a code generator implements.

pub mod backend;
pub mod env;
pub mod formats;
pub mod group;
pub mod kir;
pub mod layout;
pub mod math;
pub mod ops;
pub mod schedule;
pub mod target;

pub use backend::{Backend, BackendError, Object};
pub use formats::WeightFormat;
pub use schedule::Schedule;
pub use target::Target;
