//! The product of rows of floats with weights whose codes stand for floats.
//!
//! A weight is decoded to the f32 that it means, its scale included, and multiplied as such: the sums
//! have the bits that the same weights in f32 would give. A GEMM decodes some k of all panels for all its rows,
//! and is then the product of weights in f32; so does a GEMV of values that are looked up byte by byte, panel by panel.
//! Other GEMVs decode a step of k when they need it.

use super::panel_ahead::{Ask, PanelAhead};
use super::product::{At, CodedWeights, Cut, GemmBlocks, Product, VECTOR_BYTES};
use crate::env::{Env, Place};
use crate::formats::WeightFormat;
use crate::formats::float_codes::{self, FloatCodes, QUAD, STEP};
use crate::formats::quant::QuantLayout;
use crate::kir::{Cond, Elem, Ty, Val};
use crate::layout::LANES;
use crate::schedule::{Schedule, Tile};
use llmc_ir::quant::Scheme;

const FLOATS: Ty = Ty::vector(Elem::F32, LANES);

/// Such a product under construction.
pub(super) struct CodedProduct<'a> {
    product: &'a Product,
    codes: FloatCodes,
    /// Own scratch for decoded weights.
    decoded: Val,
}

impl<'a> CodedProduct<'a> {
    /// The product of these weights.
    pub(super) fn new(
        env: &mut Env,
        s: &Schedule,
        product: &'a Product,
        (scheme, weights): (Scheme, CodedWeights),
    ) -> CodedProduct<'a> {
        let table = weights.table.map(|offset| env.ptr(Place::Weights(offset)));
        let levels = table.filter(|_| s.lookup).map(|table| float_codes::levels(&mut env.b, table));
        let layout = QuantLayout { scheme, k: product.k };
        CodedProduct { product, codes: FloatCodes { layout, table, levels }, decoded: env.ptr(weights.codes) }
    }

    fn panel_bytes(&self) -> usize {
        self.codes.layout.panel_bytes()
    }

    /// Emits the product of rows, cut into tiles and what is left.
    pub(super) fn emit(&self, env: &mut Env, s: &Schedule, at: At, cut: &Cut) {
        self.gemm(env, s, at, cut);
        self.product.gemv(env, self.product.one_row(s), at, cut.rest, |env, Tile { panels, .. }, at| {
            let part = Product { panels, ..*self.product };
            CodedProduct { product: &part, ..*self }.row(env, s, at);
        });
    }

    /// One row with all panels of the product. Where looking values up takes many registers, they are decoded
    /// first, as for a GEMM.
    fn row(&self, env: &mut Env, s: &Schedule, at: At) {
        if self.codes.table.is_none() || self.codes.levels.is_some() {
            return self.gemv(env, s, self.product.panels, at);
        }
        let (none, one) = (env.b.index(0), env.b.index(1));
        let tile = Tile { tokens: 1, panels: self.product.panels };
        self.gemm(env, s, at, &Cut { tiles: vec![(tile, (none, one))], rest: (one, one) });
    }

    /// How panels are asked for that are read together.
    fn ahead(&self, s: &Schedule, panels: usize) -> PanelAhead {
        let (panel_bytes, streams) = (self.panel_bytes(), s.streams(self.product.format));
        PanelAhead { panel_bytes, steps: self.product.k / STEP, panels, streams, whole: true }
    }

    /// One row with `streams` panels.
    fn gemv(&self, env: &mut Env, s: &Schedule, streams: usize, at: At) {
        let ahead = self.ahead(s, streams);
        let zero = env.b.float(FLOATS, 0.0);
        let mut sums = vec![zero; streams];
        for (steps, ask) in ahead.parts(1) {
            sums = self.gemv_steps(env, at, steps, &sums, ask);
        }
        let rest = self.product.k % STEP;
        if rest > 0 {
            let step = env.b.index(ahead.steps);
            sums = self.gemv_step(env, at, (step, rest), &sums, None);
        }
        for (p, v) in sums.iter().enumerate() {
            env.b.store(*v, at.raw, (p * VECTOR_BYTES) as i32);
        }
    }

    /// Steps `first..end`.
    fn gemv_steps(
        &self,
        env: &mut Env,
        at: At,
        (first, end): (usize, usize),
        init: &[Val],
        ask: Option<Ask>,
    ) -> Vec<Val> {
        if first == end {
            return init.to_vec();
        }
        let (lo, hi, one) = (env.b.index(first), env.b.index(end), env.b.index(1));
        env.for_carried((lo, hi, one), init, |env, step, acc| self.gemv_step(env, at, (step, STEP), acc, ask))
    }

    /// The first `len` elements of step `step` (i64) of one row.
    fn gemv_step(&self, env: &mut Env, at: At, (step, len): (Val, usize), sums: &[Val], ask: Option<Ask>) -> Vec<Val> {
        let mac = self.product.mac;
        let xs = env.at(at.x, step, STEP * mac.row_elem_bytes());
        let panels: Vec<Val> = (0..sums.len()).map(|p| env.b.ptr_add_const(at.w, p * self.panel_bytes())).collect();
        let mut sums = sums.to_vec();
        for half in 0..len.div_ceil(QUAD) {
            let len = (len - half * QUAD).min(QUAD);
            for (panel, acc) in panels.iter().zip(&mut sums) {
                if let (0, Some(ask)) = (half, ask) {
                    ask.emit(env, *panel, step);
                }
                let weights = self.decode(env, *panel, step, half);
                for (k, w) in weights.iter().take(len).enumerate() {
                    let x = mac.input(env, xs, half * QUAD + k, 0);
                    *acc = mac.emit(env, *w, x, *acc);
                }
            }
        }
        sums
    }

    fn step_at(&self, env: &mut Env, panel: Val, step: Val) -> Val {
        let codes = env.b.ptr_add_const(panel, self.codes.layout.codes());
        env.at(codes, step, self.codes.step_bytes())
    }

    /// The weights of half of step `step` (i64) of a panel.
    fn decode(&self, env: &mut Env, panel: Val, step: Val, half: usize) -> Vec<Val> {
        let scales = self.codes.scales(&mut env.b, panel, step);
        let at = self.step_at(env, panel, step);
        self.codes.emit(&mut env.b, at, half, scales)
    }

    /// Rows in tiles, some k after another, which leave the sums so far in `raw`.
    fn gemm(&self, env: &mut Env, s: &Schedule, at: At, cut: &Cut) {
        let most = Product::decoded_k(s);
        let (whole, rest) = (self.product.k / most * most, self.product.k % most);
        let zero = env.b.float(FLOATS, 0.0);
        self.product.clear(env, at.raw, cut.tiled(), zero);
        env.for_const(whole, most, |env, k0| self.chunk(env, at, cut, (k0, most)));
        if rest > 0 {
            let k0 = env.b.index(whole);
            self.chunk(env, at, cut, (k0, rest));
        }
    }

    /// `len` elements of k from `k0` (i64) on.
    fn chunk(&self, env: &mut Env, at: At, cut: &Cut, (k0, len): (Val, usize)) {
        let (first, end) = cut.tiled();
        let some = env.b.cmp(Cond::Lt, first, end);
        env.if_then(some, |env| self.decode_chunk(env, at.w, (k0, len)));
        let product = Product { format: WeightFormat::F32, k: len, coded: None, ..*self.product };
        let x = env.at(at.x, k0, self.product.mac.row_elem_bytes());
        let none = env.b.index(0);
        for (tile, rows) in &cut.tiles {
            let at = At { x, w: self.decoded, raw: at.raw };
            GemmBlocks { product: &product, tile: *tile, at, rows: *rows, fresh: false }.emit(env, none, len);
        }
    }

    /// Decodes a chunk of every panel into scratch, as panels in f32.
    fn decode_chunk(&self, env: &mut Env, w: Val, (k0, len): (Val, usize)) {
        let size = env.b.index(STEP);
        let first = env.b.div(k0, size);
        env.for_const(self.product.panels, 1, |env, p| {
            let panel = env.at(w, p, self.panel_bytes());
            let to = env.at(self.decoded, p, len * VECTOR_BYTES);
            env.for_const(len / STEP, 1, |env, i| {
                let to = env.at(to, i, STEP * VECTOR_BYTES);
                self.decode_step(env, panel, (first, i), to, STEP);
            });
            if len % STEP > 0 {
                let (i, to) = (env.b.index(len / STEP), env.b.ptr_add_const(to, len / STEP * STEP * VECTOR_BYTES));
                self.decode_step(env, panel, (first, i), to, len % STEP);
            }
        });
    }

    /// Stores the first `len` vectors of step `i` (i64) from `first` on.
    fn decode_step(&self, env: &mut Env, panel: Val, (first, i): (Val, Val), to: Val, len: usize) {
        let step = env.b.add(first, i);
        for half in 0..len.div_ceil(QUAD) {
            let weights = self.decode(env, panel, step, half);
            let wanted = (half * QUAD..len).zip(&weights);
            wanted.for_each(|(k, v)| env.b.store(*v, to, (k * VECTOR_BYTES) as i32));
        }
    }
}
