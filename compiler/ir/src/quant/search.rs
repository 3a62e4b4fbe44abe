//! Uniform grids, and the step of least squared error on one.

/// A uniform grid: the code c of `lo..=hi` stands for `(c - zero) * step`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// The code that stands for 0.
    pub zero: f32,
    /// Smallest code, at least 0.
    pub lo: f32,
    /// Largest code, at most 255.
    pub hi: f32,
}

/// Where to look for steps: the largest absolute value is to lie `lo`, `lo + by`, ... steps from 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// First number of steps.
    pub lo: f32,
    /// Distance to the next.
    pub by: f32,
    /// How many there are.
    pub count: u8,
}

impl Reach {
    /// The numbers of steps.
    pub fn iter(self) -> impl Iterator<Item = f32> {
        (0..self.count).map(move |i| self.lo + f32::from(i) * self.by)
    }
}

/// Adding and subtracting this rounds a number below 2^22 to the nearest even integer.
pub(super) const ROUNDER: f32 = 12_582_912.0;

/// Elements between two looks at whether an error is still of interest.
const STRIDE: usize = 256;

impl Grid {
    /// Code of `t` steps, as a float.
    #[inline(always)]
    fn nearest(self, t: f32) -> f32 {
        let c = t + self.zero;
        let c = if c > self.lo { c } else { self.lo };
        let c = if c < self.hi { c } else { self.hi };
        (c + ROUNDER) - ROUNDER
    }

    /// Squared error of `x` in the nearest codes, or some partial sum above `bound`.
    /// `step` is not 0 and not subnormal.
    pub fn error(self, x: &[f32], step: f32, bound: f32) -> f32 {
        let inv = step.recip();
        let mut lanes = [0f32; 8];
        for stretch in x.chunks(STRIDE) {
            let (chunks, rest) = stretch.as_chunks::<8>();
            let mut add = |i: usize, v: f32| {
                let e = v - (self.nearest(v * inv) - self.zero) * step;
                lanes[i] += e * e;
            };
            chunks.iter().for_each(|c| (0..8).for_each(|i| add(i, c[i])));
            rest.iter().enumerate().for_each(|(i, &v)| add(i, v));
            if lanes.iter().sum::<f32>() > bound {
                break;
            }
        }
        lanes.iter().sum()
    }

    /// The step of least squared error for the codes that are nearest at `step`.
    pub fn refit(self, x: &[f32], step: f32) -> Option<f32> {
        let inv = step.recip();
        let (mut xq, mut qq) = ([0f32; 8], [0f32; 8]);
        for chunk in x.chunks(8) {
            for (i, &v) in chunk.iter().enumerate() {
                let q = self.nearest(v * inv) - self.zero;
                xq[i] += v * q;
                qq[i] += q * q;
            }
        }
        let (xq, qq) = (xq.iter().sum::<f32>(), qq.iter().sum::<f32>());
        (qq > 0.0 && xq != 0.0).then(|| xq / qq)
    }

    /// The step of least squared error among `steps` and their refinements by least squares.
    /// `None` if there are no steps to look at.
    pub fn best_step(self, x: &[f32], steps: impl Iterator<Item = f32>) -> Option<f32> {
        let mut best = Best::default();
        for step in steps.filter(|s| s.is_normal()) {
            best.offer(step, self.error(x, step, best.error));
        }
        for _ in 0..2 {
            let refined = best.at.and_then(|step| self.refit(x, step)).filter(|s| s.is_normal());
            let Some(step) = refined else { break };
            best.offer(step, self.error(x, step, best.error));
        }
        best.at
    }

    /// The step of either sign of least squared error, where the largest weight lies `long` steps
    /// from 0 among the negative codes or `short` steps among the positive ones. `None` for zeros.
    pub fn best_signed_step(self, x: &[f32], long: Reach, short: Reach) -> Option<f32> {
        let largest = x.iter().fold(0f32, |m, &v| if v.abs() > m.abs() { v } else { m });
        let steps = long.iter().map(|r| -largest / r).chain(short.iter().map(|r| largest / r));
        self.best_step(x, steps)
    }

    /// Appends the nearest codes.
    pub fn codes(self, x: &[f32], step: f32, out: &mut Vec<u8>) {
        let inv = if step == 0.0 { 0.0 } else { step.recip() };
        out.extend(x.iter().map(|&v| self.nearest(v * inv) as u8));
    }
}

/// What had the least error so far; the first of equals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Best<T> {
    /// The candidate, if one was offered.
    pub at: Option<T>,
    /// Its error.
    pub error: f32,
}

impl<T> Default for Best<T> {
    fn default() -> Self {
        Best { at: None, error: f32::INFINITY }
    }
}

impl<T> Best<T> {
    /// Takes a candidate if it is better.
    pub fn offer(&mut self, at: T, error: f32) {
        if error < self.error {
            *self = Best { at: Some(at), error };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INT4: Grid = Grid { zero: 8.0, lo: 0.0, hi: 15.0 };

    #[test]
    fn errors_are_those_of_the_nearest_codes() {
        let x = [0.0, 0.26, -0.26, 4.2, -9.0, 0.5, 1.0, 2.0, 0.1];
        let mut codes = Vec::new();
        INT4.codes(&x, 0.5, &mut codes);
        assert_eq!(codes, [8, 9, 7, 15, 0, 9, 10, 12, 8]);
        let expected: f32 = x.iter().zip(&codes).map(|(v, &c)| (v - (f32::from(c) - 8.0) * 0.5).powi(2)).sum();
        assert!((INT4.error(&x, 0.5, f32::INFINITY) - expected).abs() < 1e-5);
    }

    #[test]
    fn least_squares_finds_an_exact_step() {
        let x: Vec<f32> = [-8, 3, 7, 1, 0, -5].map(|q| q as f32 * 0.3).into();
        let step = INT4.best_step(&x, [0.29f32, 0.31].into_iter()).unwrap();
        assert!((step - 0.3).abs() < 1e-6, "{step}");
        assert_eq!(INT4.best_step(&x, [0.0, f32::INFINITY].into_iter()), None);
    }
}
