//! The rows of weights that a thread has of a pair of panels.

use super::{Shares, Tile, thread_rows};
use crate::env::{Env, Place};
use crate::formats::pairs::PairAt;
use crate::formats::quant::QuantLayout;
use crate::kir::{Elem, Ty, Val};
use crate::ops::gpu::fragments::thread_of;
use crate::ops::linear::Segment;

/// How many there are.
pub(super) const ROWS: u16 = 4;

/// They, and the thread's part of a block.
pub(super) fn thread_place(env: &mut Env) -> PairAt {
    let ((_, quad), (_, part)) = (thread_rows(env), thread_of(env));
    PairAt { row: env.b.mul_const(quad, ROWS.into()), part }
}

/// Address of the panel that they are in, or of the last one.
pub(super) fn panel_of(env: &mut Env, (s, tile, shares): (&Segment, Tile, Shares), pair: usize) -> Val {
    let ((part, _), (panel, _)) = (shares.place(env), thread_rows(env));
    let first = env.b.mul_const(part, shares.panels() as i64);
    let panel = env.b.add(first, panel);
    let panel = env.b.add_const(panel, 2 * pair as i64);
    let panel = env.b.add(tile.panel, panel);
    let last = env.b.index(s.units * s.product.panels - 1);
    let panel = env.b.min(panel, last);
    let base = env.ptr(Place::Weights(s.weight));
    env.at(base, panel, s.product.format.panel_bytes(s.product.k))
}

/// Their scales, where rows have one.
pub(super) fn panel_scales(
    env: &mut Env,
    of: (&Segment, Tile, Shares),
    layout: &QuantLayout,
    pair: usize,
) -> Option<Val> {
    let (panel, PairAt { row, .. }) = (panel_of(env, of, pair), thread_place(env));
    let mut all = env.b.float(Ty::vector(Elem::F32, ROWS), 0.0);
    for lane in 0..ROWS {
        let row = env.b.add_const(row, lane.into());
        let scale = layout.row_scale(&mut env.b, panel, Some(row))?;
        all = env.b.insert(all, lane, scale);
    }
    Some(all)
}
