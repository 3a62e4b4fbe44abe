//! Attention of several tokens of a sequence at a time: the query heads that share a key head, of all of them,
//! stand in the lanes of vectors.
//!
//! A page of keys and values is converted once for some tiles of lanes, and scores, maxima, weights and sums need no
//! exchange between lanes. Each lane computes what [`AttentionKernel`] computes for its token and head alone, in
//! the same order, bit for bit.

mod page;
mod rows;

use super::attention::{AttentionKernel, Frame, LOWEST, VECTOR};
use super::kv::Part;
use crate::env::{Count, Env};
use crate::kir::{BinOp, Cast, Cond, Elem, Ty, Val};
use crate::layout::{LANES, PAGE};

const WIDTH: usize = LANES as usize;
/// Bytes of a vector of lanes.
const BYTES: usize = 4 * WIDTH;
const INTS: Ty = Ty::vector(Elem::I32, LANES);
/// Tiles that share a page's conversion.
const TOGETHER: usize = 4;
/// Items for each worker that there should be, as those of later tokens have more pages.
const ITEMS: i64 = 2;

/// Frame memory of the tiles that share pages.
struct Frames {
    /// What each has for itself: see [`TileFrame`].
    tiles: Val,
    keys: Val,
    page_values: Val,
    scores: Val,
    sums: Val,
}

/// Frame memory of a tile, in vectors over its lanes unless said otherwise.
struct TileFrame {
    /// Queries, by element.
    queries: Val,
    /// What was accumulated, by element.
    values: Val,
    /// First and last positions that lanes see (i32), largest scores and sums of weights.
    stats: Val,
    /// The least and the largest of the first positions, and of the last ones: i64, not by lanes.
    range: Val,
    /// A page of keys in f32, by element and position, and of values, the other way: not by lanes, of all tiles.
    keys: Val,
    page_values: Val,
    /// Scores of a page, then weights, by position.
    scores: Val,
    /// Sums of weights on their way.
    sums: Val,
}

/// Where in [`TileFrame::stats`].
const FIRST: usize = 0;
const LAST: usize = 1;
const LARGEST: usize = 2;
const SUM: usize = 3;
const STATS_BYTES: usize = 4 * BYTES;
/// Bytes of [`TileFrame::range`], a vector's.
const RANGE_BYTES: usize = BYTES;

