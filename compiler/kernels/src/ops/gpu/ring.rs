//! Weights on their way: each warp copies what it will multiply to places of its own in shared memory, some
//! rounds ahead of their use.
//!
//! Rounds are numbered over all that a worker has to do: round `r` takes place `r % (ahead + 1)`, so that the
//! place of the round before is free when all threads of the warp have come to the next one. The first
//! [`Ring::ahead`] of them may be under way before the product begins.
//!
//! Where there is a copy engine it copies, and nobody is held up by how much is asked for. Else threads do: those
//! that follow each other copy bytes that do, so that shared memory takes whole lines at a time; as many copies are
//! committed for each round, also for those past the end, so that a wait counts rounds.

use crate::env::{Env, WARP};
use crate::kir::{Cond, Ty, Val};

/// Alignment of the places.
const ALIGN: usize = 128;
/// Most rounds on their way by the copy engine: threads of a warp make a signal each.
const MOST: usize = WARP - 1;
/// The same by threads: more of them would hold up what the worker does until they are there.
const MOST_BY_THREADS: usize = 4;
/// Bytes that a thread copies at once, and the threads of a warp together.
const PIECE: usize = 16;
const LINE: usize = PIECE * WARP;
/// Bytes of a signal.
const SIGNAL: usize = 8;

/// Places of a kernel's rounds.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// Offset in shared memory of the signals, behind which the places are.
    offset: usize,
    /// Rounds on their way.
    pub ahead: usize,
    /// The bytes of a round.
    pub runs: Runs,
    warps: usize,
    /// Whether the copy engine copies.
    pub engine: bool,
}

/// What a warp copies for a round.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    /// Bytes that follow each other.
    pub bytes: usize,
    /// How many such runs there are: one of each panel.
    pub count: usize,
    /// Bytes of what stands beside the codes of such a run, of each kind: 0 where nothing is copied.
    pub sides: [usize; 2],
    /// Where some of them do not exist, the offset at which a panel ends.
    pub end: Option<usize>,
}

/// Where a round comes from.
pub struct From {
    /// The panels.
    pub panels: Vec<Val>,
    /// Offset of its codes in a panel: i64.
    pub start: Val,
    /// Offsets of what stands beside them.
    pub sides: Vec<Val>,
}

impl Runs {
    /// Bytes of a panel's part of a round.
    fn all(&self) -> usize {
        self.bytes + self.sides.iter().sum::<usize>()
    }

    /// Whether what stands beside codes is copied with them.
    pub fn has_sides(&self) -> bool {
        self.sides[0] > 0
    }

    /// The parts of a panel's part of a round: bytes, and offset in it.
    fn parts(&self) -> Vec<(usize, usize)> {
        let mut at = 0;
        let mut parts = Vec::new();
        for bytes in [self.bytes].into_iter().chain(self.sides).filter(|bytes| *bytes > 0) {
            parts.push((bytes, at));
            at += bytes;
        }
        parts
    }

    /// Whether runs exist as a whole or not at all, if their offsets are multiples of their size from `first` on.
    pub fn are_whole(&self, first: usize) -> bool {
        self.end.is_none_or(|end| end >= first + self.bytes && (end - first).is_multiple_of(self.bytes))
    }
}

/// A place of the ring.
#[derive(Clone, Copy)]
pub struct Slot {
    /// The beginning of shared memory.
    pub shared: Val,
    /// The place's number: i64.
    pub number: Val,
}

impl Ring {
    /// Places in the shared memory between `offset` and `end`, filled by the copy engine if `engine`.
    pub fn new((offset, end): (usize, usize), runs: Runs, warps: usize, engine: bool) -> Ring {
        assert!(runs.bytes.is_multiple_of(PIECE), "runs of whole pieces");
        let offset = offset.next_multiple_of(ALIGN);
        let mut ring = Ring { offset, ahead: 1, runs, warps, engine };
        let places = end.saturating_sub(offset + warps * (MOST + 1) * SIGNAL) / ring.round_bytes();
        ring.ahead = places.saturating_sub(1).clamp(1, if engine { MOST } else { MOST_BY_THREADS });
        ring
    }

    fn warp_bytes(&self) -> usize {
        (self.runs.count * self.runs.all()).next_multiple_of(ALIGN)
    }

    fn round_bytes(&self) -> usize {
        self.warps * self.warp_bytes()
    }

    /// Bytes of signals.
    fn signal_bytes(&self) -> usize {
        if self.engine { (self.warps * (self.ahead + 1) * SIGNAL).next_multiple_of(ALIGN) } else { 0 }
    }

    /// The first byte behind the places.
    pub fn end(&self) -> usize {
        self.offset + self.signal_bytes() + (self.ahead + 1) * self.round_bytes()
    }

    /// The warp's first run in a place.
    fn place(&self, env: &mut Env, slot: Slot) -> Val {
        let base = env.b.ptr_add_const(slot.shared, self.offset + self.signal_bytes());
        let base = env.at(base, slot.number, self.round_bytes());
        env.at(base, env.group.warp, self.warp_bytes())
    }

    /// The signal of a place.
    fn signal(&self, env: &mut Env, slot: Slot) -> Val {
        let base = env.b.ptr_add_const(slot.shared, self.offset);
        let base = env.at(base, env.group.warp, (self.ahead + 1) * SIGNAL);
        env.at(base, slot.number, SIGNAL)
    }

    /// Before the first copies: makes the signals.
    pub fn open(&self, env: &mut Env, shared: Val) {
        self.each_signal(env, shared, |env, signal| {
            env.b.signal_begin(signal, self.runs.count * self.runs.parts().len())
        });
    }

