//! Attention of each token to the cached positions of its own sequence.
//!
//! An item of work is a token and a key head with all query heads that share it. Positions are
//! taken in the cache's pages, which lie at fixed absolute positions, and merged in ascending order
//! with the online softmax (Milakov and Gimelshein, 2018): what a token's result is does not depend
//! on who else is in the step, and the scores of more than a page are never held.

use super::attention_counts::Counts;
use super::gpu::{self, attention::Chunks};
use super::kv::{KvCache, Part, lane_numbers};
use super::rope::Rotation;
use crate::env::{Env, Rows, Scratch};
use crate::kir::{BinOp, CacheLevel, Cast, Cond, Elem, Function, Ty, Val};
use crate::layout::{ALIGN, LANES, PAGE};
use crate::math;

/// Attention over the KV cache.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionKernel {
    /// The cache.
    pub cache: KvCache,
    /// Queries, `heads * head_dim` wide.
    pub q: Rows,
    /// Result, of the same width.
    pub out: Rows,
    /// Query heads.
    pub heads: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Positions that a token sees, its own included.
    pub window: Option<usize>,
    /// The pages that a token sees, where not all.
    pub sinks: Option<Sinks>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Query heads whose scores are in flight together.
    pub heads_in_flight: usize,
    /// Elements of values that are accumulated in registers, those of all heads in flight together.
    pub values_in_flight: usize,
    /// Positions, or elements of values, that a tile of tokens accumulates in registers.
    pub rows_in_flight: usize,
    /// Where the results of chunks of pages wait in a group.
    pub chunks: Option<Chunks>,
    /// Counting how much attention positions get.
    pub counts: Option<Counts>,
}

/// Attention to the first and the last pages of a sequence; see the op `sink_attention`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sinks {
    /// First pages.
    pub first: usize,
    /// Last pages, the token's own included.
    pub last: usize,
    /// Offset in the call's weights of the angles of 0, 1, .. pages (f32, cosines then sines of each).
    pub turns: usize,
    /// How a query turns by them.
    pub rotation: Rotation,
}

pub(super) const VECTOR: Ty = Ty::vector(Elem::F32, LANES);
/// Vectors of scores in a page.
const PAGE_VECTORS: usize = PAGE / LANES as usize;
/// Finite stand-in for minus infinity: e^(x - y) is zero for it, and never NaN.
pub(super) const LOWEST: f64 = -1e30;

/// What is known of a page's positions, in vectors.
struct Seen {
    /// Which of them the token sees.
    visible: Vec<Val>,
    /// Scales of their keys, where there are any.
    key_scales: Option<Vec<Val>>,
    /// Scales of their values.
    value_scales: Option<Vec<Val>>,
    /// Where it is logged what they weigh.
    log: Option<Val>,
}

/// Frame memory of one item: scores of a page, accumulated values, running maximum and sum.
pub(super) struct Frame {
    scores: Val,
    values: Val,
    stats: Val,
    /// Queries turned for a page.
    turned: Option<Val>,
}

impl Frame {
    /// Running maximum and sum of a head.
    pub(super) fn stats(&self, env: &mut Env, g: usize) -> (Val, Val) {
        let load = |env: &mut Env, at: usize| env.b.load(Ty::F32, self.stats, at as i32);
        (load(env, g * 8), load(env, g * 8 + 4))
    }
}

/// What one item works on.
#[derive(Clone, Copy)]
pub(super) struct Item {
    /// Queries of the first head.
    q: Val,
    /// Result of the first head.
    out: Val,
    /// Key head.
    pub(super) kv_head: Val,
    /// Sequence.
    pub(super) seq: Val,
    /// Last visible position.
    last: Val,
    /// First visible position.
    first: Val,
}

impl AttentionKernel {
    pub(super) fn group(&self) -> usize {
        self.heads / self.cache.layout.heads
    }

    pub(super) fn head_dim(&self) -> usize {
        self.cache.layout.head_dim
    }

    fn padded_head(&self) -> usize {
        self.head_dim().next_multiple_of(LANES as usize)
    }

