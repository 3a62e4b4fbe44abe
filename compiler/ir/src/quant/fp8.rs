//! Fp8: e4m3fn times the scale of a row.

use super::Encoded;
use super::search::{Best, Reach};
use super::store::{absmax, f32_scale, normalized};

/// Largest finite e4m3fn.
pub const MAX: f32 = 448.0;

/// Where the largest weight of a row may lie: an octave, for scales a power of two apart have the
/// same relative errors, and a little beyond the largest e4m3fn.
const REACH: Reach = Reach { lo: 232.0, by: 8.0, count: 31 };

/// The e4m3fn nearest to `u`, to even, saturating. `u` is not NaN.
pub fn round(u: f32) -> f32 {
    let u = if u < MAX { u } else { MAX };
    let u = if u > -MAX { u } else { -MAX };
    let octave = f32::from_bits(u.to_bits() & 0x7F80_0000);
    let octave = if octave > 0.015_625 { octave } else { 0.015_625 };
    // Units in the last place are octave / 8; the sum has units of that size.
    let rounder = octave * (1.5 * 1_048_576.0);
    (u + rounder) - rounder
}

/// Bits of a value that is an e4m3fn.
fn bits(value: f32) -> u8 {
    let sign = if value < 0.0 { 0x80 } else { 0 };
    let magnitude = value.abs();
    if magnitude < 0.015_625 {
        return sign | (magnitude * 512.0) as u8;
    }
    // Exponent and three bits of mantissa; the bias changes from 127 to 7.
    sign | ((magnitude.to_bits() >> 20).saturating_sub(120 << 3) & 0x7F) as u8
}

/// Value of e4m3fn bits. 0x7F and 0xFF are NaN.
pub(super) fn value(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let magnitude = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => libm::scalbnf(8.0 + mantissa, exponent - 10),
    };
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

/// Squared error of a row at `scale`, or a partial sum above `bound`.
pub(super) fn error(x: &[f32], scale: f32, bound: f32) -> f32 {
    let inv = scale.recip();
    let mut lanes = [0f32; 8];
    for stretch in x.chunks(256) {
        for chunk in stretch.chunks(8) {
            for (lane, &v) in lanes.iter_mut().zip(chunk) {
                let d = v - round(v * inv) * scale;
                *lane += d * d;
            }
        }
        if lanes.iter().sum::<f32>() > bound {
            break;
        }
    }
    lanes.iter().sum()
}

/// Encodes a row.
pub(super) fn encode_row(row: &[f32], out: &mut Encoded) {
    let Some((x, exponent)) = normalized(row) else {
        out.codes.extend(row.iter().map(|_| 0));
        return out.row_scales.push(0.0);
    };
    let mut best = Best::default();
    for scale in REACH.iter().map(|r| absmax(&x) / r) {
        best.offer(scale, error(&x, scale, best.error));
    }
    let scale = f32_scale(best.at.unwrap_or(0.0), exponent, MAX);
    let inv = libm::scalbnf(scale, -exponent).recip();
    out.codes.extend(x.iter().map(|&v| bits(round(v * inv))));
    out.row_scales.push(scale);
}

/// Values of a row of codes: the e4m3fn times the scale of the row.
pub(super) fn decode_row(codes: &[u8], scale: f32, out: &mut Vec<f32>) {
    out.extend(codes.iter().map(|&c| value(c) * scale));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_round_trip() {
        assert_eq!((value(0x7E), value(0x08), value(0x01), value(0x38)), (448.0, 0.015_625, 0.001_953_125, 1.0));
        assert!(value(0x7F).is_nan() && value(0xFF).is_nan());
        for b in (0..=0xFE).filter(|b| ![0x7F, 0x80].contains(b)) {
            assert_eq!((bits(value(b)), round(value(b))), (b, value(b)), "{b:#x}");
        }
    }

    #[test]
    fn rounds_to_nearest_even_and_saturates() {
        for b in 0..0x7E {
            let (low, high) = (value(b), value(b + 1));
            let even = if b % 2 == 0 { low } else { high };
            assert_eq!(round((low + high) / 2.0), even, "{b:#x}");
            assert_eq!(round(-(low * 0.51 + high * 0.49)), -low, "{b:#x}");
        }
        assert_eq!((round(1e30), round(-460.0)), (448.0, -448.0));
    }
}
