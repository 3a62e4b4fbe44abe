//! The engine in every artifact.

pub mod chat;
pub mod cli;
pub mod engine;
pub mod error;
pub mod kv;
pub mod limits;
pub mod memory;
pub mod sampler;
pub mod stop;
pub mod sys;
pub mod workers;
