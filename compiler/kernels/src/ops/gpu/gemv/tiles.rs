//! Tiles of weights: where they are, how they are asked for, and their products.

use super::{At, CHUNK, Form, Gemv, Range};
use crate::env::{Env, Place};
use crate::kir::{CacheLevel, Cond, Hint, Ty, Val};
use crate::layout::PANEL;
use crate::ops::gpu::fragments::{Ahead, Columns, Panels, Round};
use crate::ops::gpu::ring::{From, Ring, Slot};
use crate::ops::linear::Segment;

/// Bytes that one request brings nearer.
const LINE: usize = 64;

/// A round of weights that is still to be asked for.
#[derive(Clone, Copy)]
pub(super) struct Cursor {
    /// Its tile, counted over all segments.
    tile: Val,
    /// Its number in the tile.
    round: Val,
    /// The tile's panels.
    panels: Panels,
}

impl Cursor {
    fn values(self) -> Vec<Val> {
        [vec![self.tile, self.round], self.panels.all()].concat()
    }

    fn of(values: &[Val]) -> Cursor {
        let panels = Panels { first: values[2], second: values.get(3).copied() };
        Cursor { tile: values[0], round: values[1], panels }
    }
}

/// What goes from tile to tile: the place of the next round to be multiplied, the round to be asked for when
/// it has been taken, and what was loaded beside the next round.
#[derive(Clone)]
pub(super) struct State {
    slot: Val,
    /// That of the place's time: i32.
    parity: Val,
    cursor: Cursor,
    side: Vec<Val>,
}

/// What the rounds of a tile share.
struct Rounds<'r> {
    f: &'r dyn Ahead,
    ring: Ring,
    shared: Val,
    x: Columns,
    all: Range,
}

impl State {
    fn values(&self) -> Vec<Val> {
        [vec![self.slot, self.parity], self.cursor.values(), self.side.clone()].concat()
    }

    fn of(values: &[Val], panels: usize) -> State {
        let (cursor, side) = values[2..].split_at(2 + panels);
        State { slot: values[0], parity: values[1], cursor: Cursor::of(cursor), side: side.to_vec() }
    }
}

