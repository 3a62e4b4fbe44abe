//! Products by a processor's tiles (AMX), and products of bf16 that sum as tiles do.
//!
//! A step of one token streams weights as any GEMV; as soon as there are two, all rows go through tiles, 32 at a
//! time, the last ones in tiles of fewer rows. Sums of bf16 are the same either way: see [`TileKind::Bf16`].

use super::panel_ahead::PanelAhead;
use super::product::{At, Cut, Product, VECTOR_BYTES};
use crate::env::Env;
use crate::kir::{Cond, Elem, Hint, TileKind, Tiles, Ty, Val};
use crate::layout::LANES;
use crate::schedule::{Ahead, Schedule, Tile};

const FLOATS: Ty = Ty::vector(Elem::F32, LANES);
const WORDS_TY: Ty = Ty::vector(Elem::I32, LANES);
/// Words of 32 bits in a block.
const WORDS: usize = 16;
/// Bytes of a block of a row.
pub(super) const BLOCK_BYTES: usize = 4 * WORDS;
/// Bytes of a block of a panel.
const PANEL_BLOCK: usize = WORDS * VECTOR_BYTES;
/// Rows of a tile.
const ROWS: usize = 16;

/// Some blocks of all panels of a unit, which many rows are multiplied with.
pub(super) struct TileBlocks {
    /// What they hold.
    pub kind: TileKind,
    /// Their number.
    pub blocks: usize,
    /// Panels of the unit.
    pub panels: usize,
    /// Bytes from one panel to the next.
    pub panel_stride: usize,
}

impl TileBlocks {
    /// Adds their products with the rows `0..n` at `at.x` to `at.raw`; `at.w` is the first panel.
    pub(super) fn emit(&self, env: &mut Env, product: &Product, at: At, n: Val) {
        let first = env.b.index(0);
        env.for_range(first, n, 2 * ROWS, |env, t| {
            let x = env.at(at.x, t, product.x_stride);
            let raw = env.at(at.raw, t, product.raw_bytes());
            let at = At { x, raw, ..at };
            let left = env.b.sub(n, t);
            let one = env.b.index(ROWS);
            let two = env.b.cmp(Cond::Gt, left, one);
            let most = env.b.index(2 * ROWS);
            let rows = env.b.min(left, most);
            env.if_else(
                two,
                |env| self.rows(env, product, at, (2 * ROWS, rows)),
                |env| self.rows(env, product, at, (ROWS, rows)),
            );
        });
    }

    /// Up to `most` rows, `rows` of them (i64).
    fn rows(&self, env: &mut Env, product: &Product, at: At, (most, rows): (usize, Val)) {
        let tiles = |panels: usize| Tiles {
            kind: self.kind,
            most_rows: most as u32,
            panels: panels as u32,
            blocks: self.blocks as u32,
            x_stride: product.x_stride as u32,
            panel_stride: self.panel_stride as u32,
            sum_stride: product.raw_bytes() as u32,
        };
        let whole = self.panels / 2 * 2;
        env.for_const(whole, 2, |env, panel| {
            let w = env.at(at.w, panel, self.panel_stride);
            let raw = env.at(at.raw, panel, VECTOR_BYTES);
            env.b.tiles(tiles(2), (at.x, w, raw), rows);
        });
        if whole < self.panels {
            let w = env.b.ptr_add_const(at.w, whole * self.panel_stride);
            let raw = env.b.ptr_add_const(at.raw, whole * VECTOR_BYTES);
            env.b.tiles(tiles(1), (at.x, w, raw), rows);
        }
    }
}

/// Least rows that go through tiles: all of a step's, but not a single one.
pub(super) const MATRIX_ROWS: usize = 2;
/// The tiles take any number of rows; where blocks of k are left over, one row with two panels.
pub(super) const ANY_ROWS: [Tile; 1] = [Tile { tokens: 1, panels: 2 }];

/// A product of bf16 that sums as tiles do.
pub(super) struct TileProduct<'a> {
    /// The product.
    pub product: &'a Product,
}

