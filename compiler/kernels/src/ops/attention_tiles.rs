//! Attention of several tokens of a sequence at a time: the query heads that share a key head, of all of them,
//! stand in the lanes of vectors.
//!
//! A page of keys and values is converted once for all lanes, and scores, maxima, weights and sums need no
//! exchange between lanes. Each lane computes what [`AttentionKernel`] computes for its token and head alone, in
//! the same order, bit for bit.

use super::attention::{AttentionKernel, Frame, LOWEST, VECTOR};
use super::kv::Part;
use crate::env::{Count, Env, Rows};
use crate::kir::{BinOp, Cast, Cond, Elem, Ty, Val};
use crate::layout::{LANES, PAGE};
use crate::math;

const WIDTH: usize = LANES as usize;
/// Bytes of a vector of lanes.
const BYTES: usize = 4 * WIDTH;
const INTS: Ty = Ty::vector(Elem::I32, LANES);

/// Frame memory of a tile, in vectors over its lanes unless said otherwise.
struct TileFrame {
    /// Queries, by element.
    queries: Val,
    /// A page of keys or values in f32, not by lanes: keys by element and position, values the other way.
    page: Val,
    /// Scores of a page, then weights, by position.
    scores: Val,
    /// What was accumulated, by element.
    values: Val,
    /// Sums of weights on their way.
    sums: Val,
    /// First and last positions that lanes see (i32), largest scores and sums of weights.
    stats: Val,
}

/// Where in [`TileFrame::stats`].
const FIRST: usize = 0;
const LAST: usize = 1;
const LARGEST: usize = 2;
const SUM: usize = 3;

/// What one tile works on.
struct Tile {
    /// First token and their number (i64).
    tokens: (Val, Val),
    /// Key head.
    kv_head: Val,
    /// Sequence.
    seq: Val,
    /// Least and largest of the first visible positions, and of the last ones.
    first: (Val, Val),
    last: (Val, Val),
}

/// A page under work.
struct Page {
    /// Address of its keys and of its values.
    keys: Val,
    values: Val,
    /// Its first position.
    base: Val,
}

impl AttentionKernel {
    /// All tokens with all key heads, shared out: in tiles if there is one for every worker.
    pub(super) fn items(&self, env: &mut Env, frame: &Frame) {
        if self.counts.is_some() {
            return self.items_by_head(env, |env, t, kv_head| self.item(env, frame, t, kv_head));
        }
        let tokens = env.count(Count::Tokens);
        let heads = env.b.index(self.cache.layout.heads);
        if self.tile_tokens() == 1 {
            let items = env.b.mul(tokens, heads);
            return env.own_rows(items, |env, item| {
                let (t, kv_head) = (env.b.div(item, heads), env.b.rem(item, heads));
                self.item(env, frame, t, kv_head);
            });
        }
        let (one, most, workers) = (env.b.index(1), env.b.index(self.tile_tokens()), env.b.workers());
        let tiles = items_of(env, (tokens, heads), most);
        let enough = env.b.cmp(Cond::Ge, tiles, workers);
        let size = env.b.select(enough, most, one);
        let items = items_of(env, (tokens, heads), size);
        let tile = self.tile_frame(env);
        env.own_rows(items, |env, item| {
            let first = env.b.div(item, heads);
            let first = env.b.mul(first, size);
            let left = env.b.sub(tokens, first);
            let count = env.b.min(left, size);
            let kv_head = env.b.rem(item, heads);
            self.some_tokens(env, (frame, &tile), (first, count), kv_head);
        });
    }

    /// `count` (i64) tokens from `first` (i64) with a key head: in a tile where they are of one sequence.
    fn some_tokens(&self, env: &mut Env, frames: (&Frame, &TileFrame), (first, count): (Val, Val), kv_head: Val) {
        let one = env.b.index(1);
        let seq = env.step_index("seqs", first);
        let others = env.b.sub(count, one);
        let several = env.b.cmp(Cond::Gt, count, one);
        let next = env.b.add(first, one);
        let end = env.b.add(first, count);
        let alike = env.for_carried((next, end, one), &[others], |env, t, others| {
            let other = env.step_index("seqs", t);
            let same = env.b.cmp(Cond::Eq, other, seq);
            let same = env.b.cast(Cast::ZExt, same, Ty::I64);
            vec![env.b.sub(others[0], same)]
        });
        let none = env.b.index(0);
        let alike = env.b.cmp(Cond::Eq, alike[0], none);
        let tiled = env.b.bin(BinOp::And, alike, several);
        env.if_else(
            tiled,
            |env| self.tile(env, frames.1, (first, count), kv_head, seq),
            |env| env.for_range(first, end, 1, |env, t| self.item(env, frames.0, t, kv_head)),
        );
    }

