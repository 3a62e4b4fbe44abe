//! Attention of many tokens by matrix products (Dao et al., 2022 and 2023).
//!
//! A worker takes a key head and some tokens with the query heads that share it; a warp has 16 rows of
//! (token, query head). Pages of keys and values go through shared memory, copied [`STAGES`] ahead; scores
//! and running values stay in registers. Positions that a row does not see get no weight, and where a page
//! is another sequence's for some rows, those rows see nothing of it. For caches of binary16, and of bytes, which become
//! binary16 in shared memory.

mod products;
mod widen;

use super::SHARED_BYTES;
use super::fragments::thread_of;
use crate::env::{Count, Env, RowElem, Scratch};
use crate::group::bf16_place;
use crate::kir::{BinOp, Cast, Cond, Elem, Function, Ty, Val};
use crate::layout::PAGE;
use crate::math;
use crate::ops::attention::AttentionKernel;
use crate::ops::kv::Part;

/// Rows of a warp.
const ROWS: usize = 16;
/// Pages in shared memory.
const STAGES: usize = 4;
/// Bytes of a copy, and of a row that a matrix is loaded from.
const COPY: usize = 16;
/// Finite stand-in for minus infinity: e^(x - y) is zero for it, and never NaN.
const LOWEST: f64 = -1e30;

/// Whether a kernel's attention can be made this way.
pub fn fits(kernel: &AttentionKernel) -> bool {
    let layout = kernel.cache.layout;
    // Where pages are forgotten, queries turn for each page: they do not stay in registers.
    kernel.sinks.is_none()
        && matches!(layout.elem_bytes, 1 | 2)
        && matches!(layout.head_dim, 32 | 64 | 128)
        && shared_bytes(kernel) <= SHARED_BYTES
        && matches!(kernel.out.elem, RowElem::F32 | RowElem::Bf16)
}

/// The kernel under construction.
struct Flash<'a> {
    kernel: &'a AttentionKernel,
    /// Query heads of a warp's rows; the others of the key head are other items.
    heads: usize,
    warps: usize,
}

/// A worker's item.
#[derive(Clone, Copy)]
struct Item {
    kv_head: Val,
    /// First query head.
    head: Val,
    /// First token, and number of tokens of the step.
    token: Val,
    n: Val,
    shared: Val,
}

/// What a thread knows of its two rows.
#[derive(Clone, Copy)]
struct Row {
    token: Val,
    head: Val,
    /// First and last visible position: i32.
    first: Val,
    last: Val,
    seq: Val,
}

/// Emits the part of a kernel for many tokens; `shared` is memory of [`shared_bytes`].
pub fn emit(env: &mut Env, kernel: &AttentionKernel, shared: Val) {
    let group = kernel.heads / kernel.cache.layout.heads;
    let heads = if group.is_power_of_two() && group <= ROWS { group } else { 1 };
    let flash = Flash { kernel, heads, warps: env.group.warps() };
    let n = env.count(Count::Tokens);
    let tokens = flash.tokens();
    let up = env.b.add_const(n, tokens as i64 - 1);
    let size = env.b.index(tokens);
    let blocks = env.b.div(up, size);
    let parts = kernel.heads / heads;
    let items = env.b.mul_const(blocks, parts as i64);
    let (worker, workers) = (env.b.worker(), env.b.workers());
    env.for_step(worker, items, workers, |env, item| {
        let parts = env.b.index(parts);
        let (block, part) = (env.b.div(item, parts), env.b.rem(item, parts));
        // The last tokens first: they see the most.
        let last = env.b.add_const(blocks, -1);
        let block = env.b.sub(last, block);
        let head = env.b.mul_const(part, heads as i64);
        let group = env.b.index(group);
        let kv_head = env.b.div(head, group);
        let token = env.b.mul(block, size);
        flash.item(env, Item { kv_head, head, token, n, shared });
    });
}

