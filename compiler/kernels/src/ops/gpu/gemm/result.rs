//! From a tile's sums to the results: through shared memory, where an epilogue finds whole units.

use super::{RAW_ROW, RAW_TOKENS, Shares, TILE_PANELS, TILE_TOKENS, Tile};
use crate::env::{Env, WARP};
use crate::kir::{Cond, Ty, Val};
use crate::layout::PANEL;
use crate::ops::gpu::fragments::thread_of;
use crate::ops::linear::Segment;
use std::ops::Range;

/// Finishes and stores a tile's sums, of which each warp has its own.
pub(super) fn emit(env: &mut Env, s: &Segment, tile: Tile, shares: Shares, sums: &[Val]) {
    for first in (0..TILE_TOKENS).step_by(RAW_TOKENS) {
        keep_some(env, tile, shares, sums, first);
        env.b.group_barrier();
        let tile = Tile { token: env.b.add_const(tile.token, first as i64), ..tile };
        if s.epilogue.is_pointwise() {
            pointwise(env, s, tile);
        } else {
            units(env, s, tile);
        }
        env.b.group_barrier();
    }
}

/// Stores sums of tokens from number `first` on of those that are kept together.
fn keep_some(env: &mut Env, tile: Tile, shares: Shares, sums: &[Val], first: usize) {
    let each = shares.tokens();
    if each > RAW_TOKENS {
        return keep(env, (tile, shares), sums, first, first / 8..(first + RAW_TOKENS) / 8);
    }
    let (lo, hi) = (env.b.index(first / each), env.b.index((first + RAW_TOKENS) / each));
    let (_, own) = shares.place(env);
    let (after, before) = (env.b.cmp(Cond::Ge, own, lo), env.b.cmp(Cond::Lt, own, hi));
    let mine = env.b.and(after, before);
    env.if_then(mine, |env| keep(env, (tile, shares), sums, first, 0..shares.columns()));
}

/// Stores a warp's sums of some columns as `[token][row]`, token `first` of the tile first.
fn keep(env: &mut Env, (tile, shares): (Tile, Shares), sums: &[Val], first: usize, columns: Range<usize>) {
    let ((part, own), (row, t)) = (shares.place(env), thread_of(env));
    let token = env.b.mul_const(own, shares.tokens() as i64);
    let token = env.b.add_const(token, (8 * columns.start) as i64 - first as i64);
    let two = env.b.mul_const(t, 2);
    let token = env.b.add(token, two);
    let at = env.at(tile.shared, token, RAW_ROW);
    let at = env.at(at, part, shares.panels() * PANEL * 4);
    let at = env.at(at, row, 16);
    for pair in 0..shares.panels() / 2 {
        for (i, column) in columns.clone().enumerate() {
            let [a, b] = [0, 1].map(|rows| sums[(pair * 2 + rows) * shares.columns() + column]);
            for odd in 0..2u16 {
                let v = env.b.shuffle(a, b, vec![odd, odd + 2, 4 + odd, 6 + odd]);
                let offset = (8 * i + usize::from(odd)) * RAW_ROW + pair * 2 * PANEL * 4;
                env.b.store_with(v, at, offset as i32, 16);
            }
        }
    }
}

/// Rows of the result that a tile has of a segment.
fn result_rows(s: &Segment) -> usize {
    TILE_PANELS / s.product.panels * s.epilogue.unit_rows
}

/// A warp takes a token after another, all values of each thread in flight.
fn pointwise(env: &mut Env, s: &Segment, tile: Tile) {
    let rows = result_rows(s);
    let (end, step) = (env.b.index(RAW_TOKENS), env.b.index(env.group.warps()));
    env.for_step(env.group.warp, end, step, |env, slot| {
        let token = env.b.add(tile.token, slot);
        let exists = env.b.cmp(Cond::Lt, token, tile.n);
        let raw = env.at(tile.shared, slot, RAW_ROW);
        env.if_then(exists, |env| of_token(env, s, tile, (token, raw), rows));
    });
}

/// The results of one token.
fn of_token(env: &mut Env, s: &Segment, tile: Tile, (token, raw): (Val, Val), rows: usize) {
    let mut values = Vec::new();
    for piece in 0..rows.div_ceil(WARP) {
        let r = env.b.add_const(env.group.lane, (piece * WARP) as i64);
        let at = unit_of(env, s, tile, r, rows);
        let raw = env.at(raw, at.raw, 4);
        let value = |env: &mut Env| vec![s.epilogue.value_at(env, (at.unit, at.element, token), raw)];
        let v = match at.exists {
            None => value(env),
            Some(exists) => env.if_value(exists, value, |env| vec![env.b.float(Ty::F32, 0.0)]),
        };
        values.push((at, v[0]));
    }
    for (at, v) in values {
        let place = (at.unit, at.element, token);
        match at.exists {
            None => s.epilogue.store_at(env, place, v),
            Some(exists) => env.if_then(exists, |env| s.epilogue.store_at(env, place, v)),
        }
    }
}

/// Unit and element of row `r` (i64) of a tile's result, where its sum stands, and whether it exists.
fn unit_of(env: &mut Env, s: &Segment, tile: Tile, r: Val, rows: usize) -> At {
    let (unit_rows, panels) = (s.epilogue.unit_rows, s.product.panels);
    let size = env.b.index(unit_rows);
    let (own, element) = (env.b.div(r, size), env.b.rem(r, size));
    let raw = env.b.mul_const(own, (panels * PANEL) as i64);
    let raw = env.b.add(raw, element);
    let count = env.b.index(panels);
    let first = env.b.div(tile.panel, count);
    let unit = env.b.add(first, own);
    let units = env.b.index(s.units);
    let mut exists = None;
    if !(s.units * panels).is_multiple_of(TILE_PANELS) {
        exists = Some(env.b.cmp(Cond::Lt, unit, units));
    }
    if !rows.is_multiple_of(WARP) {
        let end = env.b.index(rows);
        let inside = env.b.cmp(Cond::Lt, r, end);
        exists = Some(exists.map_or(inside, |e| env.b.and(e, inside)));
    }
    At { unit, element, raw, exists }
}

/// Units whose epilogue sees all of their rows: a warp takes a unit of a token after another.
fn units(env: &mut Env, s: &Segment, tile: Tile) {
    let each = TILE_PANELS / s.product.panels;
    let (end, step) = (env.b.index(RAW_TOKENS * each), env.b.index(env.group.warps()));
    env.for_step(env.group.warp, end, step, |env, item| {
        let size = env.b.index(each);
        let (slot, own) = (env.b.div(item, size), env.b.rem(item, size));
        let token = env.b.add(tile.token, slot);
        let count = env.b.index(s.product.panels);
        let unit = env.b.div(tile.panel, count);
        let unit = env.b.add(unit, own);
        let units = env.b.index(s.units);
        let (a, b) = (env.b.cmp(Cond::Lt, token, tile.n), env.b.cmp(Cond::Lt, unit, units));
        let exists = env.b.and(a, b);
        env.if_then(exists, |env| {
            let raw = env.at(tile.shared, slot, RAW_ROW);
            let raw = env.at(raw, own, s.product.panels * PANEL * 4);
            s.epilogue.emit_row(env, unit, raw, token);
        });
    });
}

/// Where a row of a tile's result comes from.
#[derive(Clone, Copy)]
struct At {
    unit: Val,
    element: Val,
    raw: Val,
    exists: Option<Val>,
}