/// What one tile works on.
struct Tile {
    /// First token and their number (i64).
    tokens: (Val, Val),
    /// Key head.
    kv_head: Val,
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
    /// All tokens with all key heads, shared out: in tiles if there is one for every worker, some of them together if
    /// there still are enough.
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
        let mut size = env.b.index(1);
        for (tiles, wanted) in [(1, 1), (TOGETHER, ITEMS)] {
            let larger = env.b.index(tiles * self.tile_tokens());
            let (items, workers) = (items_of(env, (tokens, heads), larger), env.b.workers());
            let wanted = env.b.mul_const(workers, wanted);
            let enough = env.b.cmp(Cond::Ge, items, wanted);
            size = env.b.select(enough, larger, size);
        }
        let items = items_of(env, (tokens, heads), size);
        let frames = self.frames(env);
        env.own_rows(items, |env, item| {
            let first = env.b.div(item, heads);
            let first = env.b.mul(first, size);
            let left = env.b.sub(tokens, first);
            let count = env.b.min(left, size);
            let kv_head = env.b.rem(item, heads);
            self.some_tokens(env, (frame, &frames), (first, count), kv_head);
        });
    }

    /// `count` (i64) tokens from `first` (i64) with a key head: in tiles where they are of one sequence.
    fn some_tokens(&self, env: &mut Env, frames: (&Frame, &Frames), (first, count): (Val, Val), kv_head: Val) {
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
            |env| self.tiles(env, frames.1, (first, count), kv_head, seq),
            |env| env.for_range(first, end, 1, |env, t| self.item(env, frames.0, t, kv_head)),
        );
    }

    /// Tokens of a tile; one where tiles are of no use.
    fn tile_tokens(&self) -> usize {
        let fits = self.sinks.is_none() && self.head_dim().is_multiple_of(WIDTH);
        if fits { (WIDTH / self.group()).max(1) } else { 1 }
    }

    fn tile_bytes(&self) -> usize {
        2 * self.head_dim() * BYTES + STATS_BYTES + RANGE_BYTES
    }

    /// Memory for tiles.
    fn frames(&self, env: &mut Env) -> Frames {
        let page = (PAGE * self.head_dim() * 4) as u32;
        Frames {
            tiles: env.b.stack((TOGETHER * self.tile_bytes()) as u32),
            keys: env.b.stack(page),
            page_values: env.b.stack(page),
            scores: env.b.stack((PAGE * BYTES) as u32),
            sums: env.b.stack((PAGE / 2 * BYTES) as u32),
        }
    }

    /// That of tile `i` (i64).
    fn frame_of(&self, env: &mut Env, frames: &Frames, i: Val) -> TileFrame {
        let queries = env.at(frames.tiles, i, self.tile_bytes());
        let head = self.head_dim() * BYTES;
        let stats = env.b.ptr_add_const(queries, 2 * head);
        TileFrame {
            queries,
            values: env.b.ptr_add_const(queries, head),
            stats,
            range: env.b.ptr_add_const(stats, STATS_BYTES),
            keys: frames.keys,
            page_values: frames.page_values,
            scores: frames.scores,
            sums: frames.sums,
        }
    }

    /// Attention of `count` (i64) tokens from `first` (i64), which are all of sequence `seq`, with a key head.
    fn tiles(&self, env: &mut Env, frames: &Frames, (first, count): (Val, Val), kv_head: Val, seq: Val) {
        let (none, one, each) = (env.b.index(0), env.b.index(1), env.b.index(self.tile_tokens()));
        let behind = env.b.add_const(count, self.tile_tokens() as i64 - 1);
        let many = env.b.div(behind, each);
        let tile_of = |env: &mut Env, i: Val| {
            let before = env.b.mul(i, each);
            let (start, left) = (env.b.add(first, before), env.b.sub(count, before));
            Tile { tokens: (start, env.b.min(left, each)), kv_head }
        };
        let (lo, hi) = self.sees(env, first);
        let seen = env.for_carried((none, many, one), &[lo, hi], |env, i, seen| {
            let (tile, frame) = (tile_of(env, i), self.frame_of(env, frames, i));
            let (least, most) = self.begin_tile(env, &frame, &tile);
            vec![env.b.min(seen[0], least), env.b.max(seen[1], most)]
        });
        let page = env.b.index(PAGE);
        let (lo, hi) = (env.b.div(seen[0], page), env.b.div(seen[1], page));
        let hi = env.b.add_const(hi, 1);
        env.for_range(lo, hi, 1, |env, block| {
            let page = self.convert_page(env, frames, (seq, kv_head), (block, seen[1]));
            env.for_range(none, many, 1, |env, i| {
                let frame = self.frame_of(env, frames, i);
                self.tile_page(env, &frame, &page);
            });
        });
        env.for_range(none, many, 1, |env, i| {
            let (tile, frame) = (tile_of(env, i), self.frame_of(env, frames, i));
            self.store_tile(env, &frame, &tile);
        });
    }

    /// Queries, bounds and empty sums of a tile; gives the first and the last position that some lane sees.
    fn begin_tile(&self, env: &mut Env, frame: &TileFrame, tile: &Tile) -> (Val, Val) {
        let seen = self.bounds(env, frame, tile.tokens);
        self.load_queries(env, frame, tile);
        let (zero, lowest) = (env.b.float(VECTOR, 0.0), env.b.float(VECTOR, LOWEST));
        env.for_const(self.head_dim(), 1, |env, e| {
            let at = env.at(frame.values, e, BYTES);
            env.b.store(zero, at, 0);
        });
        env.b.store(lowest, frame.stats, (LARGEST * BYTES) as i32);
        env.b.store(zero, frame.stats, (SUM * BYTES) as i32);
        seen
    }

    /// Stores what positions each lane sees, and the range of them; gives the first and the last position of all.
    fn bounds(&self, env: &mut Env, frame: &TileFrame, tokens: (Val, Val)) -> (Val, Val) {
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
        let range = range.expect("a tile has tokens");
        range.iter().enumerate().for_each(|(i, v)| env.b.store(*v, frame.range, 8 * i as i32));
        (range[0], range[3])
    }

    /// Converts what is there of a page up to position `last` (i64).
    fn convert_page(
        &self,
        env: &mut Env,
        frames: &Frames,
        (seq, kv_head): (Val, Val),
        (block, last): (Val, Val),
    ) -> Page {
        let at = self.cache.page(env, seq, block);
        let page = Page {
            keys: self.cache.head(env, at, Part::Keys, kv_head),
            values: self.cache.head(env, at, Part::Values, kv_head),
            base: env.b.mul_const(block, PAGE as i64),
        };
        self.widen(env, page.keys, frames.keys, self.head_dim() * PAGE);
        let (none, most) = (env.b.index(0), page.until(env, last));
        env.for_range(none, most, 1, |env, j| {
            let from = env.at(page.values, j, self.head_dim() * self.cache.layout.elem_bytes);
            let to = env.at(frames.page_values, j, self.head_dim() * 4);
            self.widen(env, from, to, self.head_dim());
        });
        page
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
}

impl Page {
    /// How many of its positions are not behind `last` (i64).
    fn until(&self, env: &mut Env, last: Val) -> Val {
        let behind = env.b.sub(last, self.base);
        let (none, all) = (env.b.index(0), env.b.index(PAGE));
        let behind = env.b.add_const(behind, 1);
        let behind = env.b.max(behind, none);
        env.b.min(behind, all)
    }
}

/// Items of up to `size` (i64) tokens with a key head each.
fn items_of(env: &mut Env, (tokens, heads): (Val, Val), size: Val) -> Val {
    let behind = env.b.add_const(size, -1);
    let end = env.b.add(tokens, behind);
    let tiles = env.b.div(end, size);
    env.b.mul(tiles, heads)
}