    /// Emits the kernel.
    pub fn build(&self, name: &str, scratch: Scratch) -> Function {
        if let Some(chunks) = self.chunks {
            return gpu::attention::build(self, chunks, name, scratch);
        }
        let mut env = Env::new(name, scratch);
        let group = self.group();
        let frame = Frame {
            scores: env.b.stack((group * PAGE * 4) as u32),
            values: env.b.stack((group * self.padded_head() * 4) as u32),
            stats: env.b.stack((group * 8) as u32),
            turned: self.sinks.map(|_| env.b.stack((group * self.head_dim() * 4) as u32)),
        };
        self.items(&mut env, &frame);
        env.finish()
    }

    /// Emits a kernel that asks for what the cache holds before this step, where that pays.
    pub fn build_ahead(&self, name: &str, scratch: Scratch) -> Option<Function> {
        self.chunks.and_then(|chunks| gpu::attention::build_ahead(self, chunks, name, scratch))
    }

    /// First and last positions that a token sees.
    pub(super) fn sees(&self, env: &mut Env, t: Val) -> (Val, Val) {
        let last = env.step_index("positions", t);
        let zero = env.b.index(0);
        let first = match self.window {
            None => zero,
            Some(w) => {
                let first = env.b.add_const(last, 1 - w as i64);
                env.b.max(first, zero)
            }
        };
        (first, last)
    }

    /// A token with a key head.
    pub(super) fn item(&self, env: &mut Env, frame: &Frame, t: Val, kv_head: Val) {
        let (q, out) = (env.row(&self.q, t), env.row(&self.out, t));
        let group_bytes = self.group() * self.head_dim() * 4;
        let (q, out) = (env.at(q, kv_head, group_bytes), env.at(out, kv_head, group_bytes));
        let seq = env.step_index("seqs", t);
        let (first, last) = self.sees(env, t);
        let item = Item { q, out, kv_head, seq, last, first };
        self.clear(env, frame);
        let page = env.b.index(PAGE);
        let (lo, hi) = (env.b.div(first, page), env.b.div(last, page));
        let hi = env.b.add_const(hi, 1);
        match (self.sinks, frame.turned) {
            (Some(sinks), Some(turned)) => self.kept_blocks(env, frame, item, (sinks, turned), hi),
            _ => {
                let end = env.b.add_const(hi, -1);
                env.for_range(lo, hi, 1, |env, block| {
                    let next = env.b.add_const(block, 1);
                    let next = env.b.min(next, end);
                    let log = self.log(env, block);
                    self.block(env, frame, item, (block, next), log);
                });
            }
        }
        if self.counts.is_some() {
            self.count(env, frame, item, hi);
        }
        self.finish(env, frame, item.out);
    }

    /// The first and the last pages of the `blocks` (i64) of a sequence, with queries turned by the number of
    /// pages between.
    fn kept_blocks(&self, env: &mut Env, frame: &Frame, item: Item, (sinks, turned): (Sinks, Val), blocks: Val) {
        let (none, first, most) = (env.b.index(0), env.b.index(sinks.first), env.b.index(sinks.first + sinks.last));
        let count = env.b.min(blocks, most);
        let forgotten = env.b.sub(blocks, count);
        env.for_range(none, count, 1, |env, i| {
            let is_sink = env.b.cmp(Cond::Lt, i, first);
            let moved = env.b.add(i, forgotten);
            let block = env.b.select(is_sink, i, moved);
            let behind = env.b.sub(count, i);
            let pages = env.b.add_const(behind, -1);
            self.turn(env, item.q, turned, (sinks, pages));
            let log = self.log(env, i);
            let (next, end) = (env.b.add_const(block, 1), env.b.add_const(blocks, -1));
            let next = env.b.min(next, end);
            self.block(env, frame, Item { q: turned, ..item }, (block, next), log);
        });
    }

