//! The products of a page: scores, weights, and weighted values.

use super::{COPY, Flash, LOWEST, Row, halves, halves_bytes, swizzle};
use crate::env::Env;
use crate::kir::{Cast, Cond, Elem, Mma, Ty, Val};
use crate::layout::PAGE;
use crate::math;
use crate::ops::gpu::fragments::thread_of;

impl Flash<'_> {
    /// Scores of the thread's rows with a page: for each eight positions the four sums.
    pub(super) fn scores(&self, env: &mut Env, page: Val, queries: &[Val]) -> Vec<Val> {
        let zero = env.b.float(Ty::vector(Elem::F32, 4), 0.0);
        let mut sums = vec![zero; PAGE / 8];
        for (step, q) in queries.iter().enumerate() {
            for pair in 0..PAGE / 16 {
                // Matrices: elements 0-7 and 8-15 of positions 0-7, then of positions 8-15.
                let b = self.matrices(env, page, (16 * step, PAGE * 2 / COPY), 2 * pair);
                for (half, sum) in sums[2 * pair..2 * pair + 2].iter_mut().enumerate() {
                    let half = 2 * half as u16;
                    let words = env.b.shuffle(b, b, vec![half, half + 1]);
                    *sum = env.b.mma(Mma::F16, *sum, *q, words);
                }
            }
        }
        sums
    }

    /// Four matrices of a part of a page with rows of `pieces` pieces of 16 bytes: rows `row..row + 16`, pieces
    /// `piece` and `piece + 1`.
    pub(super) fn matrices(&self, env: &mut Env, part: Val, (row, pieces): (usize, usize), piece: usize) -> Val {
        // Thread 8i + r: row r of matrix i, which has rows 8 * (i % 2) and piece i / 2.
        let (lane, seven, three) = (env.group.lane, env.b.index(7), env.b.int(Ty::I64, 3));
        let (r, i) = (env.b.and(lane, seven), env.b.lshr(lane, three));
        let one = env.b.index(1);
        let (lower, right) = (env.b.and(i, one), env.b.lshr(i, one));
        let down = env.b.mul_const(lower, 8);
        let own = env.b.add(r, down);
        let own = env.b.add_const(own, row as i64);
        let first = env.b.mul_const(own, pieces as i64);
        let right = env.b.add_const(right, piece as i64);
        let at = env.b.add(first, right);
        let at = swizzle(env, at, pieces);
        let at = env.b.ptr_add(part, at);
        env.b.load_matrix(at)
    }

    /// Turns scores into weights as the words of `a`; gives the new largest scores and sums, and the factors on
    /// what was before.
    pub(super) fn softmax(
        &self,
        env: &mut Env,
        block: Val,
        (rows, sees): (&[Row; 2], [Val; 2]),
        raw: &[Val],
        state: &[Val],
    ) -> (Vec<Val>, [Val; 6]) {
        let (_, t) = thread_of(env);
        let base = env.b.mul_const(block, PAGE as i64);
        let own = env.b.mul_const(t, 2);
        let base = env.b.add(base, own);
        let base = env.b.cast(Cast::Trunc, base, Ty::I32);
        let lowest = env.b.float(Ty::F32, LOWEST);
        let zero = env.b.float(Ty::F32, 0.0);
        let mut weights = Vec::new();
        let mut stats = Vec::new();
        for (which, row) in rows.iter().enumerate() {
            let mut scores = Vec::new();
            let mut here = lowest;
            for (column, sums) in raw.iter().enumerate() {
                for odd in 0..2 {
                    let s = env.b.extract(*sums, (2 * which + odd) as u16);
                    let s = self.score(env, s);
                    let p = env.b.add_const(base, (8 * column + odd) as i64);
                    let (after, before) = (env.b.cmp(Cond::Ge, p, row.first), env.b.cmp(Cond::Le, p, row.last));
                    let seen = env.b.and(after, before);
                    let seen = env.b.and(seen, sees[which]);
                    let s = env.b.select(seen, s, lowest);
                    here = env.b.max(here, s);
                    scores.push((s, seen));
                }
            }
            for mask in [1, 2] {
                let other = env.b.lane_xor(here, mask);
                here = env.b.max(here, other);
            }
            let most = env.b.max(state[which], here);
            let mut total = zero;
            let mut own = Vec::new();
            for (s, seen) in scores {
                let d = env.b.sub(s, most);
                let p = math::exp(&mut env.b, d);
                let p = env.b.select(seen, p, zero);
                total = env.b.add(total, p);
                own.push(p);
            }
            let d = env.b.sub(state[which], most);
            let factor = math::exp(&mut env.b, d);
            let sum = env.b.fma(state[2 + which], factor, total);
            weights.push(own);
            stats.push((most, sum, factor));
        }
        let stats = [stats[0].0, stats[1].0, stats[0].1, stats[1].1, stats[0].2, stats[1].2];
        (self.operands(env, &weights), stats)
    }

    pub(super) fn score(&self, env: &mut Env, raw: Val) -> Val {
        let scale = env.b.float(Ty::F32, f64::from(self.kernel.scale));
        let s = env.b.mul(raw, scale);
        let Some(cap) = self.kernel.softcap else { return s };
        let cap = env.b.float(Ty::F32, f64::from(cap));
        let ratio = env.b.div(s, cap);
        let t = math::tanh(&mut env.b, ratio);
        env.b.mul(t, cap)
    }

    /// Weights of two rows as words of `a` for each 16 positions.
    pub(super) fn operands(&self, env: &mut Env, weights: &[Vec<Val>]) -> Vec<Val> {
        let word = |env: &mut Env, row: usize, column: usize| {
            let none = env.b.float(Ty::vector(Elem::F32, 2), 0.0);
            let pair = env.b.insert(none, 0, weights[row][2 * column]);
            let pair = env.b.insert(pair, 1, weights[row][2 * column + 1]);
            halves(env, pair)
        };
        (0..PAGE / 16)
            .map(|step| {
                let mut words = env.b.int(Ty::vector(Elem::I32, 4), 0);
                for (i, (row, column)) in [(0, 0), (1, 0), (0, 1), (1, 1)].into_iter().enumerate() {
                    let w = word(env, row, 2 * step + column);
                    words = env.b.insert(words, i as u16, w);
                }
                words
            })
            .collect()
    }

    /// Adds the page's weighted values; gives the whole new state.
    pub(super) fn accumulate(
        &self,
        env: &mut Env,
        page: Val,
        weights: &[Val],
        stats: [Val; 6],
        state: &[Val],
    ) -> Vec<Val> {
        let values = env.b.ptr_add_const(page, halves_bytes(self.kernel));
        let [upper, lower] = [stats[4], stats[5]];
        let quad = Ty::vector(Elem::F32, 4);
        let mut factor = env.b.float(quad, 0.0);
        for (i, f) in [upper, upper, lower, lower].into_iter().enumerate() {
            factor = env.b.insert(factor, i as u16, f);
        }
        let mut sums: Vec<Val> = state[4..].iter().map(|v| env.b.mul(*v, factor)).collect();
        for (step, a) in weights.iter().enumerate() {
            for pair in 0..self.head_dim() / 16 {
                let pieces = self.head_dim() * 2 / COPY;
                let b = self.matrices(env, values, (16 * step, pieces), 2 * pair);
                for half in 0..2u16 {
                    let words = env.b.shuffle(b, b, vec![2 * half, 2 * half + 1]);
                    let sum = &mut sums[2 * pair + usize::from(half)];
                    *sum = env.b.mma(Mma::F16, *sum, *a, words);
                }
            }
        }
        [&stats[..4], &sums].concat()
    }
}
