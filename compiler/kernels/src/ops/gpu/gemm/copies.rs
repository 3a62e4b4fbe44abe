//! What a thread copies for a step: pieces of lines, which are panels or tokens.

use super::{TILE_PANELS, TILE_TOKENS, Tile};
use crate::env::{Env, Place};
use crate::kir::{Cond, Val};
use crate::ops::linear::Segment;

/// Bytes of the largest copy.
pub(super) const COPY: usize = 16;

/// Lines that exist: the last of them stands in for those beyond.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    /// All do.
    None,
    /// So many.
    Lines(usize),
    /// So many, known when the step runs (i64).
    Counted(Val),
}

/// Lines of which a step takes equally many bytes.
pub(super) struct Lines<'a> {
    /// Where line 0 begins with what the first step takes of it.
    pub base: Val,
    /// The first line of the tile: i64.
    pub first: Val,
    /// Lines of the tile.
    pub count: usize,
    pub limit: Limit,
    /// Bytes from one line to the next.
    pub stride: usize,
    /// Bytes of a step: whole pieces.
    pub step: usize,
    /// Bytes of a piece: 4, 8 or 16.
    pub piece: usize,
    /// Where in a stage the first line goes, and bytes from one to the next there.
    pub to: (usize, usize),
    /// The place of a piece among those of its line, of line and piece (both i64).
    pub place: &'a dyn Fn(&mut Env, Val, Val) -> Val,
    /// Lines after which places are the same again.
    pub period: usize,
}

/// The copies of a thread.
pub(super) struct Pieces {
    /// Source of each in the first step; only of the first where the others follow at a fixed distance.
    sources: Vec<Val>,
    apart: usize,
    /// Offset of each in a stage; likewise.
    to: Vec<Val>,
    to_apart: usize,
    count: usize,
    /// Bytes from a step's source to the next one's.
    step: usize,
    piece: usize,
    /// Whether this thread has the last of them; none where all threads have.
    last_exists: Option<Val>,
}

/// The place of a piece among those of its line, and lines after which places are the same again.
pub(super) type Placing<'a> = (&'a dyn Fn(&mut Env, Val, Val) -> Val, usize);

/// What a step takes of each panel.
pub(super) struct PanelPart {
    /// Where in a panel the first step's bytes are.
    pub offset: usize,
    /// Bytes of a step.
    pub step: usize,
    /// Where in a stage the first panel's go, and bytes from one panel's to the next there.
    pub to: (usize, usize),
}

impl<'a> Lines<'a> {
    /// A part of a tile's panels.
    pub(super) fn of_panels(
        env: &mut Env,
        (s, tile): (&Segment, Tile),
        PanelPart { offset, step, to }: PanelPart,
        (place, period): Placing<'a>,
    ) -> Lines<'a> {
        let panels = s.units * s.product.panels;
        let limit = if panels.is_multiple_of(TILE_PANELS) { Limit::None } else { Limit::Lines(panels) };
        let base = env.ptr(Place::Weights(s.weight));
        let base = env.b.ptr_add_const(base, offset);
        let stride = s.product.format.panel_bytes(s.product.k);
        Lines { base, first: tile.panel, count: TILE_PANELS, limit, stride, step, piece: COPY, to, place, period }
    }

    /// A tile's rows of x: at `x`, `stride` bytes apart, of which a step takes `step` bytes to `to` in a stage, where
    /// they follow each other.
    pub(super) fn of_tokens(
        tile: Tile,
        (x, stride): (Val, usize),
        (step, to): (usize, usize),
        (place, period): Placing<'a>,
    ) -> Lines<'a> {
        let limit = Limit::Counted(tile.n);
        let (first, count, to) = (tile.token, TILE_TOKENS, (to, step));
        Lines { base: x, first, count, limit, stride, step, piece: COPY, to, place, period }
    }

    /// Shares out the pieces among the threads, line by line.
    pub(super) fn pieces(&self, env: &mut Env) -> Pieces {
        let (threads, each) = (env.group.threads, self.step / self.piece);
        let all = self.count * each;
        let count = all.div_ceil(threads);
        let last_exists = (!all.is_multiple_of(threads)).then(|| {
            let left = env.b.index(all - (count - 1) * threads);
            env.b.cmp(Cond::Lt, env.group.thread, left)
        });
        // The lines between a thread's pieces, where those are the same of each.
        let apart = threads / each;
        let even = threads.is_multiple_of(each) && apart.is_multiple_of(self.period) || count == 1;
        let many = if even { 1 } else { count };
        let places: Vec<(Val, Val)> = (0..count).map(|i| self.place_of(env, i * threads, each)).collect();
        let all_exist = matches!(self.limit, Limit::None);
        let sources = &places[..if even && all_exist { 1 } else { count }];
        Pieces {
            sources: sources.iter().map(|(line, piece)| self.source(env, *line, *piece)).collect(),
            apart: apart * self.stride,
            to: places[..many].iter().map(|(line, piece)| self.target(env, *line, *piece)).collect(),
            to_apart: apart * self.to.1,
            count,
            step: self.step,
            piece: self.piece,
            last_exists,
        }
    }

    /// Line of the tile and piece that are the thread's number, `more` on.
    fn place_of(&self, env: &mut Env, more: usize, each: usize) -> (Val, Val) {
        let number = env.b.add_const(env.group.thread, more as i64);
        let each = env.b.index(each);
        (env.b.div(number, each), env.b.rem(number, each))
    }

    fn source(&self, env: &mut Env, line: Val, piece: Val) -> Val {
        let line = env.b.add(self.first, line);
        let line = match self.limit {
            Limit::None => line,
            Limit::Lines(count) => {
                let last = env.b.index(count - 1);
                env.b.min(line, last)
            }
            Limit::Counted(count) => {
                let last = env.b.add_const(count, -1);
                env.b.min(line, last)
            }
        };
        let line = env.at(self.base, line, self.stride);
        env.at(line, piece, self.piece)
    }

    fn target(&self, env: &mut Env, line: Val, piece: Val) -> Val {
        let place = (self.place)(env, line, piece);
        let within = env.b.mul_const(place, self.piece as i64);
        let line = env.b.mul_const(line, self.to.1 as i64);
        let at = env.b.add(line, within);
        env.b.add_const(at, self.to.0 as i64)
    }
}

impl Pieces {
    /// Begins the copies of step `step` (i64) to `stage`.
    pub(super) fn emit(&self, env: &mut Env, stage: Val, step: Val) {
        let along = env.b.mul_const(step, self.step as i64);
        let last = self.count - 1;
        (0..last).for_each(|i| self.copy(env, i, stage, along));
        match self.last_exists {
            None => self.copy(env, last, stage, along),
            Some(exists) => env.if_then(exists, |env| self.copy(env, last, stage, along)),
        }
    }

    fn copy(&self, env: &mut Env, i: usize, stage: Val, along: Val) {
        let pick = |list: &[Val], apart: usize| match list.get(i) {
            Some(own) => (*own, 0),
            None => (list[0], i * apart),
        };
        let (source, more) = pick(&self.sources, self.apart);
        let source = env.b.ptr_add(source, along);
        let source = env.b.ptr_add_const(source, more);
        let (to, more) = pick(&self.to, self.to_apart);
        let to = env.b.ptr_add(stage, to);
        let to = env.b.ptr_add_const(to, more);
        env.b.async_copy(to, source, self.piece as u32);
    }
}

/// Pieces in their own order.
pub(super) fn in_order(_env: &mut Env, _line: Val, piece: Val) -> Val {
    piece
}
