//! Attention of few tokens over a long cache, and of many tokens.
//!
//! A warp takes some query heads of one key head and goes over pages, scores of a page in registers,
//! merged with the online softmax (Milakov and Gimelshein, 2018). With few tokens the pages of one are cut
//! into chunks, by their number alone, whose results the worker that comes last merges in order; with
//! many a warp goes over all pages of its token.

use super::{SHARED_BYTES, flash};
use crate::env::{Count, Env, Place, Scratch, WARP};
use crate::group::{reduce_add, reduce_max};
use crate::kir::{Cast, Cond, Elem, Function, Hint, Ty, Val};
use crate::layout::PAGE;
use crate::math;
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
/// Bytes of a load.
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

/// A warp's part of shared memory.
#[derive(Clone, Copy)]
struct Own {
    queries: Val,
    weights: Val,
}

/// Running results of a warp: for each head the largest score, the sum, and this thread's values.
#[derive(Clone)]
struct State(Vec<Val>);

/// Emits the kernel.
pub fn build(kernel: &AttentionKernel, chunks: Chunks, name: &str, scratch: Scratch) -> Function {
    let mut env = Env::new(name, scratch);
    let group = kernel.heads / kernel.cache.layout.heads;
    let heads = if group.is_multiple_of(HEADS) { HEADS } else { 1 };
    let a = Attention { kernel, chunks, heads, warps: scratch.threads / WARP };
    let tiles = flash::fits(kernel);
    if tiles && chunks.most > chunks.tokens {
        return flash::build(kernel, name, scratch);
    }
    let shared = env.b.shared(a.shared_bytes());
    a.emit(&mut env, shared);
    env.finish()
}

