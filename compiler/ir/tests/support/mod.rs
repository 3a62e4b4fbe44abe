//! What this crate's tests share: the sample module and a small random number generator.

#![allow(dead_code, reason = "each test file uses a part")]

use llmc_ir::{MemoryParams, Module, Tensor, parse::parse_module};

/// The text of the sample module.
pub const TINY: &str = include_str!("../data/tiny.ir");

/// The sample module.
pub fn tiny() -> Module {
    parse_module(TINY).expect("the sample parses")
}

/// Xorshift64* (Vigna, arXiv 1402.6246).
pub struct Rng(pub u64);

impl Rng {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 11) as usize % n
    }

    /// A number in -1..1.
    pub fn real(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Random weights for a module.
pub fn weights(module: &Module, seed: u64) -> MemoryParams {
    let mut rng = Rng(seed);
    let mut params = MemoryParams::default();
    for p in &module.params {
        let shape: Vec<usize> = p.ty.shape.iter().filter_map(|d| d.constant()).collect();
        let data = (0..shape.iter().product()).map(|_| rng.real()).collect();
        params.0.insert(p.name.clone(), Tensor::f32(&shape, data));
    }
    params
}
