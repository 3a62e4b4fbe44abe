//! The warps' sums of tiles, added in the order of warps, and what happens to the results.

use super::{At, CHUNK, Form, Gemv};
use crate::env::Env;
use crate::kir::{Cond, Ty, Val};
use crate::layout::PANEL;
use crate::ops::epilogue::{AtHand, RawRow};
use crate::ops::linear::Segment;

impl Gemv<'_> {
    /// Adds the warps' sums of tiles `first..first + count`, a warp for each, and finishes or keeps them.
    pub(super) fn sum(&self, env: &mut Env, at: At, (index, s): (usize, &Segment), first: Val, count: Val) {
        let step = env.b.index(self.warps);
        let raw = env.b.ptr_add_const(at.partial, CHUNK * self.tile_bytes(self.tokens));
        env.for_step(env.group.warp, count, step, |env, slot| {
            let tile = env.b.add(first, slot);
            let partial = env.at(at.partial, slot, self.tile_bytes(self.tokens));
            let raw = env.at(raw, slot, self.tokens * self.rows() * 4);
            let zero = env.b.index(0);
            env.for_range(zero, at.tokens.1, 1, |env, t| {
                let token = env.b.add(at.tokens.0, t);
                let raw = env.at(raw, t, self.rows() * 4);
                let from = env.at(partial, t, self.staged.planes() * self.rows() * 4);
                let x = env.at(at.x, t, self.staged.planes() * self.staged.stride(self.padded()));
                if !self.waits(s) {
                    self.add_up(env, from, raw, (s, tile, x));
                    self.finish_part(env, s, (tile, token), raw, at.at_hand);
                } else {
                    let to = self.gathered(env, (index, s), (tile, token));
                    self.add_up(env, from, to, (s, tile, x));
                }
            });
        });
    }

    /// Adds the warps' sums of one token, whose staged row is at `x`.
    fn add_up(&self, env: &mut Env, from: Val, to: Val, (s, tile, x): (&Segment, Val, Val)) {
        let stride = self.tile_bytes(self.tokens) / self.warps;
        env.elements(self.rows(), |env, e, _| {
            let from = env.at(from, e, 4);
            let elem = self.form.sum_elem();
            let load = |env: &mut Env, warp: usize, plane: usize| {
                env.b.load(Ty::scalar(elem), from, (warp * stride + plane * self.rows() * 4) as i32)
            };
            let mut total = None;
            for plane in 0..self.staged.planes() {
                for warp in 0..self.warps {
                    let v = load(env, warp, plane);
                    total = Some(total.map_or(v, |total| env.b.add(total, v)));
                }
            }
            let total = total.expect("a group has warps");
            let total = match &self.form {
                Form::Integer(f) => {
                    let row = self.row_of(env, s, tile, e);
                    f.finish(env, total, row, x)
                }
                Form::Coded(f) => {
                    let row = self.row_of(env, s, tile, e);
                    f.finish(env, total, row)
                }
                _ => total,
            };
            let to = env.at(to, e, 4);
            env.b.store(total, to, 0);
        });
    }

    /// The panel of row `e` (i64) of a tile, and the row's number in it.
    fn row_of(&self, env: &mut Env, s: &Segment, tile: Val, e: Val) -> (Val, Val) {
        let (first, second) = self.panels_of(env, s, tile);
        let Some(second) = second else { return (first, e) };
        let rows = env.b.index(PANEL);
        let upper = env.b.cmp(Cond::Ge, e, rows);
        (env.b.select(upper, second, first), env.b.rem(e, rows))
    }

    fn finish_part(&self, env: &mut Env, s: &Segment, (tile, token): (Val, Val), raw: Val, at_hand: AtHand) {
        let gated = s.epilogue.is_gated();
        let tiles = s.product.panels / self.panels;
        let (unit, first, count) = match tiles {
            // A unit of one panel, of which a tile has two: columns go on from one unit to the next.
            0 => (env.b.mul_const(tile, self.panels as i64), env.b.index(0), self.rows()),
            _ => {
                let count = env.b.index(tiles);
                let (unit, part) = (env.b.div(tile, count), env.b.rem(tile, count));
                let rows = if gated || self.halves { PANEL } else { self.rows() };
                (unit, env.b.mul_const(part, rows as i64), rows)
            }
        };
        let raw = RawRow { at: raw, first: Some(first), count };
        match self.halves {
            true => s.epilogue.emit_halves(env, (unit, token), raw, at_hand),
            false => s.epilogue.emit_part(env, unit, raw, token),
        }
    }
}
