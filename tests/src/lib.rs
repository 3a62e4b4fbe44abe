//! Shared test support.

pub mod amx;
pub mod artifact;
pub mod command;
pub mod emulated;
pub mod kirgen;
pub mod reference;
pub mod step;
pub mod weights;
