//! Attention of few tokens over a long cache, and of many tokens.
//!
//! A warp takes some query heads of one key head and goes over pages, scores of a page in registers,
//! merged with the online softmax (Milakov and Gimelshein, 2018). With few tokens the pages of one are cut
//! into chunks, by their number alone, whose results the worker that comes last merges in order; with
//! many a warp goes over all pages of its token.

mod merge;
mod pages;
mod sinks;

use super::{SHARED_BYTES, flash};
use crate::env::{Count, Env, Place, Scratch, WARP};
use crate::kir::{Cond, Function, Val};
use crate::layout::PAGE;
use crate::ops::attention::AttentionKernel;
use crate::ops::kv::Part;

/// Where the results of chunks wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// Results of chunks: see [`chunk_bytes`].
    pub rows: Place,
    /// Number of the first counter; one for each token and key head.
    pub counters: usize,
    /// Most tokens whose pages are cut into chunks.
    pub tokens: usize,
    /// Most tokens of a step.
    pub most: usize,
}

/// Most chunks of a token: one for each thread of a warp.
pub const MOST_CHUNKS: usize = WARP;
/// Fewest pages of a chunk.
const FEWEST_PAGES: usize = 4;
/// Query heads of a warp.
const HEADS: usize = 2;
/// Bytes of a load of floats. One of bytes has as many elements as one of binary16.
const LOAD: usize = 16;
/// Finite stand-in for minus infinity: e^(x - y) is zero for it, and never NaN.
const LOWEST: f64 = -1e30;
/// What a chunk's counter adds up to: more than there are chunks.
const ALL: usize = 1 << 20;
/// Chunks whose results are loaded together.
const MERGED: usize = 8;

/// Bytes of the results of all chunks of `tokens` tokens with `heads` query heads.
pub fn chunk_bytes(tokens: usize, heads: usize, head_dim: usize) -> usize {
    tokens * MOST_CHUNKS * heads * state_floats(head_dim) * 4
}

/// Floats of a head's state: values, largest score, sum; padded to whole loads.
fn state_floats(head_dim: usize) -> usize {
    (head_dim + 2).next_multiple_of(4)
}

/// The kernel under construction.
struct Attention<'a> {
    kernel: &'a AttentionKernel,
    chunks: Chunks,
    /// Query heads of a warp.
    heads: usize,
    warps: usize,
}

/// What a warp works on.
#[derive(Clone, Copy)]
struct Work {
    token: Val,
    kv_head: Val,
    /// First query head, counted from the key head's first.
    head: Val,
    /// Pages: first, end, distance.
    pages: (Val, Val, Val),
}

/// Pages of a token and key head whose results are merged with those of others.
#[derive(Clone, Copy)]
struct Chunk {
    token: Val,
    kv_head: Val,
    /// Its number, and how many the token has.
    number: Val,
    count: Val,
    /// Its pages: first, end.
    pages: (Val, Val),
}

/// A warp's part of shared memory.
#[derive(Clone, Copy)]
struct Own {
    queries: Val,
    weights: Val,
    /// Queries as they arrive, where they are turned for each page.
    arrived: Val,
}

/// Running results of a warp: for each head the largest score, the sum, and this thread's values.
#[derive(Clone)]
struct State(Vec<Val>);

/// Emits the kernel.
pub fn build(kernel: &AttentionKernel, chunks: Chunks, name: &str, scratch: Scratch) -> Function {
    let mut env = Env::new(name, scratch);
    let a = Attention::new(kernel, chunks, scratch);
    if flash::fits(kernel) && !a.is_of_few() {
        return flash::build(kernel, name, scratch);
    }
    let shared = env.b.shared(a.shared_bytes());
    a.emit(&mut env, shared);
    env.finish()
}

