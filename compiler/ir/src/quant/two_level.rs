//! W6, W5, W3 and W2: a binary16 scale per row, a signed integer scale per group of 32.
//!
//! The grids reach one step further below 0 than above; the sign of its scale lets a group choose on
//! which side its weights have the longer reach.

use super::search::{Best, Grid, Reach};
use super::store::{absmax, energy, f16_bits, f16_next, f16_value};
use super::{Encoded, Scheme};

/// Largest magnitude of an integer scale.
const TOP: i8 = i8::MAX;
/// No steps.
const NOWHERE: Reach = Reach { lo: 1.0, by: 0.0, count: 0 };

/// A grid and where to look for its steps.
#[derive(Clone, Copy)]
struct Search {
    /// The grid.
    grid: Grid,
    /// Steps of groups whose largest weight gets a negative code, the longer side.
    long: Reach,
    /// Steps of groups whose largest weight gets a positive code.
    short: Reach,
}

impl Search {
    /// The search of a scheme. All but W2 gain next to nothing from the shorter side.
    fn new(scheme: Scheme) -> Search {
        let reach = |lo, by, count| Reach { lo, by, count };
        let (long, short) = match scheme {
            Scheme::W6 => (reach(28.0, 0.5, 12), NOWHERE),
            Scheme::W5 => (reach(13.0, 0.35, 11), NOWHERE),
            Scheme::W3 => (reach(3.0, 0.2, 11), NOWHERE),
            _ => (reach(1.5, 0.25, 8), reach(1.7, 0.25, 4)),
        };
        let hi = ((1u32 << scheme.code_bits()) - 1) as f32;
        Search { grid: Grid { zero: -scheme.grid(0) as f32, lo: 0.0, hi }, long, short }
    }

    /// Best step of a group, of either sign; 0 for zeros.
    fn best_step(self, x: &[f32]) -> f32 {
        self.grid.best_signed_step(x, self.long, self.short).unwrap_or(0.0)
    }
}

/// Encodes a row.
pub(super) fn encode_row(row: &[f32], group: usize, out: &mut Encoded) {
    let search = Search::new(out.scheme);
    let steps: Vec<f32> = row.chunks(group).map(|x| search.best_step(x)).collect();
    let row_scale = row_scale(absmax(&steps));
    for (x, &step) in row.chunks(group).zip(&steps) {
        let g = integer_scale(x, search.grid, row_scale, step);
        search.grid.codes(x, row_scale * f32::from(g), &mut out.codes);
        out.group_scales.push(u16::from(g.cast_unsigned()));
    }
    out.row_scales.push(row_scale);
}

/// The row scale with which the largest group scale gets about the largest integer. A binary16, not
/// 0 unless all groups are zero; where binary16 is too coarse to hit the largest integer, above it.
fn row_scale(largest: f32) -> f32 {
    let target = largest / f32::from(TOP);
    let bits = f16_bits(target);
    let short = f16_value(bits) < target * 0.998;
    f16_value(if short { f16_next(bits) } else { bits })
}

/// The integer scale of least error near the group's best step and of its sign, or 0 if zeros are
/// better.
fn integer_scale(x: &[f32], grid: Grid, row_scale: f32, step: f32) -> i8 {
    if row_scale == 0.0 || step == 0.0 {
        return 0;
    }
    let near = (step.abs() / row_scale).clamp(1.0, f32::from(TOP)) as i8;
    let mut best = Best::default();
    best.offer(0, energy(x));
    for magnitude in near.saturating_sub(1).max(1)..=near.saturating_add(2) {
        let g = if step < 0.0 { -magnitude } else { magnitude };
        best.offer(g, grid.error(x, row_scale * f32::from(g), best.error));
    }
    best.at.unwrap_or(0)
}

/// The integer scale that an element of [`Encoded::group_scales`] holds in its low byte.
fn signed(scale: u16) -> i8 {
    (scale as u8).cast_signed()
}

/// Values of a row of codes: `(row_scale * g) * grid(code)`.
pub(super) fn decode_row(scheme: Scheme, codes: &[u8], row_scale: f32, scales: &[u16], out: &mut Vec<f32>) {
    let group = scheme.group().unwrap_or(1);
    for (codes, &g) in codes.chunks(group).zip(scales) {
        let scale = row_scale * f32::from(signed(g));
        out.extend(codes.iter().map(|&c| scale * scheme.grid(c) as f32));
    }
}
