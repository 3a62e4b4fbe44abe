//! Whole models: what their executables compute, and what it must not depend on.

mod aarch64;
mod barriers;
mod by_use;
mod cache;
mod experts;
mod fidelity;
mod group_barriers;
mod groups;
mod invariance;
mod large;
mod pruning;
mod quantized;
mod rewriting;
mod tiles;
mod trained;
mod windows;