    /// Tokens of a tile; one where tiles are of no use.
    fn tile_tokens(&self) -> usize {
        let fits = self.sinks.is_none() && self.head_dim().is_multiple_of(WIDTH);
        if fits { (WIDTH / self.group()).max(1) } else { 1 }
    }

    /// Memory for tiles.
    fn tile_frame(&self, env: &mut Env) -> TileFrame {
        let head = self.head_dim() * BYTES;
        TileFrame {
            queries: env.b.stack(head as u32),
            page: env.b.stack((PAGE * self.head_dim() * 4) as u32),
            scores: env.b.stack((PAGE * BYTES) as u32),
            values: env.b.stack(head as u32),
            sums: env.b.stack((PAGE / 2 * BYTES) as u32),
            stats: env.b.stack(4 * BYTES as u32),
        }
    }

    /// Attention of `count` (i64) tokens from `first` (i64), which are all of sequence `seq`, with a key head.
    fn tile(&self, env: &mut Env, frame: &TileFrame, tokens: (Val, Val), kv_head: Val, seq: Val) {
        let (first, last) = self.bounds(env, frame, tokens);
        let tile = Tile { tokens, kv_head, seq, first, last };
        self.load_queries(env, frame, &tile);
        let zero = env.b.float(VECTOR, 0.0);
        let lowest = env.b.float(VECTOR, LOWEST);
        env.for_const(self.head_dim(), 1, |env, e| {
            let at = env.at(frame.values, e, BYTES);
            env.b.store(zero, at, 0);
        });
        env.b.store(lowest, frame.stats, (LARGEST * BYTES) as i32);
        env.b.store(zero, frame.stats, (SUM * BYTES) as i32);
        let page = env.b.index(PAGE);
        let (lo, hi) = (env.b.div(tile.first.0, page), env.b.div(tile.last.1, page));
        let hi = env.b.add_const(hi, 1);
        env.for_range(lo, hi, 1, |env, block| self.tile_page(env, frame, &tile, block));
        self.store_tile(env, frame, &tile);
    }

    /// The token of each slot of a tile: slots behind the last token repeat it.
    fn tile_token(&self, env: &mut Env, (first, count): (Val, Val), slot: usize) -> Val {
        let most = env.b.add_const(count, -1);
        let slot = env.b.index(slot);
        let slot = env.b.min(slot, most);
        env.b.add(first, slot)
    }

    /// Stores what positions each lane sees; gives the least and the largest of the first and of the last ones.
    fn bounds(&self, env: &mut Env, frame: &TileFrame, tokens: (Val, Val)) -> ((Val, Val), (Val, Val)) {
        let mut range: Option<[Val; 4]> = None;
        for slot in 0..self.tile_tokens() {
            let t = self.tile_token(env, tokens, slot);
            let (first, last) = self.sees(env, t);
            let [a, b, c, d] = range.unwrap_or([first, first, last, last]);
            range = Some([env.b.min(a, first), env.b.max(b, first), env.b.min(c, last), env.b.max(d, last)]);
            let heads = self.lanes_of(slot);
            for (what, v) in [(FIRST, first), (LAST, last)] {
                let v = env.b.cast(Cast::Trunc, v, Ty::I32);
                heads.clone().for_each(|lane| env.b.store(v, frame.stats, (what * BYTES + 4 * lane) as i32));
            }
        }
        let [a, b, c, d] = range.expect("a tile has tokens");
        ((a, b), (c, d))
    }

    /// Lanes of the token in a slot; the last one has those that are left over, too.
    fn lanes_of(&self, slot: usize) -> std::ops::Range<usize> {
        let end = if slot + 1 == self.tile_tokens() { WIDTH } else { (slot + 1) * self.group() };
        slot * self.group()..end
    }

