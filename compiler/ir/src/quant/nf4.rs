//! Nf4: the levels of NormalFloat4 times the scale of a group.

use super::Encoded;
use super::search::{Best, ROUNDER, Reach};
use super::store::{absmax, energy, f16_value, settle_f16};

/// Levels of NF4: QLoRA (arXiv 2305.14314), appendix E, as in bitsandbytes.
pub const NF4_LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Scales tried, as divisors of the largest absolute value.
const REACH: Reach = Reach { lo: 0.92, by: 0.04, count: 11 };

/// Midpoints between levels: a number at or above `MIDPOINTS[i]` is not of code i.
const MIDPOINTS: [f32; 16] = {
    let mut midpoints = [f32::INFINITY; 16];
    let mut i = 0;
    while i < 15 {
        midpoints[i] = (NF4_LEVELS[i] + NF4_LEVELS[i + 1]) / 2.0;
        i += 1;
    }
    midpoints
};

/// Cells around the multiples of 1/32 in -1..=1, narrower than the distance of midpoints.
const CELLS: usize = 65;

/// The lowest code in each cell. At most one midpoint lies within a cell.
const LOWEST: [u8; CELLS] = {
    let mut lowest = [0; CELLS];
    let (mut cell, mut code) = (0, 0);
    while cell < CELLS {
        while code < 15 && MIDPOINTS[code] <= (cell as f32 - 32.5) / 32.0 {
            code += 1;
        }
        lowest[cell] = code as u8;
        cell += 1;
    }
    lowest
};

/// The midpoint above the lowest code of each cell. Filled up to a power of two.
static SPLIT: [f32; 128] = {
    let mut split = [f32::INFINITY; 128];
    let mut cell = 0;
    while cell < CELLS {
        split[cell] = MIDPOINTS[LOWEST[cell] as usize];
        cell += 1;
    }
    split
};

/// The codes below and above that midpoint.
static SIDES: [[u8; 2]; 128] = {
    let mut sides = [[15; 2]; 128];
    let mut cell = 0;
    while cell < CELLS {
        sides[cell] = [LOWEST[cell], if LOWEST[cell] < 15 { LOWEST[cell] + 1 } else { 15 }];
        cell += 1;
    }
    sides
};

/// Code of the level nearest to `u`.
#[inline(always)]
fn nearest(u: f32) -> u8 {
    let shifted = u * 32.0 + 32.0;
    let low = if shifted > 0.0 { shifted } else { 0.0 };
    let near = if low < 64.0 { low } else { 64.0 };
    // The sum's lowest bits are the nearest integer.
    let cell = ((near + ROUNDER).to_bits() % 128) as usize;
    SIDES[cell][usize::from(u >= SPLIT[cell])]
}

/// Squared error at `scale`, which is not 0, or a partial sum above `bound`.
fn error(x: &[f32], scale: f32, bound: f32) -> f32 {
    let inv = scale.recip();
    let mut lanes = [0f32; 4];
    for chunk in x.chunks(16) {
        for (i, &v) in chunk.iter().enumerate() {
            let d = v - NF4_LEVELS[usize::from(nearest(v * inv)) % 16] * scale;
            lanes[i % 4] += d * d;
        }
        if lanes.iter().sum::<f32>() > bound {
            break;
        }
    }
    lanes.iter().sum()
}

/// The scale of least squared error for the codes nearest at `scale`.
fn refit(x: &[f32], scale: f32) -> Option<f32> {
    let inv = scale.recip();
    let (mut xv, mut vv) = (0f32, 0f32);
    for &v in x {
        let level = NF4_LEVELS[usize::from(nearest(v * inv)) % 16];
        xv += v * level;
        vv += level * level;
    }
    (vv > 0.0 && xv > 0.0).then(|| xv / vv)
}

/// Best scale of a group; `None` for zeros.
fn best_scale(x: &[f32]) -> Option<f32> {
    let largest = absmax(x);
    let mut best = Best::default();
    for scale in REACH.iter().map(|r| largest / r).filter(|s| s.is_normal()) {
        best.offer(scale, error(x, scale, best.error));
    }
    for _ in 0..2 {
        let Some(scale) = refit(x, best.at?).filter(|s| s.is_normal()) else { break };
        best.offer(scale, error(x, scale, best.error));
    }
    best.at
}

/// Encodes a row.
pub(super) fn encode_groups(row: &[f32], group: usize, out: &mut Encoded) {
    for x in row.chunks(group) {
        let settle = |s: f32| settle_f16(s, energy(x), |s| error(x, s, f32::INFINITY));
        let bits = best_scale(x).map_or(0, settle);
        let inv = if bits == 0 { 0.0 } else { f16_value(bits).recip() };
        out.codes.extend(x.iter().map(|&v| nearest(v * inv)));
        out.group_scales.push(bits);
    }
}

/// Values of a row of codes: `NF4_LEVELS[code]` times the scale of its group.
pub(super) fn decode_row(codes: &[u8], group: usize, scales: &[u16], out: &mut Vec<f32>) {
    for (codes, &bits) in codes.chunks(group).zip(scales) {
        let scale = f16_value(bits);
        out.extend(codes.iter().map(|&c| NF4_LEVELS[usize::from(c) % 16] * scale));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_level_is_nearest() {
        for step in -3000..3000 {
            let u = step as f32 * 0.000_5;
            let far = |c: u8| (u - NF4_LEVELS[usize::from(c)]).abs();
            let least = (0..16).map(far).fold(f32::INFINITY, f32::min);
            assert_eq!(far(nearest(u)), least, "{u}");
        }
        assert_eq!((nearest(0.0), nearest(-9.0), nearest(1e30)), (7, 0, 15));
    }
}
