//! The product of prepared rows with panels of weights, into raw scratch.
//!
//! Every element of the product is one chain of fused multiply-adds over k in ascending order,
//! beginning with zero, whatever the number of tokens: a GEMM tile takes several tokens and one
//! panel, a GEMV one token and several panels, and both leave the same bits.

use crate::env::Env;
use crate::formats::WeightFormat;
use crate::kir::{Elem, Hint, Ty, Val};
use crate::layout::{LANES, PANEL};
use crate::schedule::Schedule;

/// The product of one unit: `panels` panels of weights with `k` elements per row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Format of the weights.
    pub format: WeightFormat,
    /// Elements per row; a multiple of the format's `k_step`.
    pub k: usize,
    /// Panels of the unit.
    pub panels: usize,
    /// Elements from one input row to the next.
    pub x_stride: usize,
}

const VECTOR: Ty = Ty::vector(Elem::F32, LANES);
const VECTOR_BYTES: usize = 4 * PANEL;

impl Product {
    /// Elements of a raw row: the unit's panels one after another.
    pub fn raw_stride(&self) -> usize {
        self.panels * PANEL
    }

    fn panel_bytes(&self) -> usize {
        self.format.panel_bytes(self.k)
    }

    /// Emits the product of rows `0..n` at `x` with the unit's weights at `w` into `raw`.
    pub fn emit(&self, env: &mut Env, s: &Schedule, (x, w, raw): (Val, Val, Val), n: Val) {
        let tile = env.b.index(s.gemm_tokens);
        let rest = env.b.rem(n, tile);
        let full = env.b.sub(n, rest);
        self.gemm(env, s, (x, w, raw), full);
        self.gemv(env, s, (x, w, raw), (full, n));
    }

    /// Rows `0..full`, a multiple of the tile: k in blocks, so that a tile of x stays in the
    /// first-level cache for all panels; partial sums wait in `raw`.
    fn gemm(&self, env: &mut Env, s: &Schedule, at: (Val, Val, Val), full: Val) {
        self.clear(env, at.2, full);
        let block = s.gemm_k_block.next_multiple_of(self.format.k_step());
        let whole = self.k / block * block;
        let (lo, hi) = (env.b.index(0), env.b.index(whole));
        if whole > 0 {
            env.for_range(lo, hi, block, |env, k0| self.gemm_block(env, s, at, full, (k0, block)));
        }
        if whole < self.k {
            let k0 = env.b.index(whole);
            self.gemm_block(env, s, at, full, (k0, self.k - whole));
        }
    }

    fn clear(&self, env: &mut Env, raw: Val, rows: Val) {
        let zero = env.b.float(VECTOR, 0.0);
        let lo = env.b.index(0);
        env.for_range(lo, rows, 1, |env, r| {
            let row = env.at(raw, r, self.raw_stride() * 4);
            for p in 0..self.panels {
                let to = env.b.ptr_add_const(row, p * VECTOR_BYTES);
                env.b.store(zero, to, 0);
            }
        });
    }

    fn gemm_block(
        &self,
        env: &mut Env,
        s: &Schedule,
        (x, w, raw): (Val, Val, Val),
        full: Val,
        (k0, k_len): (Val, usize),
    ) {
        let x = env.at(x, k0, 4);
        let w = env.at(w, k0, self.format.step_bytes() / self.format.k_step());
        let lo = env.b.index(0);
        env.for_range(lo, full, s.gemm_tokens, |env, t| {
            let x = env.at(x, t, self.x_stride * 4);
            let raw = env.at(raw, t, self.raw_stride() * 4);
            env.for_const(self.panels, 1, |env, p| {
                let w = env.at(w, p, self.panel_bytes());
                let raw = env.at(raw, p, VECTOR_BYTES);
                self.gemm_tile(env, s.gemm_tokens, (x, w, raw), k_len);
            });
        });
    }

    /// `tokens` rows with one panel over `k_len` elements of k.
    fn gemm_tile(&self, env: &mut Env, tokens: usize, (x, w, raw): (Val, Val, Val), k_len: usize) {
        let raw_offset = |t: usize| (t * self.raw_stride() * 4) as i32;
        let init: Vec<Val> = (0..tokens).map(|t| env.b.load(VECTOR, raw, raw_offset(t))).collect();
        let sums = self.steps(env, k_len, &init, |env, step, acc| {
            let k = env.b.mul_const(step, self.format.k_step() as i64);
            let xs = env.at(x, k, 4);
            let ws = env.at(w, step, self.format.step_bytes());
            let mut acc = acc.to_vec();
            for kk in 0..self.format.k_step() {
                let wv = self.format.emit_decode_one(&mut env.b, ws, kk);
                for (t, a) in acc.iter_mut().enumerate() {
                    let v = env.b.load(Ty::F32, xs, ((t * self.x_stride + kk) * 4) as i32);
                    let v = env.b.splat(v, LANES);
                    *a = env.b.fma(wv, v, *a);
                }
            }
            acc
        });
        for (t, v) in sums.iter().enumerate() {
            env.b.store(*v, raw, raw_offset(t));
        }
    }

    /// Rows `first..n`, one at a time, `gemv_panels` panels streamed together.
    fn gemv(&self, env: &mut Env, s: &Schedule, (x, w, raw): (Val, Val, Val), (first, n): (Val, Val)) {
        env.for_range(first, n, 1, |env, t| {
            let x = env.at(x, t, self.x_stride * 4);
            let raw = env.at(raw, t, self.raw_stride() * 4);
            let mut p = 0;
            while p < self.panels {
                let streams = s.gemv_panels.min(self.panels - p);
                let w = env.b.ptr_add_const(w, p * self.panel_bytes());
                let raw = env.b.ptr_add_const(raw, p * VECTOR_BYTES);
                self.gemv_panels(env, streams, (x, w, raw));
                p += streams;
            }
        });
    }

    fn gemv_panels(&self, env: &mut Env, streams: usize, (x, w, raw): (Val, Val, Val)) {
        let zero = env.b.float(VECTOR, 0.0);
        let sums = self.steps(env, self.k, &vec![zero; streams], |env, step, acc| {
            let k = env.b.mul_const(step, self.format.k_step() as i64);
            let xs = env.at(x, k, 4);
            let ws = env.at(w, step, self.format.step_bytes());
            let inputs: Vec<Val> = (0..self.format.k_step())
                .map(|kk| {
                    let v = env.b.load_with(Ty::F32, xs, 4 * kk as i32, 4, Hint::None);
                    env.b.splat(v, LANES)
                })
                .collect();
            acc.iter()
                .enumerate()
                .map(|(p, a)| {
                    let panel = env.b.ptr_add_const(ws, p * self.panel_bytes());
                    let decoded = self.format.emit_decode(&mut env.b, panel, 0);
                    decoded.iter().zip(&inputs).fold(*a, |a, (wv, v)| env.b.fma(*wv, *v, a))
                })
                .collect()
        });
        for (p, v) in sums.iter().enumerate() {
            env.b.store(*v, raw, (p * VECTOR_BYTES) as i32);
        }
    }

    /// A loop over the steps of `k_len` elements.
    fn steps(
        &self,
        env: &mut Env,
        k_len: usize,
        init: &[Val],
        body: impl FnOnce(&mut Env, Val, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        let (lo, hi, one) = (env.b.index(0), env.b.index(k_len / self.format.k_step()), env.b.index(1));
        env.for_carried((lo, hi, one), init, body)
    }
}
