//! Tables of angles: one value of the step for each distinct rotary embedding.
//!
//! Frequencies are computed in f32 as transformers computes them, since references are.

use super::BlockBuilder;
use crate::error::Result;
use crate::spec::{RopeScaling, RopeSpec, YarnRamp};
use llmc_abi::manifest::PAGE_POSITIONS;
use llmc_ir::ops::Real;
use llmc_ir::{Op, Value};
use std::f64::consts::PI;

/// Name of the `i`-th table among the step's values: `rope`, `rope1`, ..
pub fn value_name(i: usize) -> String {
    if i == 0 { "rope".into() } else { format!("rope{i}") }
}

/// `f32[T, rotary_dim]`: cosines, then sines, of each token's angles.
pub fn table(b: &mut BlockBuilder, rope: &RopeSpec) -> Result<Value> {
    let positions = b.token_input("positions")?;
    let (frequencies, scaling) = frequencies(rope);
    let data = frequencies.into_iter().map(Real::new).collect();
    let inv_freq = b.push(Op::Const { shape: vec![rope.rotary_dim / 2], data }, &[])?;
    // Where pages may be forgotten, positions count within a page, and queries turn on from there.
    let period = b.keep().map(|_| PAGE_POSITIONS);
    b.push(Op::RopeTable { scaling: Real::new(scaling), period }, &[positions, inv_freq])
}

/// `f32[pages * rotary_dim]`: cosines, then sines, of the angles of each number of pages, from none on.
pub fn turns(b: &mut BlockBuilder, rope: &RopeSpec, pages: usize) -> Result<Value> {
    let (frequencies, _) = frequencies(rope);
    let mut data = Vec::with_capacity(pages * rope.rotary_dim);
    for page in 0..pages {
        let angles = frequencies.iter().map(|f| f64::from((page * PAGE_POSITIONS) as f32 * f));
        data.extend(angles.clone().map(|a| Real::new(libm::cos(a) as f32)));
        data.extend(angles.map(|a| Real::new(libm::sin(a) as f32)));
    }
    b.push(Op::Const { shape: vec![pages * rope.rotary_dim], data }, &[])
}

/// Radians per position for each pair, and the factor on cosines and sines.
pub fn frequencies(rope: &RopeSpec) -> (Vec<f32>, f32) {
    let periods = (0..rope.rotary_dim / 2).map(|i| {
        let exponent = (2 * i) as f32 / rope.rotary_dim as f32;
        libm::pow(rope.theta, f64::from(exponent)) as f32
    });
    let plain = periods.clone().map(|p| 1.0 / p);
    match rope.scaling {
        RopeScaling::None => (plain.collect(), 1.0),
        RopeScaling::Linear { factor } => (plain.map(|f| f / factor as f32).collect(), 1.0),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let scale = |f: f32| llama3(f, factor as f32, low_freq_factor, high_freq_factor, original_context as f64);
            (plain.map(scale).collect(), 1.0)
        }
        RopeScaling::Yarn { factor, attention_factor, .. } => {
            let kept = yarn_kept(rope);
            let mix = |(p, kept): (f32, f32)| (1.0 / (factor as f32 * p)) * (1.0 - kept) + (1.0 / p) * kept;
            (periods.zip(kept).map(mix).collect(), attention_factor as f32)
        }
    }
}

/// One frequency under Llama 3's scaling.
fn llama3(f: f32, factor: f32, low: f64, high: f64, context: f64) -> f32 {
    let wavelength = (2.0 * PI) as f32 / f;
    if wavelength < (context / high) as f32 {
        return f;
    }
    if wavelength > (context / low) as f32 {
        return f / factor;
    }
    let smooth = (context as f32 / wavelength - low as f32) / (high - low) as f32;
    (1.0 - smooth) * f / factor + smooth * f
}

/// How much of each frequency YaRN keeps: 1 for the fast ones, 0 for the slow ones.
fn yarn_kept(rope: &RopeSpec) -> Vec<f32> {
    let RopeScaling::Yarn { beta_fast, beta_slow, original_context, ramp, .. } = rope.scaling else {
        return vec![1.0; rope.rotary_dim / 2];
    };
    let dim = rope.rotary_dim as f64;
    let index =
        |turns: f64| dim * libm::log(original_context as f64 / (turns * 2.0 * PI)) / (2.0 * libm::log(rope.theta));
    let (mut low, mut high) = (index(beta_fast), index(beta_slow));
    if ramp == YarnRamp::Whole {
        (low, high) = (libm::floor(low), libm::ceil(high));
    }
    (low, high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    let slow = |i: usize| ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
    (0..rope.rotary_dim / 2).map(|i| 1.0 - slow(i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Pairing;

    fn rope(scaling: RopeScaling) -> RopeSpec {
        RopeSpec { theta: 10_000.0, rotary_dim: 32, pairing: Pairing::Halves, scaling }
    }

    #[test]
    fn plain_frequencies_fall_from_one() {
        let (f, scaling) = frequencies(&rope(RopeScaling::None));
        assert_eq!((f.len(), f[0], scaling), (16, 1.0, 1.0));
        assert!((f[8] - 0.01).abs() < 1e-8, "theta^-1/2 is {}", f[8]);
    }

    #[test]
    fn scalings_keep_fast_and_divide_slow() {
        let plain = frequencies(&rope(RopeScaling::None)).0;
        let yarn = RopeScaling::Yarn {
            factor: 4.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: 1.5,
            original_context: 4096,
            ramp: YarnRamp::Whole,
        };
        let llama3 =
            RopeScaling::Llama3 { factor: 4.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 4096 };
        for scaling in [yarn, llama3] {
            let f = frequencies(&rope(scaling)).0;
            assert_eq!(f[0], plain[0]);
            assert_eq!(f[15], plain[15] / 4.0);
            assert!(f.iter().zip(&plain).all(|(a, b)| a <= b && *a >= b / 4.0 - 1e-9));
        }
    }
}