    /// Address in rows of each lane's head; lanes that are left over have the last head.
    fn lane_heads(&self, env: &mut Env, rows: &Rows, tile: &Tile) -> Vec<Val> {
        let mut heads = Vec::with_capacity(WIDTH);
        for slot in 0..self.tile_tokens() {
            let t = self.tile_token(env, tile.tokens, slot);
            let row = env.row(rows, t);
            let row = env.at(row, tile.kv_head, self.group() * self.head_dim() * 4);
            for lane in self.lanes_of(slot) {
                let head = (lane - slot * self.group()).min(self.group() - 1);
                heads.push(env.b.ptr_add_const(row, head * self.head_dim() * 4));
            }
        }
        heads
    }

    /// Queries by element: a piece of [`LANES`] elements of all heads is a square that is transposed.
    fn load_queries(&self, env: &mut Env, frame: &TileFrame, tile: &Tile) {
        let heads = self.lane_heads(env, &self.q, tile);
        env.for_const(self.head_dim(), WIDTH, |env, e| {
            let rows: Vec<Val> = heads
                .iter()
                .map(|head| {
                    let at = env.at(*head, e, 4);
                    env.b.load(VECTOR, at, 0)
                })
                .collect();
            let to = env.at(frame.queries, e, BYTES);
            for (i, v) in transpose(env, rows).into_iter().enumerate() {
                env.b.store(v, to, (i * BYTES) as i32);
            }
        });
    }

    fn tile_page(&self, env: &mut Env, frame: &TileFrame, tile: &Tile, block: Val) {
        let at = self.cache.page(env, tile.seq, block);
        let page = Page {
            keys: self.cache.head(env, at, Part::Keys, tile.kv_head),
            values: self.cache.head(env, at, Part::Values, tile.kv_head),
            base: env.b.mul_const(block, PAGE as i64),
        };
        self.widen(env, page.keys, frame.page, self.head_dim() * PAGE);
        env.for_const(PAGE, self.rows_in_flight, |env, i| self.tile_scores(env, frame, &page, i));
        let rescale = self.tile_weights(env, frame, &page);
        let until = |env: &mut Env, last: Val| {
            let behind = env.b.sub(last, page.base);
            let (none, all) = (env.b.index(0), env.b.index(PAGE));
            let behind = env.b.add_const(behind, 1);
            let behind = env.b.max(behind, none);
            env.b.min(behind, all)
        };
        let (least, most) = (until(env, tile.last.0), until(env, tile.last.1));
        let none = env.b.index(0);
        env.for_range(none, most, 1, |env, j| {
            let from = env.at(page.values, j, self.head_dim() * self.cache.layout.elem_bytes);
            let to = env.at(frame.page, j, self.head_dim() * 4);
            self.widen(env, from, to, self.head_dim());
        });
        env.for_const(self.head_dim(), self.rows_in_flight, |env, e| {
            self.tile_values(env, frame, &page, (e, rescale), (least, most));
        });
    }

    /// Copies elements of the cache as f32.
    fn widen(&self, env: &mut Env, from: Val, to: Val, elements: usize) {
        env.for_const(elements, WIDTH, |env, i| {
            let from = env.at(from, i, self.cache.layout.elem_bytes);
            let v = self.cache.load(env, from, 0, LANES);
            let to = env.at(to, i, 4);
            env.b.store(v, to, 0);
        });
    }

    /// Which lanes see position `i` (i64) of the page.
    fn lanes_seeing(&self, env: &mut Env, frame: &TileFrame, page: &Page, i: Val) -> Val {
        let position = env.b.add(page.base, i);
        let position = env.b.cast(Cast::Trunc, position, Ty::I32);
        let position = env.b.splat(position, LANES);
        let [first, last] = [FIRST, LAST].map(|what| env.b.load(INTS, frame.stats, (what * BYTES) as i32));
        let (after, before) = (env.b.cmp(Cond::Ge, position, first), env.b.cmp(Cond::Le, position, last));
        env.b.bin(BinOp::And, after, before)
    }