    /// After the last round: ends the signals.
    pub fn close(&self, env: &mut Env, shared: Val) {
        self.each_signal(env, shared, |env, signal| env.b.signal_end(signal));
    }

    /// The warp's threads take a signal each, which nobody else uses up to the next barrier.
    fn each_signal(&self, env: &mut Env, shared: Val, body: impl FnOnce(&mut Env, Val)) {
        if !self.engine {
            return;
        }
        let signal = self.signal(env, Slot { shared, number: env.group.lane });
        let count = env.b.index(self.ahead + 1);
        let exists = env.b.cmp(Cond::Lt, env.group.lane, count);
        env.if_then(exists, |env| body(env, signal));
    }

    /// Begins to copy a round, if it exists. To be called for every round, also for those past the end.
    pub fn put(&self, env: &mut Env, slot: Slot, exists: Val, from: impl FnOnce(&mut Env) -> From) {
        if self.engine {
            let zero = env.b.index(0);
            let first = env.b.cmp(Cond::Eq, env.group.lane, zero);
            let here = env.b.and(exists, first);
            return self.put_by(env, slot, here, from);
        }
        env.if_then(exists, |env| {
            let from = from(env);
            self.put_pieces(env, slot, &from);
        });
        env.b.async_commit();
    }

    /// Each thread where `here` holds begins to copy a round by the copy engine.
    pub fn put_by(&self, env: &mut Env, slot: Slot, here: Val, from: impl FnOnce(&mut Env) -> From) {
        env.if_then(here, |env| {
            let from = from(env);
            self.put_runs(env, slot, &from);
        });
    }

    /// A run that does not exist is one that does.
    fn put_runs(&self, env: &mut Env, slot: Slot, from: &From) {
        let (signal, to) = (self.signal(env, slot), self.place(env, slot));
        let start = match self.runs.end {
            None => from.start,
            Some(end) => {
                let last = env.b.index(end - self.runs.bytes);
                env.b.min(from.start, last)
            }
        };
        for (run, panel) in from.panels.iter().enumerate() {
            let to = env.b.ptr_add_const(to, run * self.runs.all());
            let starts = std::iter::once(&start).chain(&from.sides);
            for ((bytes, at), start) in self.runs.parts().into_iter().zip(starts) {
                let (to, from) = (env.b.ptr_add_const(to, at), env.b.ptr_add(*panel, *start));
                env.b.bulk_copy(to, from, bytes, signal);
            }
        }
    }

    /// A piece that does not exist is the panel's last one.
    fn put_pieces(&self, env: &mut Env, slot: Slot, from: &From) {
        let starts = std::iter::once(&from.start).chain(&from.sides);
        for (part, start) in self.runs.parts().into_iter().zip(starts) {
            self.put_part(env, slot, &from.panels, part, *start);
        }
    }

    /// Copies `bytes` bytes of each panel to offset `part` of its part of the place.
    fn put_part(&self, env: &mut Env, slot: Slot, panels: &[Val], (bytes, part): (usize, usize), start: Val) {
        let to = self.place(env, slot);
        let to = env.at(to, env.group.lane, PIECE);
        let own = env.b.mul_const(env.group.lane, PIECE as i64);
        let start = env.b.add(start, own);
        for at in (0..bytes).step_by(LINE) {
            let mut from = env.b.add_const(start, at as i64);
            if let Some(end) = self.runs.end {
                let last = env.b.index(end - PIECE);
                from = env.b.min(from, last);
            }
            let copy = |env: &mut Env| {
                for (run, panel) in panels.iter().enumerate() {
                    let to = env.b.ptr_add_const(to, run * self.runs.all() + part + at);
                    let from = env.b.ptr_add(*panel, from);
                    env.b.async_copy(to, from, PIECE as u32);
                }
            };
            if at + LINE <= bytes {
                copy(env);
            } else {
                let left = env.b.index((bytes - at) / PIECE);
                let exists = env.b.cmp(Cond::Lt, env.group.lane, left);
                env.if_then(exists, copy);
            }
        }
    }

    /// Waits for the oldest round, which is in place `slot` for a time of parity `parity` (i32): gives the
    /// address of run `run` (i64).
    pub fn take(&self, env: &mut Env, slot: Slot, parity: Val, run: Val) -> Val {
        if self.engine {
            let signal = self.signal(env, slot);
            env.b.signal_wait(signal, parity);
        } else {
            env.b.async_wait(self.ahead as u32 - 1);
        }
        env.b.warp_barrier();
        let place = self.place(env, slot);
        env.at(place, run, self.runs.all())
    }

    /// The place after `number`, and the parity of its time.
    pub fn after(&self, env: &mut Env, number: Val, parity: Val) -> (Val, Val) {
        let (next, count, zero) = (env.b.add_const(number, 1), env.b.index(self.ahead + 1), env.b.index(0));
        let past = env.b.cmp(Cond::Ge, next, count);
        let one = env.b.int(Ty::I32, 1);
        let other = env.b.sub(one, parity);
        (env.b.select(past, zero, next), env.b.select(past, other, parity))
    }

    /// The place before `number`, which the round that is asked for in its turn takes.
    pub fn before(&self, env: &mut Env, number: Val) -> Val {
        let (zero, last, before) = (env.b.index(0), env.b.index(self.ahead), env.b.add_const(number, -1));
        let first = env.b.cmp(Cond::Eq, number, zero);
        env.b.select(first, last, before)
    }
}
