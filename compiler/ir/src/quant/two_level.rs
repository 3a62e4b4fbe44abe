//! W6, W5, W3 and W2: a binary16 scale per row, an integer scale per group of 32.

use super::search::{Best, Grid, Reach};
use super::store::{absmax, energy, f16_bits, f16_next, f16_value};
use super::{Encoded, Scheme};

/// Largest integer scale.
const TOP: f32 = 255.0;

/// The grid in units of `mul` times the scale, and where to look for its steps.
fn grid(scheme: Scheme) -> (Grid, Reach) {
    let (mul, offset) = scheme.grid_params();
    let hi = ((1u32 << scheme.code_bits()) - 1) as f32;
    let reach = match scheme {
        Scheme::W6 => Reach { lo: 28.0, by: 0.5, count: 15 },
        Scheme::W5 => Reach { lo: 13.0, by: 0.5, count: 14 },
        Scheme::W3 => Reach { lo: 2.5, by: 0.125, count: 16 },
        _ => Reach { lo: 0.9, by: 0.1, count: 16 },
    };
    (Grid { zero: offset as f32 / mul as f32, lo: 0.0, hi }, reach)
}

/// Encodes a row.
pub(super) fn encode_row(row: &[f32], group: usize, out: &mut Encoded) {
    let (grid, reach) = grid(out.scheme);
    let mul = out.scheme.grid_params().0 as f32;
    let steps: Vec<f32> = row.chunks(group).map(|x| best_step(x, grid, reach)).collect();
    let row_scale = row_scale(absmax(&steps) / mul);
    for (x, &step) in row.chunks(group).zip(&steps) {
        let g = integer_scale(x, grid, row_scale * mul, step);
        grid.codes(x, row_scale * f32::from(g) * mul, &mut out.codes);
        out.group_scales.push(g);
    }
    out.row_scales.push(row_scale);
}

/// Best step of a group; 0 for zeros.
fn best_step(x: &[f32], grid: Grid, reach: Reach) -> f32 {
    let largest = absmax(x);
    grid.best_step(x, reach.iter().map(|r| largest / r)).map_or(0.0, f32::abs)
}

/// The row scale with which the largest group scale gets about the largest integer. A binary16, not
/// 0 unless all groups are zero; where binary16 is too coarse to hit the largest integer, above it.
fn row_scale(largest: f32) -> f32 {
    let target = largest / TOP;
    let bits = f16_bits(target);
    let short = f16_value(bits) < target * 0.998;
    f16_value(if short { f16_next(bits) } else { bits })
}

/// The integer scale of least error in 1..=255 near the group's best step, or 0 if zeros are better.
fn integer_scale(x: &[f32], grid: Grid, unit: f32, step: f32) -> u16 {
    if unit == 0.0 || step == 0.0 {
        return 0;
    }
    let near = (step / unit).clamp(1.0, TOP) as u16;
    let mut best = Best::default();
    best.offer(0, energy(x));
    for g in [near.saturating_sub(1), near, near + 1, near + 2] {
        if (1..=TOP as u16).contains(&g) {
            best.offer(g, grid.error(x, unit * f32::from(g), best.error));
        }
    }
    best.at.unwrap_or(0)
}

/// Values of a row of codes: `(row_scale * g) * grid(code)`.
pub(super) fn decode_row(scheme: Scheme, codes: &[u8], row_scale: f32, scales: &[u16], out: &mut Vec<f32>) {
    let group = scheme.group().unwrap_or(1);
    for (codes, &g) in codes.chunks(group).zip(scales) {
        let scale = row_scale * f32::from(g);
        out.extend(codes.iter().map(|&c| scale * scheme.grid(c) as f32));
    }
}
