//! The product of prepared rows with panels of weights, into raw scratch.
//!
//! Every element of the product is one chain of multiply-adds over k in ascending order, beginning
//! with zero, whatever the number of tokens: a GEMM tile takes several tokens and few panels, a
//! GEMV one token and several panels, and both leave the same bits.

use super::coded_product::CodedProduct;
use super::int_product::IntProduct;
use super::mac::Mac;
use super::panel_ahead::PanelAhead;
use super::tile_product::TileProduct;
use crate::env::{Env, Place};
use crate::formats::WeightFormat;
use crate::formats::quant::QuantLayout;
use crate::kir::{Cond, Elem, Ty, Val};
use crate::layout::{LANES, PANEL};
use crate::schedule::{Ahead, Schedule, Tile};
use llmc_abi::manifest::Unit;

/// The product of one unit: `panels` panels of weights with `k` elements per row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Format of the weights.
    pub format: WeightFormat,
    /// What multiplies them with the rows.
    pub mac: Mac,
    /// Elements per row; a multiple of the format's `k_step`.
    pub k: usize,
    /// Panels of the unit.
    pub panels: usize,
    /// Bytes from one input row to the next.
    pub x_stride: usize,
    /// Of weights in few bits.
    pub coded: Option<CodedWeights>,
}

/// What a product of weights in few bits has beside [`Product`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodedWeights {
    /// Table of a scheme that looks values up, in the call's weights.
    pub table: Option<usize>,
    /// Own scratch for weights that a GEMM decodes: [`Product::code_bytes`].
    pub codes: Place,
}

const VECTOR: Ty = Ty::vector(Elem::F32, LANES);
/// Bytes of a vector of sums.
pub(super) const VECTOR_BYTES: usize = 4 * PANEL;

/// Where a product finds its rows, its weights and its result.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub x: Val,
    pub w: Val,
    pub raw: Val,
}

/// Rows `0..n` cut into tiles of a GEMM, and what is left.
pub(super) struct Cut {
    /// Tiles with their rows, which are a multiple of the tile.
    pub tiles: Vec<(Tile, (Val, Val))>,
    /// Rows that go through GEMV.
    pub rest: (Val, Val),
}

impl Cut {
    /// Rows `first..n`, as many as possible in the first of the tiles.
    fn new(env: &mut Env, sizes: &[Tile], (mut first, n): (Val, Val)) -> Cut {
        let mut tiles = vec![];
        for tile in sizes {
            let tokens = env.b.index(tile.tokens);
            let left = env.b.sub(n, first);
            let rest = env.b.rem(left, tokens);
            let end = env.b.sub(n, rest);
            tiles.push((*tile, (first, end)));
            first = end;
        }
        Cut { tiles, rest: (first, n) }
    }

    /// All of `n` rows; of fewer than `many` none is in a tile.
    pub(super) fn all(env: &mut Env, sizes: &[Tile], many: usize, n: Val) -> Cut {
        let (least, none) = (env.b.index(many), env.b.index(0));
        let enough = env.b.cmp(Cond::Ge, n, least);
        let tiled = env.b.select(enough, n, none);
        let cut = Cut::new(env, sizes, (none, tiled));
        Cut { rest: (cut.rest.0, n), ..cut }
    }

    /// All rows in tiles.
    pub(super) fn tiled(&self) -> (Val, Val) {
        (self.tiles.first().map_or(self.rest.0, |(_, rows)| rows.0), self.rest.0)
    }
}

impl Product {
    /// Bytes of a raw row: the unit's panels one after another.
    pub fn raw_bytes(&self) -> usize {
        self.panels * VECTOR_BYTES
    }

    /// Bytes of scratch for the weights that a GEMM decodes at a time: as integers in bytes or as f32.
    pub fn code_bytes(&self, s: &Schedule) -> usize {
        match self.format {
            WeightFormat::Quant(scheme) if scheme.is_float() => self.panels * Self::decoded_k(s) * VECTOR_BYTES,
            WeightFormat::Quant(scheme) if scheme.code_bits() < 8 => self.panels * s.int_gemm_k_block * PANEL,
            _ => 0,
        }
    }