/// Bytes of shared memory.
pub fn shared_bytes(kernel: &AttentionKernel) -> usize {
    let layout = kernel.cache.layout;
    let wide = if layout.elem_bytes == 1 { 2 * halves_bytes(kernel) } else { 0 };
    STAGES * 2 * layout.head_bytes() + wide
}

/// Bytes of a head's keys (or values) of a page in binary16.
fn halves_bytes(kernel: &AttentionKernel) -> usize {
    PAGE * kernel.cache.layout.head_dim * 2
}

/// Emits a kernel for many tokens alone.
pub fn build(kernel: &AttentionKernel, name: &str, scratch: Scratch) -> Function {
    let mut env = Env::new(name, scratch);
    let shared = env.b.shared(shared_bytes(kernel));
    emit(&mut env, kernel, shared);
    env.finish()
}

impl Flash<'_> {
    fn head_dim(&self) -> usize {
        self.kernel.cache.layout.head_dim
    }

    /// Tokens of an item.
    fn tokens(&self) -> usize {
        self.warps * ROWS / self.heads
    }

    fn item(&self, env: &mut Env, item: Item) {
        let rows = [0, 8].map(|more| self.row(env, item, more));
        let queries = self.queries(env, &rows);
        let last = self.token_at(env, item, self.tokens() - 1);
        let (low, high) = (env.step_index("seqs", item.token), env.step_index("seqs", last));
        let end = env.b.add_const(high, 1);
        let zero = env.b.float(Ty::vector(Elem::F32, 4), 0.0);
        let (lowest, none) = (env.b.float(Ty::F32, LOWEST), env.b.float(Ty::F32, 0.0));
        let mut init = vec![lowest, lowest, none, none];
        init.extend(vec![zero; self.head_dim() / 8]);
        let one = env.b.index(1);
        let state = env.for_carried((low, end, one), &init, |env, seq, state| {
            let range = self.page_range(env, item, seq, last);
            self.sequence(env, item, (seq, range), (&rows, &queries), state)
        });
        self.store(env, &rows, item, &state);
    }

    /// The item's token `i`, or the step's last.
    fn token_at(&self, env: &mut Env, item: Item, i: usize) -> Val {
        let (token, last) = (env.b.add_const(item.token, i as i64), env.b.add_const(item.n, -1));
        env.b.min(token, last)
    }

    /// The row of this thread in its warp's upper (`more` = 0) or lower half.
    fn row(&self, env: &mut Env, item: Item, more: i64) -> Row {
        let (g, _) = thread_of(env);
        let row = env.b.add_const(g, more);
        let size = env.b.index(self.heads);
        let (token, head) = (env.b.div(row, size), env.b.rem(row, size));
        let before = env.b.mul_const(env.group.warp, (ROWS / self.heads) as i64);
        let token = env.b.add(token, before);
        let token = env.b.add(token, item.token);
        let end = env.b.add_const(item.n, -1);
        let inside = env.b.min(token, end);
        let last = env.step_index("positions", inside);
        let seq = env.step_index("seqs", inside);
        let first = self.first(env, last);
        let [first, last] = [first, last].map(|v| env.b.cast(Cast::Trunc, v, Ty::I32));
        Row { token, head: env.b.add(item.head, head), first, last, seq }
    }

    /// First position that is seen from `last`.
    fn first(&self, env: &mut Env, last: Val) -> Val {
        let zero = env.b.index(0);
        match self.kernel.window {
            None => zero,
            Some(w) => {
                let first = env.b.add_const(last, 1 - w as i64);
                env.b.max(first, zero)
            }
        }
    }

    /// Pages that some of the item's tokens see of sequence `seq`; tokens of a sequence ascend.
    fn page_range(&self, env: &mut Env, item: Item, seq: Val, last: Val) -> (Val, Val) {
        let page = env.b.index(PAGE);
        let one = env.b.index(1);
        // Tokens are few: the first and the last of the sequence are found one by one.
        let (none, most) = (env.b.index(usize::MAX >> 2), env.b.int(Ty::I64, -1));
        let end = env.b.add(last, one);
        let found = env.for_carried((item.token, end, one), &[none, most], |env, t, found| {
            let (own, position) = (env.step_index("seqs", t), env.step_index("positions", t));
            let here = env.b.cmp(Cond::Eq, own, seq);
            let first = self.first(env, position);
            let (low, high) = (env.b.min(found[0], first), env.b.max(found[1], position));
            vec![env.b.select(here, low, found[0]), env.b.select(here, high, found[1])]
        });
        let zero = env.b.index(0);
        let some = env.b.cmp(Cond::Ge, found[1], zero);
        let (lo, hi) = (env.b.div(found[0], page), env.b.div(found[1], page));
        let hi = env.b.add(hi, one);
        (lo, env.b.select(some, hi, lo))
    }

    /// The queries of this thread's rows as binary16: for each 16 elements the four words of `a`.
    fn queries(&self, env: &mut Env, rows: &[Row; 2]) -> Vec<Val> {
        let (_, t) = thread_of(env);
        let two = env.b.mul_const(t, 2);
        let bases = rows.map(|row| {
            let count = env.count(Count::Tokens);
            let last = env.b.add_const(count, -1);
            let token = env.b.min(row.token, last);
            let at = env.row(&self.kernel.q, token);
            let at = env.at(at, row.head, self.head_dim() * 4);
            env.at(at, two, 4)
        });
        let mut out = Vec::new();
        for step in 0..self.head_dim() / 16 {
            let mut words = env.b.int(Ty::vector(Elem::I32, 4), 0);
            for (i, (row, more)) in [(0, 0), (1, 0), (0, 8), (1, 8)].into_iter().enumerate() {
                let at = env.b.ptr_add_const(bases[row], (16 * step + more) * 4);
                let v = env.b.load_with(Ty::vector(Elem::F32, 2), at, 0, 8, crate::kir::Hint::None);
                let word = halves(env, v);
                words = env.b.insert(words, i as u16, word);
            }
            out.push(words);
        }
        out
    }

    /// All pages of one sequence.
    fn sequence(
        &self,
        env: &mut Env,
        item: Item,
        (seq, (lo, hi)): (Val, (Val, Val)),
        (rows, queries): (&[Row; 2], &[Val]),
        state: &[Val],
    ) -> Vec<Val> {
        env.b.group_barrier();
        for stage in 0..STAGES - 1 {
            let block = env.b.add_const(lo, stage as i64);
            self.copy(env, item, (seq, block, hi), block);
        }
        let one = env.b.index(1);
        let sees = rows.map(|row| env.b.cmp(Cond::Eq, row.seq, seq));
        let state = env.for_carried((lo, hi, one), state, |env, block, state| {
            env.b.async_wait(STAGES as u32 - 2);
            env.b.group_barrier();
            let ahead = env.b.add_const(block, STAGES as i64 - 1);
            self.copy(env, item, (seq, ahead, hi), ahead);
            let page = self.stage(env, item, block);
            let page = if self.is_narrow() { self.widen(env, item, page) } else { page };
            let scores = self.scores(env, page, queries);
            let (scores, stats) = self.softmax(env, block, (rows, sees), &scores, state);
            self.accumulate(env, page, &scores, stats, state)
        });
        env.b.async_wait(0);
        state
    }

    /// Whether pages are bytes.
    fn is_narrow(&self) -> bool {
        self.kernel.cache.layout.elem_bytes == 1
    }

    /// Where a block's page lies in shared memory: keys, then values.
    fn stage(&self, env: &mut Env, item: Item, block: Val) -> Val {
        let mask = env.b.index(STAGES - 1);
        let stage = env.b.and(block, mask);
        env.at(item.shared, stage, 2 * self.kernel.cache.layout.head_bytes())
    }

    /// Begins to copy the page of block `block` if it is before `hi`; closes the group of copies.
    fn copy(&self, env: &mut Env, item: Item, (seq, block, hi): (Val, Val, Val), slot: Val) {
        let exists = env.b.cmp(Cond::Lt, block, hi);
        env.if_then(exists, |env| {
            let page = self.kernel.cache.page(env, seq, block);
            let to = self.stage(env, item, slot);
            let bytes = self.kernel.cache.layout.head_bytes();
            for (i, (part, row)) in
                [(Part::Keys, PAGE * 2), (Part::Values, self.head_dim() * 2)].into_iter().enumerate()
            {
                let from = self.kernel.cache.head(env, page, part, item.kv_head);
                let to = env.b.ptr_add_const(to, i * bytes);
                let end = env.b.index(bytes / COPY);
                for first in (0..bytes / COPY).step_by(env.group.threads) {
                    let piece = env.b.add_const(env.group.thread, first as i64);
                    let one = |env: &mut Env| {
                        let source = env.at(from, piece, COPY);
                        let to = match self.is_narrow() {
                            true => env.at(to, piece, COPY),
                            false => {
                                let place = swizzle(env, piece, row / COPY);
                                env.b.ptr_add(to, place)
                            }
                        };
                        env.b.async_copy(to, source, COPY as u32);
                    };
                    let inside = env.b.cmp(Cond::Lt, piece, end);
                    match (bytes / COPY).is_multiple_of(env.group.threads) {
                        true => one(env),
                        false => env.if_then(inside, one),
                    }
                }
            }
        });
        env.b.async_commit();
    }

    /// Divides by the sums of the weights, which are still of each thread's own positions, and writes the rows.
    fn store(&self, env: &mut Env, rows: &[Row; 2], item: Item, state: &[Val]) {
        let (_, t) = thread_of(env);
        for (which, row) in rows.iter().enumerate() {
            let mut sum = state[2 + which];
            for mask in [1, 2] {
                let other = env.b.lane_xor(sum, mask);
                sum = env.b.add(sum, other);
            }
            let exists = env.b.cmp(Cond::Lt, row.token, item.n);
            env.if_then(exists, |env| {
                let to = env.row(&self.kernel.out, row.token);
                let head = env.b.mul_const(row.head, self.head_dim() as i64);
                let two = env.b.mul_const(t, 2);
                let first = env.b.add(head, two);
                for (column, sums) in state[4..].iter().enumerate() {
                    let lane = 2 * which as u16;
                    let pair = env.b.shuffle(*sums, *sums, vec![lane, lane + 1]);
                    let divisor = env.b.splat(sum, 2);
                    let v = env.b.div(pair, divisor);
                    let i = env.b.add_const(first, 8 * column as i64);
                    self.store_pair(env, to, i, v);
                }
            });
        }
    }

    fn store_pair(&self, env: &mut Env, row: Val, i: Val, v: Val) {
        if self.kernel.out.elem == RowElem::Bf16 {
            let half = math::to_bf16(&mut env.b, v);
            let word = env.b.cast(Cast::Bitcast, half, Ty::I32);
            let to = bf16_place(env, row, i);
            return env.b.store(word, to, 0);
        }
        let to = env.at(row, i, 4);
        env.b.store_with(v, to, 0, 8);
    }
}

/// Two f32 as binary16 in a word.
fn halves(env: &mut Env, pair: Val) -> Val {
    let half = env.b.cast(Cast::F32ToF16, pair, Ty::vector(Elem::I16, 2));
    env.b.cast(Cast::Bitcast, half, Ty::I32)
}

/// Byte of piece `piece` (i64) of rows of `pieces` pieces: pieces are exchanged within a row so that eight rows'
/// same piece lies in different banks.
fn swizzle(env: &mut Env, piece: Val, pieces: usize) -> Val {
    // Rows of 64 bytes: two rows fill the banks. Longer rows: one does.
    let (shift, mask) = if pieces == 4 { (3, 3) } else { (pieces.trailing_zeros() as i64, 7) };
    let by = env.b.int(Ty::I64, shift);
    let row = env.b.lshr(piece, by);
    let mask = env.b.index(mask);
    let flip = env.b.and(row, mask);
    let place = env.b.bin(BinOp::Xor, piece, flip);
    env.b.mul_const(place, COPY as i64)
}