/// Emits a kernel that brings the pages that this one reads of few tokens into the cache that all workers share, to be
/// run some time before. `None` where pages are not asked for ahead.
pub fn build_ahead(kernel: &AttentionKernel, chunks: Chunks, name: &str, scratch: Scratch) -> Option<Function> {
    let a = Attention::new(kernel, chunks, scratch);
    (scratch.engine && a.is_of_few()).then(|| {
        let mut env = Env::new(name, scratch);
        a.fetch(&mut env);
        env.finish()
    })
}

impl<'a> Attention<'a> {
    fn new(kernel: &'a AttentionKernel, chunks: Chunks, scratch: Scratch) -> Attention<'a> {
        let group = kernel.heads / kernel.cache.layout.heads;
        let heads = if group.is_multiple_of(HEADS) { HEADS } else { 1 };
        Attention { kernel, chunks, heads, warps: scratch.threads / WARP }
    }
}

impl Attention<'_> {
    /// Whether steps have so few tokens that pages are always cut into chunks.
    fn is_of_few(&self) -> bool {
        self.chunks.most <= self.chunks.tokens
    }

    fn head_dim(&self) -> usize {
        self.kernel.cache.layout.head_dim
    }

    fn kv_heads(&self) -> usize {
        self.kernel.cache.layout.heads
    }

    /// Query heads of a key head.
    fn group(&self) -> usize {
        self.kernel.heads / self.kv_heads()
    }

    /// Bytes of a load.
    fn load_bytes(&self) -> usize {
        if self.kernel.cache.layout.elem_bytes == 1 { LOAD / 2 } else { LOAD }
    }

    /// Elements of a load.
    fn per_load(&self) -> usize {
        self.load_bytes() / self.kernel.cache.layout.elem_bytes
    }

    fn own_bytes(&self) -> usize {
        let copies = if self.kernel.sinks.is_some() { 2 } else { 1 };
        self.heads * (copies * self.head_dim() + PAGE) * 4
    }

    fn state_bytes(&self) -> usize {
        state_floats(self.head_dim()) * 4
    }

    fn shared_bytes(&self) -> usize {
        let bytes = self.warps * (self.own_bytes() + self.heads * self.state_bytes());
        assert!(bytes <= SHARED_BYTES, "attention's heads fit shared memory");
        bytes
    }

    fn emit(&self, env: &mut Env, shared: Val) {
        assert!(self.head_dim().is_multiple_of(8), "heads of a multiple of 8 elements");
        let own = env.at(shared, env.group.warp, self.own_bytes());
        let (queries, weights) = (self.heads * self.head_dim() * 4, self.heads * PAGE * 4);
        let weights_at = env.b.ptr_add_const(own, queries);
        let arrived = env.b.ptr_add_const(weights_at, weights);
        let own = Own { queries: own, weights: weights_at, arrived };
        let states = env.b.ptr_add_const(shared, self.warps * self.own_bytes());
        let n = env.count(Count::Tokens);
        let most = env.b.index(self.chunks.tokens);
        let few = env.b.cmp(Cond::Le, n, most);
        if self.is_of_few() {
            return self.chunked(env, own, states, n);
        }
        env.if_else(few, |env| self.chunked(env, own, states, n), |env| self.whole(env, own, n));
    }

    /// First page that a token sees and the end of those; numbers among the pages that are kept, where not all are.
    fn page_range(&self, env: &mut Env, token: Val) -> (Val, Val) {
        if let Some(seen) = self.seen(env, token) {
            return (env.b.index(0), seen.count);
        }
        let (first, last) = self.visible(env, token);
        let page = env.b.index(PAGE);
        let (lo, hi) = (env.b.div(first, page), env.b.div(last, page));
        (lo, env.b.add_const(hi, 1))
    }

    /// First and last position that a token sees.
    fn visible(&self, env: &mut Env, token: Val) -> (Val, Val) {
        let last = env.step_index("positions", token);
        let zero = env.b.index(0);
        let first = match self.kernel.window {
            None => zero,
            Some(w) => {
                let first = env.b.add_const(last, 1 - w as i64);
                env.b.max(first, zero)
            }
        };
        (first, last)
    }

