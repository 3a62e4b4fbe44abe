//! Int4Asym: int4 with a binary16 scale and a zero point per group.

use super::Encoded;
use super::search::{Best, Grid, Reach};
use super::store::{energy, f16_value, settle_f16};

/// Parts of the range between the least and the largest weight that 15 steps are to cover, as the
/// divisor of that range.
const COVER: Reach = Reach { lo: 14.0, by: 0.6, count: 10 };

/// Encodes a row.
pub(super) fn encode_groups(row: &[f32], group: usize, out: &mut Encoded) {
    for x in row.chunks(group) {
        let (scale, zero) = best(x).map_or((0, 8), |(step, zero)| {
            let grid = grid(zero);
            (settle_f16(step, energy(x), |s| grid.error(x, s, f32::INFINITY)), zero)
        });
        grid(zero).codes(x, f16_value(scale), &mut out.codes);
        out.group_scales.push(scale);
        out.zeros.push(zero);
    }
}

/// The grid of a zero point.
fn grid(zero: u8) -> Grid {
    Grid { zero: f32::from(zero), lo: 0.0, hi: 15.0 }
}

/// Best step and zero point of a group; `None` for zeros.
fn best(x: &[f32]) -> Option<(f32, u8)> {
    let (min, max) = x.iter().fold((0f32, 0f32), |(lo, hi), &v| (lo.min(v), hi.max(v)));
    let range = max - min;
    let natural = if range > 0.0 { (-min / range * 15.0 + 0.5) as u8 } else { return None };
    let mut best = Best::default();
    for zero in natural.saturating_sub(1)..=(natural + 1).min(15) {
        for step in COVER.iter().map(|r| range / r).filter(|s| s.is_normal()) {
            best.offer((step, zero), grid(zero).error(x, step, best.error));
        }
    }
    for _ in 0..2 {
        let (step, zero) = best.at?;
        let Some(step) = grid(zero).refit(x, step).filter(|s| s.is_normal()) else { break };
        best.offer((step, zero), grid(zero).error(x, step, best.error));
    }
    best.at
}

/// Values of a row of codes: `(code - zero) * scale` of its group.
pub(super) fn decode_row(codes: &[u8], group: usize, scales: &[u16], zeros: &[u8], out: &mut Vec<f32>) {
    for (codes, (&scale, &zero)) in codes.chunks(group).zip(scales.iter().zip(zeros)) {
        let scale = f16_value(scale);
        out.extend(codes.iter().map(|&c| (i32::from(c) - i32::from(zero)) as f32 * scale));
    }
}
