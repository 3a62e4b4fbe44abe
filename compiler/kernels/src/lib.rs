//! The kernel IR (KIR) and the kernels written in it.
//!
//! [`kir`] is a small typed SSA language with structured loops; [`ops`] has one builder function
//! for each kernel; [`target`] says what a processor offers; [`backend`] is what a code generator
//! implements.

pub mod backend;
pub mod kir;
pub mod target;

pub use backend::{Backend, BackendError, Object};
pub use target::Target;
