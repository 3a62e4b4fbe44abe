//! What the cost model knows of a target.
//!
//! The figures are round ones for a typical machine of each level. They are data of the
//! compiler, never measured where it runs, so that one target gives one artifact everywhere.

use crate::error::{Error, Result};

/// Facts about a target, for the roofline.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetFacts {
    /// Name, as `--target` takes it.
    pub name: String,
    /// Bytes per second from memory, all workers together: weights and KV cache.
    pub memory_bandwidth: f64,
    /// Bytes per second from the caches near the cores, all workers together: activations.
    pub cache_bandwidth: f64,
    /// Operations per second on f32, all workers together, a multiply-add counting as two.
    pub peak_flops: f64,
    /// The same where the rows of a matmul are rounded to bf16: the matrix unit, if there is one.
    pub bf16_flops: f64,
    /// The same where the rows are 8-bit integers.
    pub int8_flops: f64,
    /// Seconds that one more kernel in the step costs: a barrier between all workers.
    pub barrier_seconds: f64,
    /// Workers of a step.
    pub workers: usize,
}

/// A line of the table.
type Row = (&'static str, [f64; 2], [f64; 3], f64, usize);

/// Name; GB/s of memory and of caches; GFLOP/s in f32, with bf16 rows, and with 8-bit integers;
/// barrier in microseconds; workers.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("x86-64-v2",  [ 20.0, 120.0], [ 200.0,   200.0,   300.0], 1.0, 8),
    ("x86-64-v3",  [ 40.0, 320.0], [ 800.0,   800.0,  1200.0], 1.0, 8),
    ("x86-64-v4",  [ 80.0, 640.0], [1600.0,  3200.0,  6400.0], 1.0, 8),
    ("x86-64-amx", [160.0, 800.0], [2000.0, 16000.0, 32000.0], 1.0, 8),
    ("cuda",       [4000.0, 10000.0], [50000.0, 600000.0, 1200000.0], 1.5, 132),
    ("cuda:sm_90a", [4000.0, 10000.0], [50000.0, 600000.0, 1200000.0], 1.5, 132),
    ("aarch64",    [ 60.0, 320.0], [ 400.0,   400.0,   400.0], 1.0, 8),
    ("aarch64-dotprod", [ 60.0, 320.0], [ 400.0, 400.0, 1000.0], 1.0, 8),
    ("aarch64-i8mm", [100.0, 400.0], [ 600.0,  600.0,  2400.0], 1.0, 8),
];

impl TargetFacts {
    /// The facts of a target the compiler knows.
    ///
    /// # Errors
    /// [`Error::UnknownTarget`], with the names that exist.
    pub fn named(name: &str) -> Result<TargetFacts> {
        let row = TABLE.iter().find(|row| row.0 == name);
        let (_, [memory, cache], [peak, bf16, int8], barrier, workers) =
            *row.ok_or_else(|| Error::UnknownTarget(name.into(), TargetFacts::names().join(", ")))?;
        Ok(TargetFacts {
            name: name.into(),
            memory_bandwidth: memory * 1e9,
            cache_bandwidth: cache * 1e9,
            peak_flops: peak * 1e9,
            bf16_flops: bf16 * 1e9,
            int8_flops: int8 * 1e9,
            barrier_seconds: barrier * 1e-6,
            workers,
        })
    }

    /// Names of the targets the compiler knows.
    pub fn names() -> Vec<&'static str> {
        TABLE.iter().map(|row| row.0).collect()
    }
}