    /// Many tokens: each warp takes (token, key head, part of its query heads) after another.
    fn whole(&self, env: &mut Env, own: Own, n: Val) {
        let parts = self.group() / self.heads;
        let items = env.b.mul_const(n, (self.kv_heads() * parts) as i64);
        env.own_rows(items, |env, item| {
            let parts = env.b.index(parts);
            let (rest, part) = (env.b.div(item, parts), env.b.rem(item, parts));
            let kv_heads = env.b.index(self.kv_heads());
            let (token, kv_head) = (env.b.div(rest, kv_heads), env.b.rem(rest, kv_heads));
            let head = env.b.mul_const(part, self.heads as i64);
            let (lo, hi) = self.page_range(env, token);
            let one = env.b.index(1);
            let work = Work { token, kv_head, head, pages: (lo, hi, one) };
            let state = self.pages(env, own, work);
            for h in 0..self.heads {
                let (max, sum, values) = self.head_state(&state, h);
                let _ = max;
                self.each_value(env, &values, |env, e, v| {
                    let sum = env.b.splat(sum, env.b.ty(v).lanes);
                    let v = env.b.div(v, sum);
                    self.store_out(env, work, h, e, v);
                });
            }
        });
    }

    /// Stores elements from `e` (i64) on of a query head's result.
    fn store_out(&self, env: &mut Env, work: Work, h: usize, e: Val, v: Val) {
        let out = &self.kernel.out;
        let row = env.row(out, work.token);
        let head = env.b.mul_const(work.kv_head, self.group() as i64);
        let head = env.b.add(head, work.head);
        let head = env.b.add_const(head, h as i64);
        let first = env.b.mul_const(head, self.head_dim() as i64);
        let first = env.b.add(first, e);
        for lane in 0..env.b.ty(v).lanes {
            let x = if env.b.ty(v).lanes == 1 { v } else { env.b.extract(v, lane) };
            let i = env.b.add_const(first, i64::from(lane));
            env.store_row(out.elem, x, row, i);
        }
    }

    /// Few tokens: each worker takes (token, key head, chunk) after another.
    fn chunked(&self, env: &mut Env, own: Own, states: Val, n: Val) {
        self.each_chunk(env, n, |env, c| self.chunk(env, (own, states), c));
    }

    /// The last warp asks for the worker's pages, each thread for one of a chunk.
    fn fetch(&self, env: &mut Env) {
        let n = env.count(Count::Tokens);
        let last = env.b.index(self.warps - 1);
        let here = env.b.cmp(Cond::Eq, env.group.warp, last);
        env.if_then(here, |env| {
            self.each_chunk(env, n, |env, c| {
                let seq = env.step_index("seqs", c.token);
                let number = env.b.add(c.pages.0, env.group.lane);
                let exists = env.b.cmp(Cond::Lt, number, c.pages.1);
                let seen = self.seen(env, c.token);
                env.if_then(exists, |env| {
                    let block = seen.map_or(number, |seen| seen.block(env, number));
                    let page = self.kernel.cache.page(env, seq, block);
                    for part in [Part::Keys, Part::Values] {
                        let at = self.kernel.cache.head(env, page, part, c.kv_head);
                        env.b.fetch(at, self.kernel.cache.layout.head_bytes() as u32);
                    }
                });
            });
        });
    }

    /// Runs `body` for each of this worker's chunks.
    fn each_chunk(&self, env: &mut Env, n: Val, body: impl FnOnce(&mut Env, Chunk)) {
        let items = env.b.mul_const(n, (self.kv_heads() * MOST_CHUNKS) as i64);
        let (worker, workers) = (env.b.worker(), env.b.workers());
        env.for_step(worker, items, workers, |env, item| {
            // Chunks first: neighbours are of one token and different heads.
            let kv_heads = env.b.index(self.kv_heads());
            let (rest, kv_head) = (env.b.div(item, kv_heads), env.b.rem(item, kv_heads));
            let (number, token) = (env.b.div(rest, n), env.b.rem(rest, n));
            let (lo, hi) = self.page_range(env, token);
            let many = env.b.sub(hi, lo);
            let size = self.chunk_pages(env, many);
            let first = env.b.mul(number, size);
            let first = env.b.add(first, lo);
            let exists = env.b.cmp(Cond::Lt, first, hi);
            env.if_then(exists, |env| {
                let end = env.b.add(first, size);
                let end = env.b.min(end, hi);
                let up = env.b.add_const(many, -1);
                let up = env.b.add(up, size);
                let count = env.b.div(up, size);
                body(env, Chunk { token, kv_head, number, count, pages: (first, end) });
            });
        });
    }