    /// Copies the queries of all heads at `q` to `to`, turned by the angles of a number of pages (i64).
    fn turn(&self, env: &mut Env, q: Val, to: Val, (sinks, pages): (Sinks, Val)) {
        for (e, lanes) in pieces(0, self.group() * self.head_dim()) {
            let v = env.b.load(Ty { elem: Elem::F32, lanes: lanes as u16 }, q, 4 * e as i32);
            env.b.store(v, to, 4 * e as i32);
        }
        let turns = env.b.ptr_add_const(env.weights, sinks.turns);
        let angles = env.at(turns, pages, 4 * sinks.rotation.rotary_dim);
        env.for_const(self.group(), 1, |env, g| {
            let head = env.at(to, g, 4 * self.head_dim());
            sinks.rotation.emit(env, head, angles);
        });
    }

    fn clear(&self, env: &mut Env, frame: &Frame) {
        let (zero, lowest, none) = (env.b.float(VECTOR, 0.0), env.b.float(Ty::F32, LOWEST), env.b.float(Ty::F32, 0.0));
        for g in 0..self.group() {
            for e in (0..self.padded_head()).step_by(LANES as usize) {
                env.b.store(zero, frame.values, ((g * self.padded_head() + e) * 4) as i32);
            }
            env.b.store(lowest, frame.stats, (g * 8) as i32);
            env.b.store(none, frame.stats, (g * 8 + 4) as i32);
        }
    }

    /// Positions `block * PAGE ..` of the item, logged where they are counted; block `next` is asked for meanwhile.
    fn block(&self, env: &mut Env, frame: &Frame, item: Item, (block, next): (Val, Val), log: Option<Val>) {
        let [(keys, values), (next_keys, next_values)] = [block, next].map(|block| {
            let page = self.cache.page(env, item.seq, block);
            let [keys, values] = [Part::Keys, Part::Values].map(|part| self.cache.head(env, page, part, item.kv_head));
            (keys, values)
        });
        let base = env.b.mul_const(block, PAGE as i64);
        let seen = Seen {
            visible: self.visible(env, item, base),
            key_scales: self.cache.scales(env, keys),
            value_scales: self.cache.scales(env, values),
            log,
        };
        let mut g = 0;
        while g < self.group() {
            let heads = self.heads_in_flight.min(self.group() - g);
            let next = (g == 0).then_some(next_keys);
            let scores = self.scores(env, item.q, (keys, next), g, heads);
            for (h, s) in scores.chunks(PAGE_VECTORS).enumerate() {
                self.softmax(env, frame, g + h, s, &seen);
            }
            g += heads;
        }
        let page_len = env.b.index(PAGE);
        let until = env.b.sub(item.last, base);
        let until = env.b.add_const(until, 1);
        let count = env.b.min(until, page_len);
        let whole = self.group() / self.heads_in_flight * self.heads_in_flight;
        let each = self.heads_in_flight;
        self.ask_values(env, next_values);
        env.for_const(whole, each, |env, g| self.accumulate(env, frame, values, (g, each), count));
        if whole < self.group() {
            let g = env.b.index(whole);
            self.accumulate(env, frame, values, (g, self.group() - whole), count);
        }
    }

    /// For each vector of the page's positions, which of them the token sees.
    fn visible(&self, env: &mut Env, item: Item, base: Val) -> Vec<Val> {
        let bounds = [item.first, item.last].map(|v| env.b.cast(Cast::Trunc, v, Ty::I32));
        let [first, last] = bounds.map(|v| env.b.splat(v, LANES));
        (0..PAGE_VECTORS)
            .map(|i| {
                let start = env.b.add_const(base, (i * LANES as usize) as i64);
                let positions = lane_numbers(env, start);
                let (after, before) = (env.b.cmp(Cond::Ge, positions, first), env.b.cmp(Cond::Le, positions, last));
                env.b.bin(BinOp::And, after, before)
            })
            .collect()
    }

