//! The engine in every artifact.

pub mod artifact;
pub mod bandwidth;
pub mod chat;
pub mod cli;
pub mod commands;
pub mod cuda;
pub mod decode;
pub mod energy;
pub mod engine;
pub mod error;
pub mod generate;
pub mod kv;
pub mod limits;
pub mod memory;
pub mod output;
pub mod peak;
pub mod safetensors;
pub mod sampler;
pub mod stop;
pub mod sys;
pub mod text;
pub mod tokenizer;
pub mod workers;

use std::sync::OnceLock;
use std::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();

/// Notes when the process began its work; later calls change nothing.
pub fn clock_start() -> Instant {
    *START.get_or_init(Instant::now)
}