impl Attention<'_> {
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

    /// Elements of a load.
    fn per_load(&self) -> usize {
        LOAD / self.kernel.cache.layout.elem_bytes
    }

    fn own_bytes(&self) -> usize {
        self.heads * (self.head_dim() + PAGE) * 4
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
        let own = Own { queries: own, weights: env.b.ptr_add_const(own, self.heads * self.head_dim() * 4) };
        let states = env.b.ptr_add_const(shared, self.warps * self.own_bytes());
        let n = env.count(Count::Tokens);
        let most = env.b.index(self.chunks.tokens);
        let few = env.b.cmp(Cond::Le, n, most);
        if self.chunks.most <= self.chunks.tokens {
            return self.chunked(env, own, states, n);
        }
        env.if_else(few, |env| self.chunked(env, own, states, n), |env| self.whole(env, own, n));
    }

    /// First and last page that a token sees.
    fn page_range(&self, env: &mut Env, token: Val) -> (Val, Val) {
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
        let items = env.b.mul_const(n, (self.kv_heads() * MOST_CHUNKS) as i64);
        let (worker, workers) = (env.b.worker(), env.b.workers());
        env.for_step(worker, items, workers, |env, item| {
            // Chunks first: neighbours are of one token and different heads.
            let kv_heads = env.b.index(self.kv_heads());
            let (rest, kv_head) = (env.b.div(item, kv_heads), env.b.rem(item, kv_heads));
            let (chunk, token) = (env.b.div(rest, n), env.b.rem(rest, n));
            let (lo, hi) = self.page_range(env, token);
            let many = env.b.sub(hi, lo);
            let size = self.chunk_pages(env, many);
            let first = env.b.mul(chunk, size);
            let first = env.b.add(first, lo);
            let exists = env.b.cmp(Cond::Lt, first, hi);
            env.if_then(exists, |env| {
                let end = env.b.add(first, size);
                let end = env.b.min(end, hi);
                let up = env.b.add_const(many, -1);
                let up = env.b.add(up, size);
                let count = env.b.div(up, size);
                self.chunk(env, (own, states), (token, kv_head, chunk, count), (first, end));
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
        (token, kv_head, chunk, count): (Val, Val, Val, Val),
        (first, end): (Val, Val),
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
        self.merge_warps(env, (own, states), (token, kv_head, chunk, count), slots);
        self.merge_chunks(env, own, (token, kv_head, chunk, count));
        env.b.group_barrier();
    }

    /// Writes a head's state: values, largest score, sum.
    fn keep(&self, env: &mut Env, state: &State, h: usize, at: Val) {
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
    fn merge_warps(
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
    fn merge_chunks(&self, env: &mut Env, own: Own, (token, kv_head, chunk, count): (Val, Val, Val, Val)) {
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

    fn merge_head(&self, env: &mut Env, own: Own, (token, kv_head, g): (Val, Val, Val), count: Val) {
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
    fn weigh(&self, env: &mut Env, own: Own, first: Val, stride: usize, count: Val) -> (Val, Val) {
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
    fn weighted(
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
    fn quads(&self, env: &mut Env, body: impl FnOnce(&mut Env, Val)) {
        let first = env.b.mul_const(env.group.lane, 4);
        let (hi, step) = (env.b.index(self.head_dim()), env.b.index(4 * WARP));
        env.for_step(first, hi, step, body);
        env.b.warp_barrier();
    }

    fn first_lane(&self, env: &mut Env, body: impl FnOnce(&mut Env)) {
        let zero = env.b.index(0);
        let first = env.b.cmp(Cond::Eq, env.group.lane, zero);
        env.if_then(first, body);
    }

    /// Where a chunk's state of a head waits.
    fn kept(&self, env: &mut Env, (token, kv_head, chunk): (Val, Val, Val), g: Val) -> Val {
        let base = env.ptr(self.chunks.rows);
        let row = env.b.mul_const(token, self.kv_heads() as i64);
        let row = env.b.add(row, kv_head);
        let row = env.b.mul_const(row, MOST_CHUNKS as i64);
        let row = env.b.add(row, chunk);
        let row = env.b.mul_const(row, self.group() as i64);
        let row = env.b.add(row, g);
        env.at(base, row, self.state_bytes())
    }

    fn store_quad(&self, env: &mut Env, (token, kv_head, g): (Val, Val, Val), e: Val, v: Val, sum: Val) {
        let sum = env.b.splat(sum, 4);
        let v = env.b.div(v, sum);
        let zero = env.b.index(0);
        let work = Work { token, kv_head, head: g, pages: (zero, zero, zero) };
        self.store_out(env, work, 0, e, v);
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

    /// Goes over pages.
    fn pages(&self, env: &mut Env, own: Own, work: Work) -> State {
        self.take_queries(env, own, work);
        let (first, last) = self.visible(env, work.token);
        let bounds = [first, last].map(|v| env.b.cast(Cast::Trunc, v, Ty::I32));
        let seq = env.step_index("seqs", work.token);
        let (lowest, zero) = (env.b.float(Ty::F32, LOWEST), env.b.float(Ty::F32, 0.0));
        let none = env.b.float(Ty::vector(Elem::F32, self.per_load() as u16), 0.0);
        let head: Vec<Val> = [lowest, zero].into_iter().chain(vec![none; self.pieces()]).collect();
        let init = head.repeat(self.heads);
        let state = env.for_carried(work.pages, &init, |env, block, state| {
            let page = self.kernel.cache.page(env, seq, block);
            let keys = self.kernel.cache.head(env, page, Part::Keys, work.kv_head);
            let values = self.kernel.cache.head(env, page, Part::Values, work.kv_head);
            let loaded = self.load_page(env, keys, values);
            let scores = self.scores(env, own, (keys, &loaded[0]));
            let base = env.b.mul_const(block, PAGE as i64);
            let state = State(state.to_vec());
            let mut heads = Vec::new();
            for (h, s) in scores.into_iter().enumerate() {
                heads.push(self.softmax(env, own, (h, s), (base, bounds), &state));
            }
            env.b.warp_barrier();
            let next = self.accumulate(env, own, (values, &loaded[1]), &state, &heads);
            env.b.warp_barrier();
            next.0
        });
        self.over_positions(env, State(state))
    }

    /// Copies the warp's queries into its shared memory.
    fn take_queries(&self, env: &mut Env, own: Own, work: Work) {
        let row = env.row(&self.kernel.q, work.token);
        let head = env.b.mul_const(work.kv_head, self.group() as i64);
        let head = env.b.add(head, work.head);
        let from = env.at(row, head, self.head_dim() * 4);
        env.b.warp_barrier();
        env.elements(self.heads * self.head_dim(), |env, i, _| {
            let (from, to) = (env.at(from, i, 4), env.at(own.queries, i, 4));
            let v = env.b.load(Ty::F32, from, 0);
            env.b.store(v, to, 0);
        });
    }

    /// Lanes that hold a page's positions of one element.
    fn position_lanes(&self) -> usize {
        PAGE / self.per_load()
    }

    /// Raw scores of each head, a thread having those of some positions.
    fn scores(&self, env: &mut Env, own: Own, (keys, loaded): (Val, &[Val])) -> Vec<Val> {
        let lanes = self.position_lanes();
        let elements = WARP / lanes;
        let at = env.at(keys, env.group.lane, LOAD);
        let by = env.b.index(lanes);
        let element = env.b.div(env.group.lane, by);
        let queries = env.at(own.queries, element, 4);
        let zero = env.b.float(Ty::vector(Elem::F32, self.per_load() as u16), 0.0);
        let mut sums = vec![zero; self.heads];
        for round in 0..self.head_dim() / elements {
            let at = env.b.ptr_add_const(at, round * WARP * LOAD);
            let k = match loaded.get(round) {
                Some(k) => self.widened(env, *k),
                None => self.load(env, at),
            };
            for (h, sum) in sums.iter_mut().enumerate() {
                let q = env.b.load(Ty::F32, queries, (4 * (h * self.head_dim() + round * elements)) as i32);
                let q = env.b.splat(q, self.per_load() as u16);
                *sum = env.b.fma(k, q, *sum);
            }
        }
        let masks: Vec<u8> = (0..5).map(|i| 1 << i).filter(|m| usize::from(*m) >= lanes).collect();
        sums.into_iter().map(|s| self.over_lanes(env, s, &masks)).collect()
    }

    /// All that this thread reads of a page in the order of its use, keys and values: in flight together, where
    /// they fit the registers.
    fn load_page(&self, env: &mut Env, keys: Val, values: Val) -> [Vec<Val>; 2] {
        if self.kernel.cache.layout.elem_bytes != 2 || self.head_dim() > 128 || self.pieces() > 1 {
            return [vec![], vec![]];
        }
        let raw = |env: &mut Env, at: Val, i: usize| {
            let ty = Ty::vector(Elem::I16, self.per_load() as u16);
            env.b.load_with(ty, at, (i * WARP * LOAD) as i32, LOAD as u32, Hint::None)
        };
        let loads = PAGE * self.head_dim() * 2 / (WARP * LOAD);
        let first = env.at(keys, env.group.lane, LOAD);
        let keys = (0..loads).map(|i| raw(env, first, i)).collect();
        // Rows of values that fill a load of the warp follow each other.
        let (lanes, positions) = self.value_lanes();
        if lanes * positions != WARP {
            return [keys, vec![]];
        }
        let first = env.at(values, env.group.lane, LOAD);
        let values = (0..loads).map(|i| raw(env, first, i)).collect();
        [keys, values]
    }

    /// Halves of a load as f32.
    fn widened(&self, env: &mut Env, half: Val) -> Val {
        let ty = env.b.ty(half).with_elem(Elem::F32);
        env.b.cast(Cast::F16ToF32, half, ty)
    }

    /// One load of the cache as f32.
    fn load(&self, env: &mut Env, at: Val) -> Val {
        let floats = Ty::vector(Elem::F32, self.per_load() as u16);
        if self.kernel.cache.layout.elem_bytes == 4 {
            return env.b.load_with(floats, at, 0, LOAD as u32, Hint::None);
        }
        let half = env.b.load_with(floats.with_elem(Elem::I16), at, 0, LOAD as u32, Hint::None);
        env.b.cast(Cast::F16ToF32, half, floats)
    }

    /// Sums of a vector over threads that differ in the masks' bits.
    fn over_lanes(&self, env: &mut Env, v: Val, masks: &[u8]) -> Val {
        let mut out = v;
        for lane in 0..env.b.ty(v).lanes {
            let mut x = env.b.extract(v, lane);
            for mask in masks {
                let other = env.b.lane_xor(x, *mask);
                x = env.b.add(x, other);
            }
            out = env.b.insert(out, lane, x);
        }
        out
    }

    /// Turns a head's raw scores into weights in shared memory. Gives the new largest score, the new sum, and
    /// the factor on what was before.
    fn softmax(
        &self,
        env: &mut Env,
        own: Own,
        (h, raw): (usize, Val),
        (base, [first, last]): (Val, [Val; 2]),
        state: &State,
    ) -> [Val; 3] {
        let (max, sum, _) = self.head_state(state, h);
        let (per, lanes) = (self.per_load(), self.position_lanes());
        let by = env.b.index(lanes);
        let mine = env.b.rem(env.group.lane, by);
        let start = env.b.mul_const(mine, per as i64);
        let position = env.b.add(base, start);
        let position = env.b.cast(Cast::Trunc, position, Ty::I32);
        let lowest = env.b.float(Ty::F32, LOWEST);
        let mut scores = Vec::new();
        let mut here = lowest;
        for i in 0..per {
            let s = env.b.extract(raw, i as u16);
            let s = self.score(env, s);
            let p = env.b.add_const(position, i as i64);
            let (after, before) = (env.b.cmp(Cond::Ge, p, first), env.b.cmp(Cond::Le, p, last));
            let seen = env.b.and(after, before);
            let s = env.b.select(seen, s, lowest);
            here = env.b.max(here, s);
            scores.push((s, seen));
        }
        let masks: Vec<u8> = (0..5).map(|i| 1 << i).filter(|m| usize::from(*m) < lanes).collect();
        for mask in &masks {
            let other = env.b.lane_xor(here, *mask);
            here = env.b.max(here, other);
        }
        let most = env.b.max(max, here);
        let zero = env.b.float(Ty::F32, 0.0);
        let to = env.b.add_const(start, (h * PAGE) as i64);
        let to = env.at(own.weights, to, 4);
        let writes = env.b.cmp(Cond::Lt, env.group.lane, by);
        let mut total = zero;
        let mut weights = Vec::new();
        for (s, seen) in scores {
            let d = env.b.sub(s, most);
            let p = math::exp(&mut env.b, d);
            let p = env.b.select(seen, p, zero);
            total = env.b.add(total, p);
            weights.push(p);
        }
        env.if_then(writes, |env| {
            for (i, p) in weights.into_iter().enumerate() {
                env.b.store(p, to, 4 * i as i32);
            }
        });
        for mask in &masks {
            let other = env.b.lane_xor(total, *mask);
            total = env.b.add(total, other);
        }
        let d = env.b.sub(max, most);
        let factor = math::exp(&mut env.b, d);
        let sum = env.b.fma(sum, factor, total);
        [most, sum, factor]
    }

    fn score(&self, env: &mut Env, raw: Val) -> Val {
        let scale = env.b.float(Ty::F32, f64::from(self.kernel.scale));
        let s = env.b.mul(raw, scale);
        let Some(cap) = self.kernel.softcap else { return s };
        let cap = env.b.float(Ty::F32, f64::from(cap));
        let ratio = env.b.div(s, cap);
        let t = math::tanh(&mut env.b, ratio);
        env.b.mul(t, cap)
    }

    /// Adds the page's values, weighted. A thread has some elements of every `positions`-th one.
    fn accumulate(
        &self,
        env: &mut Env,
        own: Own,
        (values, loaded): (Val, &[Val]),
        state: &State,
        heads: &[[Val; 3]],
    ) -> State {
        let (lanes, positions) = self.value_lanes();
        let per = self.per_load() as u16;
        let by = env.b.index(lanes);
        let (which, mine) = match positions {
            1 => (env.b.index(0), env.group.lane),
            _ => (env.b.div(env.group.lane, by), env.b.rem(env.group.lane, by)),
        };
        let weights = env.at(own.weights, which, 4);
        let row = env.at(values, which, lanes * LOAD);
        let mut next = Vec::new();
        let mut sums: Vec<Vec<Val>> = Vec::new();
        for (h, [_, _, factor]) in heads.iter().enumerate() {
            let (_, _, old) = self.head_state(state, h);
            let factor = env.b.splat(*factor, per);
            sums.push(old.into_iter().map(|v| env.b.mul(v, factor)).collect());
        }
        for piece in 0..self.pieces() {
            let load = env.b.add_const(mine, (piece * WARP) as i64);
            let last = env.b.index(lanes - 1);
            let load = env.b.min(load, last);
            let at = env.at(row, load, LOAD);
            for step in 0..PAGE / positions {
                let at = env.b.ptr_add_const(at, step * positions * lanes * LOAD);
                let v = match loaded.get(step) {
                    Some(v) => self.widened(env, *v),
                    None => self.load(env, at),
                };
                for (h, sum) in sums.iter_mut().enumerate() {
                    let w = env.b.load(Ty::F32, weights, (4 * (h * PAGE + step * positions)) as i32);
                    let w = env.b.splat(w, per);
                    sum[piece] = env.b.fma(v, w, sum[piece]);
                }
            }
        }
        for ([max, sum, _], values) in heads.iter().zip(sums) {
            next.extend([*max, *sum]);
            next.extend(values);
        }
        State(next)
    }

    /// Adds up the values of threads that have the same elements of different positions.
    fn over_positions(&self, env: &mut Env, mut state: State) -> State {
        let (lanes, positions) = self.value_lanes();
        if positions > 1 {
            let masks: Vec<u8> = (0..5).map(|i| 1 << i).filter(|m| usize::from(*m) >= lanes).collect();
            for h in 0..self.heads {
                let at = h * (2 + self.pieces()) + 2;
                for i in at..at + self.pieces() {
                    state.0[i] = self.over_lanes(env, state.0[i], &masks);
                }
            }
        }
        state
    }
}