    /// Elements of k that a GEMM decodes to f32 at a time.
    pub(super) fn decoded_k(s: &Schedule) -> usize {
        s.gemm_k_block / 4
    }

    /// What is busy multiplying.
    pub fn unit(&self, s: &Schedule) -> Unit {
        match (self.mac, self.format) {
            (Mac::Fma, _) => Unit::F32,
            (Mac::Dot2Bf16, _) if s.matrix => Unit::Bf16Tiles,
            (Mac::Dot2Bf16, _) => Unit::Bf16,
            (Mac::Dot4I8, WeightFormat::Quant(scheme)) => {
                let layout = QuantLayout { scheme, k: self.k };
                if s.matrix && layout.is_row_scaled() {
                    Unit::Int8Tiles
                } else if s.halves && layout.steps_in_halves().is_some() {
                    Unit::SmallInt8
                } else {
                    Unit::Int8
                }
            }
            (Mac::Dot4I8, _) => Unit::Int8,
        }
    }

    fn panel_bytes(&self) -> usize {
        self.format.panel_bytes(self.k)
    }

    /// Emits the product of rows `0..n` at `x` with the unit's weights at `w` into `raw`.
    pub fn emit(&self, env: &mut Env, s: &Schedule, (x, w, raw): (Val, Val, Val), n: Val) {
        let at = At { x, w, raw };
        match (self.format, self.coded) {
            (WeightFormat::Quant(scheme), Some(weights)) if scheme.is_float() => {
                let (coded, cut) = (CodedProduct::new(env, s, self, (scheme, weights)), Cut::all(env, s.gemm, 1, n));
                coded.emit(env, s, at, &cut);
            }
            (WeightFormat::Quant(scheme), Some(weights)) => {
                let int = IntProduct::new(env, s, self, (scheme, weights));
                self.emit_int(env, s, &int, at, n);
            }
            _ if s.tile_sums && self.mac == Mac::Dot2Bf16 => TileProduct { product: self }.emit(env, s, at, n),
            _ => self.emit_float(env, s, at, n),
        }
    }

    fn emit_float(&self, env: &mut Env, s: &Schedule, at: At, n: Val) {
        let cut = Cut::all(env, s.gemm, 1, n);
        for (tile, rows) in &cut.tiles {
            self.gemm(env, s, *tile, at, *rows);
        }
        self.gemv(env, self.one_row(s), at, cut.rest, |env, tile, at| self.gemv_panels(env, s, tile.panels, at));
    }

    fn emit_int(&self, env: &mut Env, s: &Schedule, int: &IntProduct<'_>, at: At, n: Val) {
        let (tiles, least) = int.tiles(s);
        let cut = Cut::all(env, tiles, least, n);
        int.gemm(env, s, at, &cut);
        let mut few = Cut::new(env, s.int_gemv, cut.rest);
        few.tiles.push((self.one_row(s), few.rest));
        for (tile, rows) in few.tiles {
            self.gemv(env, tile, at, rows, |env, tile, at| int.gemv_panels(env, tile, at));
        }
        int.finish(env, at, n);
    }

    /// Rows `first..end`, a multiple of the tile: k in blocks, so that a tile of x stays in the
    /// first-level cache for all panels; partial sums wait in `raw`.
    fn gemm(&self, env: &mut Env, s: &Schedule, tile: Tile, at: At, (first, end): (Val, Val)) {
        let block = s.gemm_k_block.next_multiple_of(self.format.k_step());
        let whole = self.k / block * block;
        if whole > block {
            let zero = env.b.float(VECTOR, 0.0);
            self.clear(env, at.raw, (first, end), zero);
        }
        let (lo, hi) = (env.b.index(0), env.b.index(whole));
        let mut blocks = GemmBlocks { product: self, tile, at, rows: (first, end), fresh: whole <= block };
        if whole > 0 {
            env.for_range(lo, hi, block, |env, k0| blocks.emit(env, k0, block));
            blocks.fresh = false;
        }
        if whole < self.k {
            let k0 = env.b.index(whole);
            blocks.emit(env, k0, self.k - whole);
        }
    }

