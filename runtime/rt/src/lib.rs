//! The engine in every artifact.

pub mod cli;
pub mod sys;