    /// Scores of some positions of the page from `i` (i64) on.
    fn tile_scores(&self, env: &mut Env, frame: &TileFrame, page: &Page, i: Val) {
        let zero = env.b.float(VECTOR, 0.0);
        let (lo, hi, one) = (env.b.index(0), env.b.index(self.head_dim()), env.b.index(1));
        let from = env.at(frame.page, i, 4);
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
            let seen = self.lanes_seeing(env, frame, page, i);
            let score = env.b.select(seen, score, lowest);
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
    fn tile_weights(&self, env: &mut Env, frame: &TileFrame, page: &Page) -> Val {
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
                let seen = self.lanes_seeing(env, frame, page, i);
                let p = env.b.select(seen, p, zero);
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

    /// Adds the values of a page, weighted, to some elements from `e` (i64) on: the first `least` positions, which
    /// no lane's last position is before, then those up to `most` where lanes have come so far.
    fn tile_values(
        &self,
        env: &mut Env,
        frame: &TileFrame,
        page: &Page,
        (e, rescale): (Val, Val),
        (least, most): (Val, Val),
    ) {
        let at = env.at(frame.values, e, BYTES);
        let place = |i: usize| (i * BYTES) as i32;
        let init: Vec<Val> = (0..self.rows_in_flight)
            .map(|i| {
                let v = env.b.load(VECTOR, at, place(i));
                env.b.mul(v, rescale)
            })
            .collect();
        let from = env.at(frame.page, e, 4);
        let one = env.b.index(1);
        let products = |env: &mut Env, j: Val, sums: &[Val]| {
            let weights = env.at(frame.scores, j, BYTES);
            let weights = env.b.load(VECTOR, weights, 0);
            let values = env.at(from, j, self.head_dim() * 4);
            add_products(env, values, weights, sums)
        };
        let none = env.b.index(0);
        let sums = env.for_carried((none, least, one), &init, |env, j, sums| products(env, j, sums));
        let last = env.b.load(INTS, frame.stats, (LAST * BYTES) as i32);
        let sums = env.for_carried((least, most, one), &sums, |env, j, sums| {
            let position = env.b.add(page.base, j);
            let position = env.b.cast(Cast::Trunc, position, Ty::I32);
            let position = env.b.splat(position, LANES);
            let reached = env.b.cmp(Cond::Le, position, last);
            let added = products(env, j, sums);
            sums.iter().zip(added).map(|(old, new)| env.b.select(reached, new, *old)).collect()
        });
        sums.iter().enumerate().for_each(|(i, v)| env.b.store(*v, at, place(i)));
    }

    /// Divides by the sums of the weights and writes the result of each token that the tile has.
    fn store_tile(&self, env: &mut Env, frame: &TileFrame, tile: &Tile) {
        let sum = env.b.load(VECTOR, frame.stats, (SUM * BYTES) as i32);
        let heads = self.lane_heads(env, &self.out, tile);
        env.for_const(self.head_dim(), WIDTH, |env, e| {
            let from = env.at(frame.values, e, BYTES);
            let columns: Vec<Val> = (0..WIDTH)
                .map(|i| {
                    let v = env.b.load(VECTOR, from, (i * BYTES) as i32);
                    env.b.div(v, sum)
                })
                .collect();
            // Lanes left over have what the lane of the same token and head has.
            for (head, row) in heads.iter().zip(transpose(env, columns)) {
                let to = env.at(*head, e, 4);
                env.b.store(row, to, 0);
            }
        });
    }
}

/// Items of up to `size` (i64) tokens with a key head each.
fn items_of(env: &mut Env, (tokens, heads): (Val, Val), size: Val) -> Val {
    let behind = env.b.add_const(size, -1);
    let end = env.b.add(tokens, behind);
    let tiles = env.b.div(end, size);
    env.b.mul(tiles, heads)
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

/// Columns of a square of [`LANES`] rows.
fn transpose(env: &mut Env, mut rows: Vec<Val>) -> Vec<Val> {
    let mut size = 1;
    while size < WIDTH {
        let pick = |odd: usize| {
            let lane = move |i: usize| if i & size == 0 { i + odd * size } else { i - size + odd * size + WIDTH };
            (0..WIDTH).map(|i| lane(i) as u16).collect::<Vec<u16>>()
        };
        for i in (0..WIDTH).filter(|i| i & size == 0) {
            let (a, b) = (rows[i], rows[i + size]);
            rows[i] = env.b.shuffle(a, b, pick(0));
            rows[i + size] = env.b.shuffle(a, b, pick(1));
        }
        size *= 2;
    }
    rows
}
