//! A warp's part of a product by multiply-adds in f32, for weights of any format whose values are floats: a thread has a
//! row of one panel and every second step of k.

use super::rows::Staged;
use crate::env::{Env, Place, WARP};
use crate::formats::WeightFormat;
use crate::formats::codes::BLOCK;
use crate::formats::float_codes::FloatCodes;
use crate::formats::quant::QuantLayout;
use crate::kir::{Cond, Ty, Val};
use crate::layout::PANEL;

/// A warp's part of a product.
#[derive(Clone, Copy, Debug)]
pub struct Scalars {
    /// Format of the weights.
    pub format: WeightFormat,
    /// Table of values in the call's weights, where the format has one.
    pub table: Option<usize>,
    /// Elements of k.
    pub k: usize,
    /// Columns, all of which are computed.
    pub columns: usize,
    /// Rows of a tile, from one column's sums to the next.
    pub rows: usize,
}

impl Scalars {
    /// Elements of k of a step.
    fn step(&self) -> usize {
        if let WeightFormat::Quant(_) = self.format { BLOCK } else { self.format.k_step() }
    }

    /// Elements of a staged row: whole steps.
    pub fn padded(&self) -> usize {
        self.k.next_multiple_of(self.step())
    }

    /// The weights of row `row` of the panel at `w` in step `step` (both i64): scalars, in order of k.
    fn weights(&self, env: &mut Env, (w, row): (Val, Val), step: Val) -> Vec<Val> {
        let WeightFormat::Quant(scheme) = self.format else {
            let at = env.at(w, step, self.format.step_bytes());
            let at = env.at(at, row, self.format.k_step() * self.format.elem_bytes());
            return self.format.emit_decode_lane(&mut env.b, at);
        };
        let table = self.table.map(|offset| env.ptr(Place::Weights(offset)));
        let codes = FloatCodes { layout: QuantLayout { scheme, k: self.k }, table, levels: None };
        let scale = codes.layout.scale_of(&mut env.b, (w, row), step);
        (0..BLOCK).map(|k| codes.element(&mut env.b, (w, row), (step, k), scale)).collect()
    }

    /// Sums of the panel at `w` over this warp's part of k with the rows of f32 at `x`, and their store as f32
    /// `[column][row]` at `to`. Columns from `columns` (i64) on repeat the last one.
    pub fn emit(&self, env: &mut Env, w: Val, x: Val, to: Val, columns: Val) {
        let half = env.b.index(PANEL);
        let (row, part) = (env.b.rem(env.group.lane, half), env.b.div(env.group.lane, half));
        let steps = self.k.div_ceil(self.step());
        let warps = env.group.warps();
        let first = env.b.mul_const(env.group.warp, 2);
        let first = env.b.add(first, part);
        let (hi, by) = (env.b.index(steps), env.b.index(2 * warps));
        let rows = self.rows(env, x, columns);
        let zero = env.b.float(Ty::F32, 0.0);
        let sums = env.for_carried((first, hi, by), &vec![zero; self.columns], |env, step, sums| {
            let weights = self.weights(env, (w, row), step);
            let mut sums = sums.to_vec();
            for (sum, x) in sums.iter_mut().zip(&rows) {
                let x = env.at(*x, step, 4 * self.step());
                for (i, w) in weights.iter().enumerate() {
                    let v = env.b.load(Ty::F32, x, 4 * i as i32);
                    *sum = env.b.fma(*w, v, *sum);
                }
            }
            sums
        });
        for (column, sum) in sums.into_iter().enumerate() {
            let other = env.b.lane_xor(sum, (WARP / 2) as u8);
            let sum = env.b.add(sum, other);
            let zero = env.b.index(0);
            let first = env.b.cmp(Cond::Eq, part, zero);
            env.if_then(first, |env| {
                let at = env.at(to, row, 4);
                env.b.store(sum, at, (column * self.rows * 4) as i32);
            });
        }
    }

    fn rows(&self, env: &mut Env, x: Val, columns: Val) -> Vec<Val> {
        let last = env.b.add_const(columns, -1);
        (0..self.columns)
            .map(|c| {
                let c = env.b.index(c);
                let c = env.b.min(c, last);
                env.at(x, c, Staged::F32.stride(self.padded()))
            })
            .collect()
    }
}