    /// Raw scores of `heads` query heads from head `g` with a page of keys; those of the page after it may be asked
    /// for.
    fn scores(&self, env: &mut Env, q: Val, (keys, next): (Val, Option<Val>), g: usize, heads: usize) -> Vec<Val> {
        let zero = env.b.float(VECTOR, 0.0);
        let (lo, hi, one) = (env.b.index(0), env.b.index(self.head_dim()), env.b.index(1));
        env.for_carried((lo, hi, one), &vec![zero; heads * PAGE_VECTORS], |env, e, acc| {
            let row_bytes = PAGE * self.cache.layout.elem_bytes;
            if let Some(next) = next {
                let next = env.at(next, e, row_bytes);
                self.ask(env, next, row_bytes);
            }
            let row = env.at(keys, e, row_bytes);
            let k: Vec<Val> = (0..PAGE_VECTORS).map(|i| self.cache.load(env, row, i * LANES as usize, LANES)).collect();
            let q = env.at(q, e, 4);
            let mut sums = Vec::with_capacity(acc.len());
            for h in 0..heads {
                let x = env.b.load(Ty::F32, q, ((g + h) * self.head_dim() * 4) as i32);
                let x = env.b.splat(x, LANES);
                for i in 0..PAGE_VECTORS {
                    sums.push(env.b.fma(k[i], x, acc[h * PAGE_VECTORS + i]));
                }
            }
            sums
        })
    }

    /// Asks for a page's values.
    fn ask_values(&self, env: &mut Env, values: Val) {
        let row_bytes = self.head_dim() * self.cache.layout.elem_bytes;
        env.for_const(PAGE, 1, |env, j| {
            let row = env.at(values, j, row_bytes);
            self.ask(env, row, row_bytes);
        });
    }

    fn ask(&self, env: &mut Env, at: Val, bytes: usize) {
        (0..bytes).step_by(ALIGN).for_each(|line| env.b.prefetch(at, line as i32, CacheLevel::L2));
    }

    /// Turns a head's raw scores into weights relative to the new running maximum, and rescales
    /// what was accumulated so far.
    fn softmax(&self, env: &mut Env, frame: &Frame, g: usize, raw: &[Val], seen: &Seen) {
        let lowest = env.b.float(VECTOR, LOWEST);
        let scores: Vec<Val> = raw
            .iter()
            .enumerate()
            .map(|(i, s)| {
                let s = seen.key_scales.as_ref().map_or(*s, |scales| env.b.mul(*s, scales[i]));
                let s = self.score(env, s);
                env.b.select(seen.visible[i], s, lowest)
            })
            .collect();
        let (max_at, sum_at) = ((g * 8) as i32, (g * 8 + 4) as i32);
        let old = env.b.load(Ty::F32, frame.stats, max_at);
        let widest = scores[1..].iter().fold(scores[0], |a, b| env.b.max(a, *b));
        let here = math::reduce_max(&mut env.b, widest);
        let max = env.b.max(old, here);
        env.b.store(max, frame.stats, max_at);
        if let Some(log) = seen.log {
            self.log_maximum(env, log, g, max);
        }
        let shift = env.b.splat(max, LANES);
        let total = self.weights(env, frame, (g, shift), &scores, seen);
        let here = math::reduce_add(&mut env.b, total);
        let d = env.b.sub(old, max);
        let rescale = math::exp(&mut env.b, d);
        let sum = env.b.load(Ty::F32, frame.stats, sum_at);
        let sum = env.b.fma(sum, rescale, here);
        env.b.store(sum, frame.stats, sum_at);
        self.rescale(env, frame, g, rescale);
    }

    /// Stores what a head's scores weigh relative to `shift`, with the scales of the values; gives their sums.
    fn weights(&self, env: &mut Env, frame: &Frame, (g, shift): (usize, Val), scores: &[Val], seen: &Seen) -> Val {
        let zero = env.b.float(VECTOR, 0.0);
        let mut total = zero;
        for (i, s) in scores.iter().enumerate() {
            let d = env.b.sub(*s, shift);
            let p = math::exp(&mut env.b, d);
            let p = env.b.select(seen.visible[i], p, zero);
            total = env.b.add(total, p);
            if let Some(log) = seen.log {
                self.log_weights(env, log, (g, i), p);
            }
            let p = seen.value_scales.as_ref().map_or(p, |scales| env.b.mul(p, scales[i]));
            env.b.store(p, frame.scores, ((g * PAGE + i * LANES as usize) * 4) as i32);
        }
        total
    }