    /// Pages of a chunk: the smallest power of two that makes few enough chunks of `pages` (i64).
    fn chunk_pages(&self, env: &mut Env, pages: Val) -> Val {
        let mut size = env.b.index(FEWEST_PAGES);
        for shift in 1..25u32 {
            let smaller = FEWEST_PAGES << (shift - 1);
            let reach = env.b.index(smaller * MOST_CHUNKS);
            let more = env.b.cmp(Cond::Gt, pages, reach);
            let next = env.b.index(smaller * 2);
            size = env.b.select(more, next, size);
        }
        size
    }

    /// One chunk, its pages shared out among the warps.
    fn chunk(
        &self,
        env: &mut Env,
        (own, states): (Own, Val),
        Chunk { token, kv_head, number, count, pages: (first, end) }: Chunk,
    ) {
        let parts = self.group() / self.heads;
        let slots = self.warps / parts.min(self.warps);
        let size = env.b.index(parts);
        let (slot, part) = (env.b.div(env.group.warp, size), env.b.rem(env.group.warp, size));
        assert!(parts <= self.warps, "a warp for each part of a key head's query heads");
        let head = env.b.mul_const(part, self.heads as i64);
        let (from, step, used) = (env.b.add(first, slot), env.b.index(slots), env.b.index(slots));
        let busy = env.b.cmp(Cond::Lt, slot, used);
        let stop = env.b.select(busy, end, from);
        let work = Work { token, kv_head, head, pages: (from, stop, step) };
        let state = self.pages(env, own, work);
        env.if_then(busy, |env| {
            for h in 0..self.heads {
                let (row, head) = (env.b.mul_const(slot, self.group() as i64), env.b.add_const(head, h as i64));
                let row = env.b.add(row, head);
                let at = env.at(states, row, self.state_bytes());
                self.keep(env, &state, h, at);
            }
        });
        env.b.group_barrier();
        self.merge_warps(env, (own, states), (token, kv_head, number, count), slots);
        self.merge_chunks(env, own, (token, kv_head, number, count));
        env.b.group_barrier();
    }

    /// Lanes of a row of values, and positions of one load of the warp.
    fn value_lanes(&self) -> (usize, usize) {
        let lanes = self.head_dim() / self.per_load();
        let positions = if lanes.is_power_of_two() && lanes < WARP { WARP / lanes } else { 1 };
        (lanes, positions)
    }

    /// Loads of a thread that make up a row.
    fn pieces(&self) -> usize {
        self.value_lanes().0.div_ceil(WARP)
    }

    fn head_state(&self, state: &State, h: usize) -> (Val, Val, Vec<Val>) {
        let own = &state.0[h * (2 + self.pieces())..][..2 + self.pieces()];
        (own[0], own[1], own[2..].to_vec())
    }

    /// Runs `body` for the elements (i64) of a head that this thread has, with their values.
    fn each_value(&self, env: &mut Env, values: &[Val], mut body: impl FnMut(&mut Env, Val, Val)) {
        let (lanes, _) = self.value_lanes();
        for (piece, v) in values.iter().enumerate() {
            let load = env.b.add_const(env.group.lane, (piece * WARP) as i64);
            let end = env.b.index(lanes);
            let exists = env.b.cmp(Cond::Lt, load, end);
            let e = env.b.mul_const(load, self.per_load() as i64);
            env.if_then(exists, |env| body(env, e, *v));
        }
    }
}
