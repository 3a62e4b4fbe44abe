//! A page of keys and values with a tile: scores, their softmax, and weighted values.

use super::{BYTES, FIRST, INTS, LARGEST, LAST, Page, SUM, TileFrame};
use crate::env::Env;
use crate::kir::{BinOp, Cast, Cond, Ty, Val};
use crate::layout::{LANES, PAGE};
use crate::math;
use crate::ops::attention::{AttentionKernel, LOWEST, VECTOR};

/// Which positions of a page lanes see.
#[derive(Clone, Copy)]
enum Seen {
    /// Every lane all of them.
    All,
    /// How many (i64) no lane's last position is before, and how many some lane's is not before.
    Some(Val, Val),
}

impl AttentionKernel {
    /// Adds a page to what a tile has accumulated, if any of its lanes see some of it.
    pub(super) fn tile_page(&self, env: &mut Env, frame: &TileFrame, page: &Page) {
        let [least, first, last, most] = [0, 8, 16, 24].map(|at| env.b.load(Ty::I64, frame.range, at));
        let end = env.b.add_const(page.base, PAGE as i64);
        let (after, before) = (env.b.cmp(Cond::Gt, end, least), env.b.cmp(Cond::Le, page.base, most));
        let here = env.b.and(after, before);
        let (after, before) = (env.b.cmp(Cond::Ge, page.base, first), env.b.cmp(Cond::Le, end, last));
        let whole = env.b.and(after, before);
        env.if_then(here, |env| {
            env.if_else(
                whole,
                |env| self.add_page(env, frame, page, Seen::All),
                |env| {
                    let seen = Seen::Some(page.until(env, last), page.until(env, most));
                    self.add_page(env, frame, page, seen);
                },
            );
        });
    }

    fn add_page(&self, env: &mut Env, frame: &TileFrame, page: &Page, seen: Seen) {
        env.for_const(PAGE, self.rows_in_flight, |env, i| self.tile_scores(env, frame, page, (i, seen)));
        let rescale = self.tile_weights(env, frame, page, seen);
        env.for_const(self.head_dim(), self.rows_in_flight, |env, e| {
            self.tile_values(env, frame, page, (e, rescale), seen);
        });
    }

    /// `v` in lanes that see position `i` (i64) of the page, in others `other`.
    fn where_seen(
        &self,
        env: &mut Env,
        (frame, page): (&TileFrame, &Page),
        (i, seen): (Val, Seen),
        v: Val,
        other: Val,
    ) -> Val {
        if let Seen::All = seen {
            return v;
        }
        let position = env.b.add(page.base, i);
        let position = env.b.cast(Cast::Trunc, position, Ty::I32);
        let position = env.b.splat(position, LANES);
        let [first, last] = [FIRST, LAST].map(|what| env.b.load(INTS, frame.stats, (what * BYTES) as i32));
        let (after, before) = (env.b.cmp(Cond::Ge, position, first), env.b.cmp(Cond::Le, position, last));
        let sees = env.b.bin(BinOp::And, after, before);
        env.b.select(sees, v, other)
    }

    /// Scores of some positions of the page from `i` (i64) on.
    fn tile_scores(&self, env: &mut Env, frame: &TileFrame, page: &Page, (i, seen): (Val, Seen)) {
        let zero = env.b.float(VECTOR, 0.0);
        let (lo, hi, one) = (env.b.index(0), env.b.index(self.head_dim()), env.b.index(1));
        let from = env.at(frame.keys, i, 4);
        let sums = env.for_carried((lo, hi, one), &vec![zero; self.rows_in_flight], |env, e, sums| {
            let q = env.at(frame.queries, e, BYTES);
            let q = env.b.load(VECTOR, q, 0);
            let keys = env.at(from, e, 4 * PAGE);
            add_products(env, keys, q, sums)
        });
        let lowest = env.b.float(VECTOR, LOWEST);
        for (n, raw) in sums.into_iter().enumerate() {
            let i = env.b.add_const(i, n as i64);
            let raw = self.times_scale(env, raw, page.keys, i);
            let score = self.score(env, raw);
            let score = self.where_seen(env, (frame, page), (i, seen), score, lowest);
            let to = env.at(frame.scores, i, BYTES);
            env.b.store(score, to, 0);
        }
    }

    /// A value times the scale of position `i` (i64) of a head, where there are scales.
    fn times_scale(&self, env: &mut Env, v: Val, head: Val, i: Val) -> Val {
        if !self.cache.layout.has_scales() {
            return v;
        }
        let at = env.at(head, i, 4);
        let scale = env.b.load(Ty::F32, at, self.cache.layout.scale_offset() as i32);
        let scale = env.b.splat(scale, LANES);
        env.b.mul(v, scale)
    }

