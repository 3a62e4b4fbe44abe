//! W8, W8A8 and Int4: integers times the scale of a group or row.

use super::search::{Grid, Reach};
use super::store::{absmax, energy, f16_value, f32_scale, normalized, settle_f16};
use super::{Encoded, Scheme};

/// Codes 1..=255 for -127..=127.
const INT8: Grid = Grid { zero: 128.0, lo: 1.0, hi: 255.0 };
/// Codes 0..=15 for -8..=7.
const INT4: Grid = Grid { zero: 8.0, lo: 0.0, hi: 15.0 };

/// Steps of int8 groups.
const GROUP8: Reach = Reach { lo: 121.0, by: 1.0, count: 11 };
/// Steps of int8 rows: a long row gains by clipping its largest weights.
const ROW8: Reach = Reach { lo: 125.0, by: 2.0, count: 16 };
/// Steps of int4 groups whose largest weight gets a negative code, the longer side.
const LONG4: Reach = Reach { lo: 7.0, by: 0.25, count: 12 };
/// Steps of int4 groups whose largest weight gets a positive code.
const SHORT4: Reach = Reach { lo: 6.0, by: 0.25, count: 12 };

/// Encodes a row of W8 or Int4.
pub(super) fn encode_groups(row: &[f32], group: usize, out: &mut Encoded) {
    let int4 = matches!(out.scheme, Scheme::Int4 { .. });
    for x in row.chunks(group) {
        let (grid, step) = if int4 { (INT4, INT4.best_signed_step(x, LONG4, SHORT4)) } else { (INT8, int8_step(x)) };
        let scale = step.map_or(0, |s| settle_f16(s, energy(x), |s| grid.error(x, s, f32::INFINITY)));
        grid.codes(x, f16_value(scale), &mut out.codes);
        out.group_scales.push(scale);
    }
}

/// Best step of an int8 group; `None` for zeros.
fn int8_step(x: &[f32]) -> Option<f32> {
    let largest = absmax(x);
    INT8.best_step(x, GROUP8.iter().map(|r| largest / r))
}

/// Encodes a row of W8A8.
pub(super) fn encode_row(row: &[f32], out: &mut Encoded) {
    let best = normalized(row).and_then(|(x, exponent)| {
        let step = INT8.best_step(&x, ROW8.iter().map(|r| absmax(&x) / r))?;
        Some((x, exponent, step))
    });
    let Some((x, exponent, step)) = best else {
        out.codes.extend(row.iter().map(|_| 128));
        return out.row_scales.push(0.0);
    };
    let scale = f32_scale(step, exponent, 127.0);
    INT8.codes(&x, libm::scalbnf(scale, -exponent), &mut out.codes);
    out.row_scales.push(scale);
}

/// Values of a row of codes: each a grid integer times the scale of its group or row.
pub(super) fn decode_row(scheme: Scheme, codes: &[u8], scale: impl Fn(usize) -> f32, out: &mut Vec<f32>) {
    out.extend(codes.iter().enumerate().map(|(i, &c)| scheme.grid(c) as f32 * scale(i)));
}
