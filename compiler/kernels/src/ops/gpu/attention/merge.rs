//! Merging the states of warps, and of chunks.

use super::{ALL, Attention, LOAD, LOWEST, MERGED, MOST_CHUNKS, Own, State, Work};
use crate::env::{Env, Place, WARP};
use crate::group::{reduce_add, reduce_max};
use crate::kir::{Cast, Cond, Elem, Hint, Ty, Val};
use crate::math;

impl Attention<'_> {
    /// Writes a head's state: values, largest score, sum.
    pub(super) fn keep(&self, env: &mut Env, state: &State, h: usize, at: Val) {
        let (max, sum, values) = self.head_state(state, h);
        self.each_value(env, &values, |env, e, v| {
            let to = env.at(at, e, 4);
            env.b.store_with(v, to, 0, LOAD as u32);
        });
        self.first_lane(env, |env| {
            env.b.store(max, at, (4 * self.head_dim()) as i32);
            env.b.store(sum, at, (4 * self.head_dim() + 4) as i32);
        });
    }

    /// Merges the warps' states of each head: into the result if there is one chunk, else for later.
    pub(super) fn merge_warps(
        &self,
        env: &mut Env,
        (own, states): (Own, Val),
        (token, kv_head, chunk, count): (Val, Val, Val, Val),
        slots: usize,
    ) {
        let (group, step) = (env.b.index(self.group()), env.b.index(self.warps));
        let row_bytes = self.group() * self.state_bytes();
        env.for_step(env.group.warp, group, step, |env, g| {
            let first = env.at(states, g, self.state_bytes());
            let many = env.b.index(slots);
            let (max, sum) = self.weigh(env, own, first, row_bytes, many);
            let one = env.b.index(1);
            let only = env.b.cmp(Cond::Eq, count, one);
            let to = self.kept(env, (token, kv_head, chunk), g);
            self.quads(env, |env, e| {
                let v = self.weighted(env, own, (first, e), row_bytes, (0, slots), None);
                env.if_else(
                    only,
                    |env| self.store_quad(env, (token, kv_head, g), e, v, sum),
                    |env| {
                        let to = env.at(to, e, 4);
                        env.b.store_with(v, to, 0, LOAD as u32);
                    },
                );
            });
            self.first_lane(env, |env| {
                env.b.store(max, to, (4 * self.head_dim()) as i32);
                env.b.store(sum, to, (4 * self.head_dim() + 4) as i32);
            });
        });
    }

    /// Merges the chunks of a token and key head in the worker that comes last.
    pub(super) fn merge_chunks(&self, env: &mut Env, own: Own, (token, kv_head, chunk, count): (Val, Val, Val, Val)) {
        let one = env.b.index(1);
        let several = env.b.cmp(Cond::Gt, count, one);
        env.if_then(several, |env| {
            let counter = env.ptr(Place::Counter(self.chunks.counters));
            let index = env.b.mul_const(token, self.kv_heads() as i64);
            let index = env.b.add(index, kv_head);
            let counter = env.at(counter, index, 4);
            // The first chunk adds what the others leave.
            let rest = env.b.index(ALL + 1);
            let rest = env.b.sub(rest, count);
            let zero = env.b.index(0);
            let is_first = env.b.cmp(Cond::Eq, chunk, zero);
            let add = env.b.select(is_first, rest, one);
            let add = env.b.cast(Cast::Trunc, add, Ty::I32);
            let last = env.b.last_of(counter, add, ALL);
            env.if_then(last, |env| {
                let (group, step) = (env.b.index(self.group()), env.b.index(self.warps));
                env.for_step(env.group.warp, group, step, |env, g| {
                    self.merge_head(env, own, (token, kv_head, g), count)
                });
            });
        });
    }

    pub(super) fn merge_head(&self, env: &mut Env, own: Own, (token, kv_head, g): (Val, Val, Val), count: Val) {
        let zero = env.b.index(0);
        let first = self.kept(env, (token, kv_head, zero), g);
        let row_bytes = self.group() * self.state_bytes();
        let (_, sum) = self.weigh(env, own, first, row_bytes, count);
        let quad = Ty::vector(Elem::F32, 4);
        self.quads(env, |env, e| {
            let none = env.b.float(quad, 0.0);
            let step = env.b.index(MERGED);
            let v = env.for_carried((zero, count, step), &[none], |env, c, v| {
                let own = Own { weights: env.at(own.weights, c, 4), ..own };
                let left = env.b.sub(count, c);
                let at = env.at(first, c, row_bytes);
                let more = self.weighted(env, own, (at, e), row_bytes, (0, MERGED), Some(left));
                vec![env.b.add(v[0], more)]
            });
            self.store_quad(env, (token, kv_head, g), e, v[0], sum);
        });
    }

    /// Weighs `count` (i64) states that stand `stride` bytes apart: the weights into own memory, zero behind
    /// them; gives the largest score and the weighted sum.
    pub(super) fn weigh(&self, env: &mut Env, own: Own, first: Val, stride: usize, count: Val) -> (Val, Val) {
        let lane = env.group.lane;
        let exists = env.b.cmp(Cond::Lt, lane, count);
        let at = env.at(first, lane, stride);
        let stats = env.if_value(
            exists,
            |env| [0, 4].map(|o| env.b.load(Ty::F32, at, (4 * self.head_dim() + o) as i32)).to_vec(),
            |env| vec![env.b.float(Ty::F32, LOWEST), env.b.float(Ty::F32, 0.0)],
        );
        let max = reduce_max(&mut env.b, stats[0]);
        let d = env.b.sub(stats[0], max);
        let weight = math::exp(&mut env.b, d);
        let zero = env.b.float(Ty::F32, 0.0);
        let weight = env.b.select(exists, weight, zero);
        let sum = env.b.mul(weight, stats[1]);
        let sum = reduce_add(&mut env.b, sum);
        env.b.warp_barrier();
        let to = env.at(own.weights, lane, 4);
        env.b.store(weight, to, 0);
        env.b.warp_barrier();
        (max, sum)
    }

    /// Weighted sum of four elements from `e` of some states; with `left` (i64) only so many exist.
    pub(super) fn weighted(
        &self,
        env: &mut Env,
        own: Own,
        (first, e): (Val, Val),
        stride: usize,
        (lo, hi): (usize, usize),
        left: Option<Val>,
    ) -> Val {
        let quad = Ty::vector(Elem::F32, 4);
        let values: Vec<Val> = (lo..hi)
            .map(|i| {
                let index = env.b.index(i);
                let index = left.map_or(index, |left| {
                    let last = env.b.add_const(left, -1);
                    env.b.min(index, last)
                });
                let at = env.at(first, index, stride);
                let at = env.at(at, e, 4);
                env.b.load_with(quad, at, 0, LOAD as u32, Hint::None)
            })
            .collect();
        let mut total = env.b.float(quad, 0.0);
        for (i, v) in values.into_iter().enumerate() {
            let w = env.b.load(Ty::F32, own.weights, 4 * (lo + i) as i32);
            let w = env.b.splat(w, 4);
            total = env.b.fma(v, w, total);
        }
        total
    }

    /// Runs `body` for every fourth element of a head, the warp's threads in turns.
    pub(super) fn quads(&self, env: &mut Env, body: impl FnOnce(&mut Env, Val)) {
        let first = env.b.mul_const(env.group.lane, 4);
        let (hi, step) = (env.b.index(self.head_dim()), env.b.index(4 * WARP));
        env.for_step(first, hi, step, body);
        env.b.warp_barrier();
    }

    pub(super) fn first_lane(&self, env: &mut Env, body: impl FnOnce(&mut Env)) {
        let zero = env.b.index(0);
        let first = env.b.cmp(Cond::Eq, env.group.lane, zero);
        env.if_then(first, body);
    }

    /// Where a chunk's state of a head waits.
    pub(super) fn kept(&self, env: &mut Env, (token, kv_head, chunk): (Val, Val, Val), g: Val) -> Val {
        let base = env.ptr(self.chunks.rows);
        let row = env.b.mul_const(token, self.kv_heads() as i64);
        let row = env.b.add(row, kv_head);
        let row = env.b.mul_const(row, MOST_CHUNKS as i64);
        let row = env.b.add(row, chunk);
        let row = env.b.mul_const(row, self.group() as i64);
        let row = env.b.add(row, g);
        env.at(base, row, self.state_bytes())
    }

    pub(super) fn store_quad(&self, env: &mut Env, (token, kv_head, g): (Val, Val, Val), e: Val, v: Val, sum: Val) {
        let sum = env.b.splat(sum, 4);
        let v = env.b.div(v, sum);
        let zero = env.b.index(0);
        let work = Work { token, kv_head, head: g, pages: (zero, zero, zero) };
        self.store_out(env, work, 0, e, v);
    }
}