    /// Sets the sums of rows to `zero`.
    pub(super) fn clear(&self, env: &mut Env, raw: Val, (first, end): (Val, Val), zero: Val) {
        env.for_range(first, end, 1, |env, r| {
            let row = env.at(raw, r, self.raw_bytes());
            for p in 0..self.panels {
                let to = env.b.ptr_add_const(row, p * VECTOR_BYTES);
                env.b.store(zero, to, 0);
            }
        });
    }

    /// One row with as many panels as are streamed together.
    pub(super) fn one_row(&self, s: &Schedule) -> Tile {
        Tile { tokens: 1, panels: s.streams(self.format).panels }
    }

    /// Rows, a multiple of the tile's, with its panels streamed together: `each` gets the tile, of fewer panels at
    /// the end, and its places.
    pub(super) fn gemv(
        &self,
        env: &mut Env,
        tile: Tile,
        at: At,
        (first, n): (Val, Val),
        each: impl Fn(&mut Env, Tile, At),
    ) {
        env.for_range(first, n, tile.tokens, |env, t| {
            let x = env.at(at.x, t, self.x_stride);
            let raw = env.at(at.raw, t, self.raw_bytes());
            for p in (0..self.panels).step_by(tile.panels) {
                let panels = tile.panels.min(self.panels - p);
                let w = env.b.ptr_add_const(at.w, p * self.panel_bytes());
                let raw = env.b.ptr_add_const(raw, p * VECTOR_BYTES);
                each(env, Tile { panels, ..tile }, At { x, w, raw });
            }
        });
    }

    /// One row with `streams` panels.
    fn gemv_panels(&self, env: &mut Env, s: &Schedule, streams: usize, at: At) {
        let ahead = PanelAhead {
            panel_bytes: self.panel_bytes(),
            steps: self.k / self.format.k_step(),
            panels: streams,
            streams: s.streams(self.format),
            whole: false,
        };
        let mut sums = vec![env.b.float(VECTOR, 0.0); streams];
        for (steps, next) in ahead.parts(1) {
            sums = self.gemv_steps(env, at, steps, &sums, next.map(|ask| ask.ahead));
        }
        for (p, v) in sums.iter().enumerate() {
            env.b.store(*v, at.raw, (p * VECTOR_BYTES) as i32);
        }
    }

    /// Steps `first..end`, each asking for what comes next in every panel.
    fn gemv_steps(&self, env: &mut Env, at: At, steps: (usize, usize), init: &[Val], ahead: Option<Ahead>) -> Vec<Val> {
        if steps.0 == steps.1 {
            return init.to_vec();
        }
        self.steps(env, steps, at, init, |env, xs, ws, acc| {
            let macs = self.mac.per_step(self.format);
            let inputs: Vec<Val> = (0..macs).map(|i| self.mac.input(env, xs, i, 0)).collect();
            let sum = |(p, a): (usize, &Val)| {
                let panel = env.b.ptr_add_const(ws, p * self.panel_bytes());
                if let Some(ahead) = ahead {
                    ahead.emit(env, panel);
                }
                let weights = self.mac.weights(env, self.format, panel);
                weights.iter().zip(&inputs).fold(*a, |a, (w, x)| self.mac.emit(env, *w, *x, a))
            };
            acc.iter().enumerate().map(sum).collect()
        })
    }