impl Gemv<'_> {
    /// Asks for the first rounds of this worker's tiles.
    pub(super) fn prime(&self, env: &mut Env, shared: Val, all: Range) {
        let (Some(f), Some(ring)) = (self.form.ahead(), self.ring) else { return };
        ring.open(env, shared);
        if ring.engine {
            return self.prime_at_once(env, f, shared, all);
        }
        let cursor = self.cursor(env, f, all, 0);
        let (zero, ahead, one) = (env.b.index(0), env.b.index(ring.ahead), env.b.index(1));
        env.for_carried((zero, ahead, one), &cursor.values(), |env, number, values| {
            let cursor = Cursor::of(values);
            self.ask(env, f, Slot { shared, number }, cursor, all);
            self.advance(env, f, cursor).values()
        });
    }

    /// The same where the copy engine copies: each thread of a warp asks for a round.
    fn prime_at_once(&self, env: &mut Env, f: &dyn Ahead, shared: Val, all: Range) {
        let Some(ring) = self.ring else { return };
        let (number, ahead) = (env.group.lane, env.b.index(ring.ahead));
        let rounds = env.b.index(f.rounds());
        let (tile, round) = (env.b.div(number, rounds), env.b.rem(number, rounds));
        let tile = env.b.add(all.start, tile);
        let cursor = Cursor { tile, round, panels: self.panels_at(env, tile) };
        let (inside, exists) = (env.b.cmp(Cond::Lt, number, ahead), env.b.cmp(Cond::Lt, tile, all.end));
        let here = env.b.and(inside, exists);
        ring.put_by(env, Slot { shared, number }, here, |env| self.source(env, f, cursor));
        if self.loads_sides(f) {
            // All rounds of a tile are in a row.
            let (zero, one) = (env.b.index(0), env.b.index(1));
            let start = self.cursor(env, f, all, 0);
            env.for_carried((zero, ahead, one), &start.values(), |env, _, values| {
                let cursor = Cursor::of(values);
                let exists = env.b.cmp(Cond::Lt, cursor.tile, all.end);
                env.if_then(exists, |env| self.ask_sides(env, f, cursor));
                self.advance(env, f, cursor).values()
            });
        }
    }

    /// The state when the first rounds have been asked for; `None` for forms that do not ask ahead.
    pub(super) fn begin(&self, env: &mut Env, all: Range) -> Option<State> {
        let (f, ring) = (self.form.ahead()?, self.ring?);
        let cursor = self.cursor(env, f, all, ring.ahead);
        let (slot, panels) = (env.b.index(0), self.panels_at(env, all.start));
        let side = self.load_sides(env, f, panels, slot);
        Some(State { slot, parity: env.b.int(Ty::I32, 0), cursor, side })
    }

    /// Round `position` of this worker's.
    fn cursor(&self, env: &mut Env, f: &dyn Ahead, all: Range, position: usize) -> Cursor {
        let tile = env.b.add_const(all.start, (position / f.rounds()) as i64);
        Cursor { tile, round: env.b.index(position % f.rounds()), panels: self.panels_at(env, tile) }
    }

    fn advance(&self, env: &mut Env, f: &dyn Ahead, cursor: Cursor) -> Cursor {
        let (next, rounds) = (env.b.add_const(cursor.round, 1), env.b.index(f.rounds()));
        let done = env.b.cmp(Cond::Ge, next, rounds);
        let values = env.if_value(
            done,
            |env| {
                let tile = env.b.add_const(cursor.tile, 1);
                Cursor { tile, round: env.b.index(0), panels: self.panels_at(env, tile) }.values()
            },
            |_| Cursor { round: next, ..cursor }.values(),
        );
        Cursor::of(&values)
    }

    /// Begins to copy a round to a place of the ring, if it exists.
    fn ask(&self, env: &mut Env, f: &dyn Ahead, slot: Slot, cursor: Cursor, all: Range) {
        let Some(ring) = self.ring else { return };
        let exists = env.b.cmp(Cond::Lt, cursor.tile, all.end);
        ring.put(env, slot, exists, |env| self.source(env, f, cursor));
        if self.loads_sides(f) {
            env.if_then(exists, |env| self.ask_sides(env, f, cursor));
        }
    }

    /// Whether what stands beside codes is loaded by itself.
    fn loads_sides(&self, f: &dyn Ahead) -> bool {
        f.has_sides() && !self.ring.is_some_and(|ring| ring.runs.has_sides())
    }

    /// Where a round comes from.
    fn source(&self, env: &mut Env, f: &dyn Ahead, cursor: Cursor) -> From {
        let (panels, start) = (cursor.panels.all(), f.start(env, cursor.round));
        let sides = match self.loads_sides(f) {
            true => vec![],
            false => f.side_runs(env, cursor.round).into_iter().map(|(start, _)| start).collect(),
        };
        From { panels, start, sides }
    }

    /// Brings what else belongs to a round nearer, each thread of the warp a line.
    fn ask_sides(&self, env: &mut Env, f: &dyn Ahead, cursor: Cursor) {
        for (start, bytes) in f.side_runs(env, cursor.round) {
            let (line, lines) =
                (env.b.mul_const(env.group.lane, LINE as i64), env.b.index(bytes.next_multiple_of(LINE)));
            let inside = env.b.cmp(Cond::Lt, line, lines);
            let last = env.b.index(bytes - 1);
            let line = env.b.min(line, last);
            let at = env.b.add(start, line);
            env.if_then(inside, |env| {
                for panel in cursor.panels.all() {
                    let at = env.b.ptr_add(panel, at);
                    env.b.prefetch(at, 0, CacheLevel::L2);
                }
            });
        }
    }

    fn load_sides(&self, env: &mut Env, f: &dyn Ahead, panels: Panels, round: Val) -> Vec<Val> {
        if !self.loads_sides(f) {
            return vec![];
        }
        f.sides(env, panels, round).into_iter().map(|side| side.load(env, Hint::Constant)).collect()
    }

    /// The panels of a tile, which is counted over all segments; of one that does not exist some that can be
    /// read.
    fn panels_at(&self, env: &mut Env, tile: Val) -> Panels {
        let mut end: usize = self.kernel.segments.iter().map(|s| self.tiles(s)).sum();
        let mut found: Option<Panels> = None;
        for segment in self.kernel.segments.iter().rev() {
            let count = self.tiles(segment);
            let (zero, last) = (env.b.index(0), env.b.index(count - 1));
            let local = env.b.add_const(tile, -((end - count) as i64));
            let local = env.b.max(local, zero);
            let local = env.b.min(local, last);
            let (first, second) = self.panels_of(env, segment, local);
            let limit = env.b.index(end);
            found = Some(match found {
                None => Panels { first, second },
                Some(after) => {
                    let here = env.b.cmp(Cond::Lt, tile, limit);
                    let second = second.zip(after.second).map(|(a, b)| env.b.select(here, a, b));
                    Panels { first: env.b.select(here, first, after.first), second }
                }
            });
            end -= count;
        }
        found.expect("a product has segments")
    }

    /// Addresses of a tile's panels.
    pub(super) fn panels_of(&self, env: &mut Env, s: &Segment, tile: Val) -> (Val, Option<Val>) {
        let base = env.ptr(Place::Weights(s.weight));
        let bytes = s.product.format.panel_bytes(s.product.k);
        if !self.halves && !s.epilogue.is_gated() {
            let first = env.at(base, tile, self.panels * bytes);
            let second = (self.panels == 2).then(|| env.b.ptr_add_const(first, bytes));
            return (first, second);
        }
        let half = s.product.panels / 2;
        let count = env.b.index(half);
        let (unit, part) = (env.b.div(tile, count), env.b.rem(tile, count));
        let unit = env.at(base, unit, s.product.panels * bytes);
        let first = env.at(unit, part, bytes);
        (first, Some(env.b.ptr_add_const(first, half * bytes)))
    }

    /// Goes over this worker's tiles of a segment, whose first one is tile `before` of all.
    pub(super) fn segment(
        &self,
        env: &mut Env,
        at: At,
        (index, s, before): (usize, &Segment, usize),
        (all, own): (Range, Range),
        state: &Option<State>,
    ) -> Option<State> {
        let init = state.as_ref().map_or(vec![], State::values);
        let step = env.b.index(CHUNK);
        let values = env.for_carried((own.start, own.end, step), &init, |env, first, values| {
            let (many, chunk) = (env.b.sub(own.end, first), env.b.index(CHUNK));
            let count = env.b.min(many, chunk);
            let (stop, one) = (env.b.add(first, count), env.b.index(1));
            let values = env.for_carried((first, stop, one), values, |env, tile, values| {
                let slot = env.b.sub(tile, first);
                let to = env.at(at.partial, slot, self.tile_bytes(self.tokens));
                let to = env.at(to, env.group.warp, self.tile_bytes(self.tokens) / self.warps);
                self.product(env, at, (s, tile, before), all, to, values)
            });
            env.b.group_barrier();
            self.sum(env, at, (index, s), first, count);
            env.b.group_barrier();
            values
        });
        state.as_ref().map(|_| State::of(&values, self.panels))
    }

    /// Multiplies a segment's tile into this warp's sums at `to`: the values of the state after it.
    fn product(
        &self,
        env: &mut Env,
        at: At,
        (s, tile, before): (&Segment, Val, usize),
        all: Range,
        to: Val,
        values: &[Val],
    ) -> Vec<Val> {
        if let Form::Scalar(f) = &self.form {
            let (first, second) = self.panels_of(env, s, tile);
            for (i, panel) in std::iter::once(first).chain(second).enumerate() {
                let to = env.b.ptr_add_const(to, i * PANEL * 4);
                f.emit(env, panel, at.x, to, at.columns);
            }
            return vec![];
        }
        let (Some(f), Some(ring)) = (self.form.ahead(), self.ring) else {
            unreachable!("all other forms ask ahead, for a ring")
        };
        let number = env.b.add_const(tile, before as i64);
        let x = f.columns(env, at.x, self.staged, at.columns);
        let rounds = Rounds { f, ring, shared: at.shared, x, all };
        let (state, sums) = self.rounds(env, &rounds, number, State::of(values, self.panels));
        f.store(env, &sums, to, at.columns);
        state.values()
    }

    /// Goes over the rounds of tile `tile`, counted over all segments: the state after it, and its sums.
    fn rounds(&self, env: &mut Env, r: &Rounds<'_>, tile: Val, state: State) -> (State, Vec<Val>) {
        let (own, following) = (self.panels_at(env, tile), env.b.add_const(tile, 1));
        let following = self.panels_at(env, following);
        let (lo, last, one) = (env.b.index(0), env.b.index(r.f.rounds() - 1), env.b.index(1));
        let zero = r.f.zero(env);
        let many = zero.len();
        let split = |values: &[Val]| {
            let (state, sums) = values.split_at(values.len() - many);
            (State::of(state, self.panels), sums.to_vec())
        };
        let init = [state.values(), zero].concat();
        let values = env.for_carried((lo, last, one), &init, |env, round, values| {
            let next = env.b.add_const(round, 1);
            let (state, sums) = self.round(env, r, round, split(values), (own, next));
            [state.values(), sums].concat()
        });
        self.round(env, r, last, split(&values), (following, lo))
    }

    /// Takes a round, asks for one in its place and multiplies; `next` is the round that follows.
    fn round(
        &self,
        env: &mut Env,
        r: &Rounds<'_>,
        number: Val,
        (state, sums): (State, Vec<Val>),
        next: (Panels, Val),
    ) -> (State, Vec<Val>) {
        let slot = Slot { shared: r.shared, number: state.slot };
        let mine = Panels::own(env, self.panels);
        let run = r.ring.take(env, slot, state.parity, mine);
        let codes = r.f.take(env, run);
        let side = if r.ring.runs.has_sides() { r.f.take_sides(env, run) } else { state.side };
        let free = Slot { number: r.ring.before(env, state.slot), ..slot };
        self.ask(env, r.f, free, state.cursor, r.all);
        let coming = self.load_sides(env, r.f, next.0, next.1);
        let sums = r.f.multiply(env, Round { codes: &codes, side: &side, x: &r.x, number }, &sums);
        let (slot, parity) = r.ring.after(env, state.slot, state.parity);
        let cursor = self.advance(env, r.f, state.cursor);
        (State { slot, parity, cursor, side: coming }, sums)
    }
}
