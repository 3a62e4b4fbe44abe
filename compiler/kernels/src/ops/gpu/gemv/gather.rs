//! Units whose epilogue needs all their rows: they wait in memory, and the worker that completes one finishes it.

use super::{Gemv, Range};
use crate::env::{Env, Place};
use crate::kir::{Cast, Cond, Ty, Val};
use crate::layout::PANEL;
use crate::ops::linear::Segment;

impl Gemv<'_> {
    pub(super) fn unit_bytes(s: &Segment) -> usize {
        s.product.panels * PANEL * 4
    }

    /// Where a segment's units wait.
    pub(super) fn gather(&self, env: &mut Env, index: usize) -> Val {
        let g = self.kernel.gather.expect("units that wait have a place");
        let before: usize = self.kernel.segments[..index].iter().map(|s| s.units * Self::unit_bytes(s)).sum();
        let base = env.ptr(g.rows);
        let n = env.count(self.kernel.count);
        env.at(base, n, before)
    }

    /// Where a tile's sums of one token wait.
    pub(super) fn gathered(&self, env: &mut Env, (index, s): (usize, &Segment), (tile, token): (Val, Val)) -> Val {
        let base = self.gather(env, index);
        let tiles = env.b.index(s.product.panels / self.panels);
        let (unit, part) = (env.b.div(tile, tiles), env.b.rem(tile, tiles));
        let row = self.unit_row(env, base, s, (unit, token));
        env.at(row, part, self.rows() * 4)
    }

    pub(super) fn unit_row(&self, env: &mut Env, base: Val, s: &Segment, (unit, token): (Val, Val)) -> Val {
        let n = env.count(self.kernel.count);
        let row = env.b.mul(unit, n);
        let row = env.b.add(row, token);
        env.at(base, row, Self::unit_bytes(s))
    }

    /// Finishes the units of a segment of which this worker has computed the last part.
    pub(super) fn finish(&self, env: &mut Env, (index, s): (usize, &Segment), range: Range, n: Val) {
        let g = self.kernel.gather.expect("units that wait have a place");
        let before: usize = self.kernel.segments[..index].iter().map(|s| s.units).sum();
        let tiles = s.product.panels / self.panels;
        let size = env.b.index(tiles);
        let first = env.b.div(range.start, size);
        let end = env.b.add_const(range.end, tiles as i64 - 1);
        let end = env.b.div(end, size);
        let some = env.b.cmp(Cond::Lt, range.start, range.end);
        let end = env.b.select(some, end, first);
        let base = self.gather(env, index);
        env.for_range(first, end, 1, |env, unit| {
            let (lo, hi) = (env.b.mul(unit, size), env.b.add_const(unit, 1));
            let hi = env.b.mul(hi, size);
            let (lo, hi) = (env.b.max(lo, range.start), env.b.min(hi, range.end));
            let add = env.b.sub(hi, lo);
            let add = env.b.cast(Cast::Trunc, add, Ty::I32);
            let counter = env.ptr(Place::Counter(g.counters + before));
            let counter = env.at(counter, unit, 4);
            let last = env.b.last_of(counter, add, tiles);
            env.if_then(last, |env| {
                let step = env.b.index(self.warps);
                env.for_step(env.group.warp, n, step, |env, t| {
                    let raw = self.unit_row(env, base, s, (unit, t));
                    s.epilogue.emit_row(env, unit, raw, t);
                });
            });
        });
    }
}
