//! Shared test support.

pub mod command;
pub mod jit;
pub mod kirgen;
pub mod reference;
pub mod weights;
