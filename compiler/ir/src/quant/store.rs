//! Scales as they are stored: binary16 or f32, always finite.

use half::f16;

/// Largest finite binary16, in bits.
const F16_MAX: u16 = 0x7BFF;

/// The binary16 nearest to `x`, as bits; beyond the largest finite one, that one. 0 has no sign.
pub(super) fn f16_bits(x: f32) -> u16 {
    let bits = f16::from_f32(x).to_bits();
    with_magnitude(bits & 0x8000, bits & 0x7FFF)
}

/// The bits of a sign and a magnitude that may be too large.
fn with_magnitude(sign: u16, magnitude: u16) -> u16 {
    if magnitude == 0 { 0 } else { sign | magnitude.min(F16_MAX) }
}

/// The bits of the next binary16 away from 0, if it is finite.
pub(super) fn f16_next(bits: u16) -> u16 {
    with_magnitude(bits & 0x8000, (bits & 0x7FFF) + 1)
}

/// The value of binary16 bits.
pub(super) fn f16_value(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

/// The binary16 at or next to `x` of least error, as bits. `error` is not called with 0: its error
/// is given as `zero_error`.
pub(super) fn settle_f16(x: f32, zero_error: f32, mut error: impl FnMut(f32) -> f32) -> u16 {
    let (near, sign) = (f16_bits(x) & 0x7FFF, if x < 0.0 { 0x8000 } else { 0 });
    let (mut best, mut least) = (0, f32::INFINITY);
    for magnitude in [near, near.saturating_sub(1), near + 1] {
        let bits = with_magnitude(sign, magnitude);
        let e = if bits == 0 { zero_error } else { error(f16_value(bits)) };
        if e < least {
            (best, least) = (bits, e);
        }
    }
    best
}

/// `x * 2^exponent` as an f32 scale of integers or floats up to `top`: positive and such that its
/// product with `top` is finite.
pub(super) fn f32_scale(x: f32, exponent: i32, top: f32) -> f32 {
    let largest = f32::MAX / (top * 1.000_001);
    libm::scalbnf(x, exponent).clamp(f32::from_bits(1), largest)
}

/// A row times `2^-exponent`, with a largest absolute value in 1..2, and that exponent. Exact but for
/// elements 2^-126 below the largest; `None` for a row of zeros.
pub(super) fn normalized(row: &[f32]) -> Option<(Vec<f32>, i32)> {
    let largest = absmax(row);
    if largest == 0.0 {
        return None;
    }
    let exponent = libm::ilogbf(largest);
    if (-100..=100).contains(&exponent) {
        let factor = libm::scalbnf(1.0, -exponent);
        return Some((row.iter().map(|&v| v * factor).collect(), exponent));
    }
    Some((row.iter().map(|&v| libm::scalbnf(v, -exponent)).collect(), exponent))
}

/// Largest absolute value; 0 for no elements.
pub(super) fn absmax(x: &[f32]) -> f32 {
    let mut lanes = [0f32; 8];
    let (chunks, rest) = x.as_chunks::<8>();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, v.abs());
        }
    }
    lanes.iter().chain(rest).fold(0.0, |m, v| larger(m, v.abs()))
}

/// The larger of two numbers that are not NaN.
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Sum of squares.
pub(super) fn energy(x: &[f32]) -> f32 {
    x.iter().map(|v| v * v).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_is_finite_and_has_one_zero() {
        assert_eq!(f16_bits(1.0), 0x3C00);
        assert_eq!(f16_bits(-1e9), 0xFBFF);
        assert_eq!(f16_bits(f32::INFINITY), F16_MAX);
        assert_eq!(f16_bits(-1e-30), 0);
    }

    #[test]
    fn settling_looks_at_the_neighbours() {
        let near = |x: f32, target: f32| f16_value(settle_f16(x, 1e9, |s| (s - target).abs()));
        assert_eq!(near(1.0, 1.000_976_6), 1.000_976_6);
        assert_eq!(near(-1.0, -0.999_511_7), -0.999_511_7);
        assert_eq!(near(1e6, 1e6), 65504.0);
        assert_eq!(settle_f16(1e-12, 0.0, |_| 1.0), 0);
        assert_eq!(settle_f16(1e-12, 1.0, |_| 0.0), 1);
    }

    #[test]
    fn normalization_is_exact() {
        for scale in [1e-42f32, 3e-20, 0.02, 1.0, 3e38] {
            let row = [scale, -scale * 0.5, 0.0];
            let (y, e) = normalized(&row).unwrap();
            assert!((1.0..2.0).contains(&y[0]), "{scale}: {}", y[0]);
            assert!(y.iter().zip(row).all(|(&y, v)| libm::scalbnf(y, e) == v), "{scale}");
        }
        assert!(normalized(&[0.0, -0.0]).is_none());
        assert!((f32_scale(1.9, 127, 127.0) * 127.0).is_finite());
        assert_eq!(f32_scale(1.0, -200, 127.0), f32::from_bits(1));
    }
}