    /// Multiplies what a head has accumulated.
    fn rescale(&self, env: &mut Env, frame: &Frame, g: usize, factor: Val) {
        let factor = env.b.splat(factor, LANES);
        for e in (0..self.padded_head()).step_by(LANES as usize) {
            let at = ((g * self.padded_head() + e) * 4) as i32;
            let v = env.b.load(VECTOR, frame.values, at);
            let v = env.b.mul(v, factor);
            env.b.store(v, frame.values, at);
        }
    }

    pub(super) fn score(&self, env: &mut Env, raw: Val) -> Val {
        let scale = env.b.float(VECTOR, f64::from(self.scale));
        let s = env.b.mul(raw, scale);
        let Some(cap) = self.softcap else {
            return s;
        };
        let cap = env.b.float(VECTOR, f64::from(cap));
        let ratio = env.b.div(s, cap);
        let t = math::tanh(&mut env.b, ratio);
        env.b.mul(t, cap)
    }

    /// Adds the first `count` values of the page, weighted, to what some heads from head `g` (i64) on have.
    fn accumulate(&self, env: &mut Env, frame: &Frame, values: Val, (g, heads): (Val, usize), count: Val) {
        let weights = env.at(frame.scores, g, PAGE * 4);
        let acc = env.at(frame.values, g, self.padded_head() * 4);
        let elem = self.cache.layout.elem_bytes;
        let ty = |lanes: usize| Ty { elem: Elem::F32, lanes: lanes as u16 };
        let place = |h: usize, e: usize| (4 * (h * self.padded_head() + e)) as i32;
        let block = (self.values_in_flight / heads).next_multiple_of(LANES as usize);
        for start in (0..self.head_dim()).step_by(block) {
            let pieces = pieces(start, (start + block).min(self.head_dim()));
            let mut init = Vec::new();
            for h in 0..heads {
                init.extend(pieces.iter().map(|(e, lanes)| env.b.load(ty(*lanes), acc, place(h, *e))));
            }
            let (lo, one) = (env.b.index(0), env.b.index(1));
            let sums = env.for_carried((lo, count, one), &init, |env, j, acc| {
                let weights = env.at(weights, j, 4);
                let row = env.at(values, j, self.head_dim() * elem);
                let v: Vec<Val> = pieces.iter().map(|(e, n)| self.cache.load(env, row, *e, *n as u16)).collect();
                let mut sums = Vec::with_capacity(acc.len());
                for (h, acc) in acc.chunks(pieces.len()).enumerate() {
                    let weight = env.b.load(Ty::F32, weights, (4 * h * PAGE) as i32);
                    for (((_, lanes), v), a) in pieces.iter().zip(&v).zip(acc) {
                        let w = env.b.splat(weight, *lanes as u16);
                        sums.push(env.b.fma(*v, w, *a));
                    }
                }
                sums
            });
            for (h, sums) in sums.chunks(pieces.len()).enumerate() {
                pieces.iter().zip(sums).for_each(|((e, _), v)| env.b.store(*v, acc, place(h, *e)));
            }
        }
    }

    /// Divides by the sum of the weights and writes the result.
    fn finish(&self, env: &mut Env, frame: &Frame, out: Val) {
        for g in 0..self.group() {
            let sum = env.b.load(Ty::F32, frame.stats, (g * 8 + 4) as i32);
            for (e, lanes) in pieces(0, self.head_dim()) {
                let ty = Ty { elem: Elem::F32, lanes: lanes as u16 };
                let v = env.b.load(ty, frame.values, ((g * self.padded_head() + e) * 4) as i32);
                let divisor = env.b.splat(sum, lanes as u16);
                let v = env.b.div(v, divisor);
                env.b.store(v, out, ((g * self.head_dim() + e) * 4) as i32);
            }
        }
    }
}

/// Cuts `start..end` into vectors of [`LANES`] and a tail of smaller powers of two: (start, lanes).
fn pieces(start: usize, end: usize) -> Vec<(usize, usize)> {
    let mut out = Vec::new();
    let mut e = start;
    while e < end {
        let lanes = (1 << (end - e).ilog2()).min(LANES as usize);
        out.push((e, lanes));
        e += lanes;
    }
    out
}