    /// A loop over some steps; the body gets the addresses of the step in the first row and in the first
    /// panel.
    fn steps(
        &self,
        env: &mut Env,
        (first, end): (usize, usize),
        at: At,
        init: &[Val],
        body: impl FnOnce(&mut Env, Val, Val, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        let (lo, hi, one) = (env.b.index(first), env.b.index(end), env.b.index(1));
        env.for_carried((lo, hi, one), init, |env, step, acc| {
            let xs = env.at(at.x, step, self.format.k_step() * self.mac.row_elem_bytes());
            let ws = env.at(at.w, step, self.format.step_bytes());
            body(env, xs, ws, acc)
        })
    }
}

/// The blocks of k that a GEMM takes one after another.
pub(super) struct GemmBlocks<'a> {
    /// The product, in a float format.
    pub product: &'a Product,
    /// The tile.
    pub tile: Tile,
    /// Where all its rows, its weights and its result are.
    pub at: At,
    /// The rows that are cut into such tiles.
    pub rows: (Val, Val),
    /// Whether the sums begin in the block that is emitted, and nothing waits in `raw`.
    pub fresh: bool,
}

impl GemmBlocks<'_> {
    /// All tiles over `k_len` elements from `k0`.
    pub(super) fn emit(&self, env: &mut Env, k0: Val, k_len: usize) {
        let p = self.product;
        let x = env.at(self.at.x, k0, p.mac.row_elem_bytes());
        let w = env.at(self.at.w, k0, p.format.step_bytes() / p.format.k_step());
        env.for_range(self.rows.0, self.rows.1, self.tile.tokens, |env, t| {
            let x = env.at(x, t, p.x_stride);
            let raw = env.at(self.at.raw, t, p.raw_bytes());
            let whole = p.panels / self.tile.panels * self.tile.panels;
            env.for_const(whole, self.tile.panels, |env, panel| {
                let w = env.at(w, panel, p.panel_bytes());
                let raw = env.at(raw, panel, VECTOR_BYTES);
                self.tile(env, self.tile.panels, At { x, w, raw }, k_len);
            });
            if whole < p.panels {
                let w = env.b.ptr_add_const(w, whole * p.panel_bytes());
                let raw = env.b.ptr_add_const(raw, whole * VECTOR_BYTES);
                self.tile(env, p.panels - whole, At { x, w, raw }, k_len);
            }
        });
    }

    /// The tile's tokens with `panels` panels.
    fn tile(&self, env: &mut Env, panels: usize, at: At, k_len: usize) {
        let (p, tokens) = (self.product, self.tile.tokens);
        let offset = |i: usize| (i / panels * p.raw_bytes() + i % panels * VECTOR_BYTES) as i32;
        let init: Vec<Val> = (0..tokens * panels)
            .map(|i| if self.fresh { env.b.float(VECTOR, 0.0) } else { env.b.load(VECTOR, at.raw, offset(i)) })
            .collect();
        let steps = (0, k_len / p.format.k_step());
        let sums = p.steps(env, steps, at, &init, |env, xs, ws, acc| self.step(env, panels, xs, ws, acc));
        for (i, v) in sums.iter().enumerate() {
            env.b.store(*v, at.raw, offset(i));
        }
    }

    fn step(&self, env: &mut Env, panels: usize, xs: Val, ws: Val, acc: &[Val]) -> Vec<Val> {
        let p = self.product;
        let mut acc = acc.to_vec();
        for i in 0..p.mac.per_step(p.format) {
            let weights: Vec<Val> = (0..panels)
                .map(|panel| {
                    let ws = env.b.ptr_add_const(ws, panel * p.panel_bytes());
                    p.mac.weight(env, p.format, ws, i)
                })
                .collect();
            for t in 0..self.tile.tokens {
                let x = p.mac.input(env, xs, i, t * p.x_stride);
                for (panel, w) in weights.iter().enumerate() {
                    let a = &mut acc[t * panels + panel];
                    *a = p.mac.emit(env, *w, x, *a);
                }
            }
        }
        acc
    }
}