    /// Turns scores into weights relative to the new largest ones; gives what was accumulated before is to be
    /// multiplied with.
    fn tile_weights(&self, env: &mut Env, frame: &TileFrame, page: &Page, seen: Seen) -> Val {
        let load = |env: &mut Env, i: usize| env.b.load(VECTOR, frame.scores, (i * BYTES) as i32);
        let old = env.b.load(VECTOR, frame.stats, (LARGEST * BYTES) as i32);
        let largest = (0..PAGE).fold(old, |largest, i| {
            let score = load(env, i);
            env.b.max(largest, score)
        });
        env.b.store(largest, frame.stats, (LARGEST * BYTES) as i32);
        let zero = env.b.float(VECTOR, 0.0);
        // Two vectors of positions, whose sums begin the tree below.
        env.for_const(PAGE / 2, 1, |env, i| {
            let mut both = zero;
            for part in [0, PAGE / 2] {
                let i = env.b.add_const(i, part as i64);
                let at = env.at(frame.scores, i, BYTES);
                let score = env.b.load(VECTOR, at, 0);
                let d = env.b.sub(score, largest);
                let p = math::exp(&mut env.b, d);
                let p = self.where_seen(env, (frame, page), (i, seen), p, zero);
                both = env.b.add(both, p);
                let p = self.times_scale(env, p, page.values, i);
                env.b.store(p, at, 0);
            }
            let at = env.at(frame.sums, i, BYTES);
            env.b.store(both, at, 0);
        });
        let here = tree(env, frame.sums, 0, 1);
        let d = env.b.sub(old, largest);
        let rescale = math::exp(&mut env.b, d);
        let sum = env.b.load(VECTOR, frame.stats, (SUM * BYTES) as i32);
        let sum = env.b.fma(sum, rescale, here);
        env.b.store(sum, frame.stats, (SUM * BYTES) as i32);
        rescale
    }

    /// Adds the values of a page, weighted, to some elements from `e` (i64) on: those of positions that all lanes have
    /// come to, then the others where lanes have.
    fn tile_values(&self, env: &mut Env, frame: &TileFrame, page: &Page, (e, rescale): (Val, Val), seen: Seen) {
        let at = env.at(frame.values, e, BYTES);
        let place = |i: usize| (i * BYTES) as i32;
        let init: Vec<Val> = (0..self.rows_in_flight)
            .map(|i| {
                let v = env.b.load(VECTOR, at, place(i));
                env.b.mul(v, rescale)
            })
            .collect();
        let from = env.at(frame.page_values, e, 4);
        let (none, one) = (env.b.index(0), env.b.index(1));
        let products = |env: &mut Env, j: Val, sums: &[Val]| {
            let weights = env.at(frame.scores, j, BYTES);
            let weights = env.b.load(VECTOR, weights, 0);
            let values = env.at(from, j, self.head_dim() * 4);
            add_products(env, values, weights, sums)
        };
        let (least, most) = match seen {
            Seen::All => (env.b.index(PAGE), None),
            Seen::Some(least, most) => (least, Some(most)),
        };
        let mut sums = env.for_carried((none, least, one), &init, |env, j, sums| products(env, j, sums));
        if let Some(most) = most {
            let last = env.b.load(INTS, frame.stats, (LAST * BYTES) as i32);
            sums = env.for_carried((least, most, one), &sums, |env, j, sums| {
                let position = env.b.add(page.base, j);
                let position = env.b.cast(Cast::Trunc, position, Ty::I32);
                let position = env.b.splat(position, LANES);
                let reached = env.b.cmp(Cond::Le, position, last);
                let added = products(env, j, sums);
                sums.iter().zip(added).map(|(old, new)| env.b.select(reached, new, *old)).collect()
            });
        }
        sums.iter().enumerate().for_each(|(i, v)| env.b.store(*v, at, place(i)));
    }
}

/// `sums[i] + factor * f[i]` for the f32 from `from` on, each in all lanes.
fn add_products(env: &mut Env, from: Val, factor: Val, sums: &[Val]) -> Vec<Val> {
    let one = |(i, sum): (usize, &Val)| {
        let x = env.b.load(Ty::F32, from, 4 * i as i32);
        let x = env.b.splat(x, LANES);
        env.b.fma(x, factor, *sum)
    };
    sums.iter().enumerate().map(one).collect()
}

/// Sum of the vectors `i, i + stride, ..` of [`PAGE`] / 2, in the order of [`math::reduce_add`].
fn tree(env: &mut Env, vectors: Val, i: usize, stride: usize) -> Val {
    if stride == PAGE / 2 {
        return env.b.load(VECTOR, vectors, (i * BYTES) as i32);
    }
    let (even, odd) = (tree(env, vectors, i, 2 * stride), tree(env, vectors, i + stride, 2 * stride));
    env.b.add(even, odd)
}