impl TileProduct<'_> {
    /// Rows `0..n`.
    pub(super) fn emit(&self, env: &mut Env, s: &Schedule, at: At, n: Val) {
        let cut = Cut::all(env, if s.matrix { &ANY_ROWS } else { &[] }, MATRIX_ROWS, n);
        if s.matrix {
            self.gemm(env, s, at, cut.rest.0);
        }
        let row = self.product.one_row(s);
        self.product.gemv(env, row, at, cut.rest, |env, tile, at| self.gemv(env, s, tile.panels, at));
    }

    fn blocks(&self) -> usize {
        self.product.k / (2 * WORDS)
    }

    /// Words of the last block, if it is not whole.
    fn rest(&self) -> usize {
        self.product.k.div_ceil(2) % WORDS
    }

    fn panel_bytes(&self) -> usize {
        self.product.format.panel_bytes(self.product.k)
    }

    /// Rows `0..n`, some blocks after another.
    fn gemm(&self, env: &mut Env, s: &Schedule, at: At, n: Val) {
        let zero = env.b.float(FLOATS, 0.0);
        let first = env.b.index(0);
        self.product.clear(env, at.raw, (first, n), zero);
        let most = s.gemm_k_block / (2 * WORDS);
        let whole = self.blocks() / most * most;
        env.for_const(whole, most, |env, block| self.some_blocks(env, at, n, (block, most)));
        if whole < self.blocks() {
            let block = env.b.index(whole);
            self.some_blocks(env, at, n, (block, self.blocks() - whole));
        }
        if self.rest() > 0 {
            env.for_range(first, n, 1, |env, t| {
                let x = env.at(at.x, t, self.product.x_stride);
                let raw = env.at(at.raw, t, self.product.raw_bytes());
                self.last_words(env, At { x, raw, ..at });
            });
        }
    }

    /// Blocks `first..first + blocks` of rows `0..n`.
    fn some_blocks(&self, env: &mut Env, at: At, n: Val, (first, blocks): (Val, usize)) {
        let x = env.at(at.x, first, BLOCK_BYTES);
        let w = env.at(at.w, first, PANEL_BLOCK);
        let kind = TileKind::Bf16;
        let some = TileBlocks { kind, blocks, panels: self.product.panels, panel_stride: self.panel_bytes() };
        some.emit(env, self.product, At { x, w, ..at }, n);
    }

    /// The last words of one row with all panels.
    fn last_words(&self, env: &mut Env, at: At) {
        let block = env.b.index(self.blocks());
        env.for_const(self.product.panels, 1, |env, panel| {
            let w = env.at(at.w, panel, self.panel_bytes());
            let raw = env.at(at.raw, panel, VECTOR_BYTES);
            let sum = env.b.load(FLOATS, raw, 0);
            let sum = self.block(env, At { w, ..at }, (block, self.rest()), &[sum], None);
            env.b.store(sum[0], raw, 0);
        });
    }

    /// One row with `streams` panels.
    fn gemv(&self, env: &mut Env, s: &Schedule, streams: usize, at: At) {
        let (panel_bytes, steps) = (self.panel_bytes(), self.blocks());
        let ahead = PanelAhead { panel_bytes, steps, panels: streams, streams: s.float_gemv, whole: false };
        let mut sums = vec![env.b.float(FLOATS, 0.0); streams];
        for ((first, end), next) in ahead.parts(1).into_iter().filter(|(blocks, _)| blocks.0 < blocks.1) {
            let (lo, hi, one) = (env.b.index(first), env.b.index(end), env.b.index(1));
            let next = next.map(|ask| ask.ahead);
            sums = env
                .for_carried((lo, hi, one), &sums, |env, block, sums| self.block(env, at, (block, WORDS), sums, next));
        }
        if self.rest() > 0 {
            let block = env.b.index(self.blocks());
            sums = self.block(env, at, (block, self.rest()), &sums, None);
        }
        for (p, v) in sums.iter().enumerate() {
            env.b.store(*v, at.raw, (p * VECTOR_BYTES) as i32);
        }
    }

    /// The first `words` words of block `block` (i64) of one row, added to the sums of some panels; asks for what
    /// comes next.
    fn block(
        &self,
        env: &mut Env,
        at: At,
        (block, words): (Val, usize),
        sums: &[Val],
        ahead: Option<Ahead>,
    ) -> Vec<Val> {
        let x = env.at(at.x, block, BLOCK_BYTES);
        let w = env.at(at.w, block, PANEL_BLOCK);
        let zero = env.b.float(FLOATS, 0.0);
        let masks = [0xffff, -0x1_0000].map(|mask| env.b.int(WORDS_TY, mask));
        let mut halves = vec![[zero; 2]; sums.len()];
        for word in 0..words {
            let pair = env.b.load_with(Ty::I32, x, (4 * word) as i32, 4, Hint::None);
            let pair = env.b.splat(pair, LANES);
            let xs = masks.map(|mask| env.b.and(pair, mask));
            for (p, sums) in halves.iter_mut().enumerate() {
                let panel = env.b.ptr_add_const(w, p * self.panel_bytes() + word * VECTOR_BYTES);
                if let Some(ahead) = ahead {
                    ahead.emit(env, panel);
                }
                let w = env.b.load(WORDS_TY, panel, 0);
                sums.iter_mut().zip(xs).for_each(|(sum, x)| *sum = env.b.dot2_bf16(*sum, w, x));
            }
        }
        let add = |(sum, [low, high]): (&Val, [Val; 2])| {
            let both = env.b.add(low, high);
            env.b.add(*sum, both)
        };
        sums.iter().zip(halves).map(add).collect()
    }
}
