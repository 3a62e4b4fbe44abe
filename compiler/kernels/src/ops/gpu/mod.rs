//! Kernels for workers that are groups of threads.
//!
//! What differs from a CPU is how a product and attention are taken apart; norms, epilogues, formats and
//! everything that works on rows is shared.

pub mod attention;
pub mod byte_rows;
pub mod coded;
pub mod division;
pub mod flash;
pub mod fragments;
pub mod gemm;
pub mod gemv;
pub mod integers;
mod noise;
pub mod pieces;
pub mod reduce;
pub mod ring;
pub mod rows;
pub mod sample;
pub mod scalars;

/// Shared memory that a kernel may use on every GPU that PTX for compute capability 8.0 runs on.
pub const SHARED_BYTES: usize = 98 * 1024;
/// Shared memory at the beginning, for sums over the group: one f32 for each warp.
pub const REDUCE_BYTES: usize = 128;
