//! What the only token's heads are finished with: its angles, and its place in the cache, which takes reads that wait
//! for each other. They are asked for before x and kept in shared memory until tiles are done.

use super::{CHUNK, Gemv};
use crate::env::{Env, Rows, WARP};
use crate::kir::{Cond, Ty, Val};
use crate::ops::epilogue::AtHand;

/// Bytes of a page's address and a slot.
const SLOT: usize = 16;

/// What has been asked for.
pub(super) struct Early {
    slot: Option<(Val, Val)>,
    /// This thread's angle.
    angle: Option<Val>,
}

impl Gemv<'_> {
    fn is_early(&self) -> bool {
        self.halves && self.kernel.single
    }

    /// The angles, if there is one for each of the group's threads at most.
    fn angles(&self) -> Option<&Rows> {
        let table = self.kernel.segments.iter().find_map(|s| s.epilogue.angles())?;
        (self.is_early() && table.width <= self.warps * WARP).then_some(table)
    }

    /// Bytes of it all, behind the sums.
    pub(super) fn at_hand_bytes(&self) -> usize {
        if self.is_early() { SLOT + self.angles().map_or(0, |table| 4 * table.width) } else { 0 }
    }

    /// Where it is.
    pub(super) fn at_hand(&self, env: &mut Env, partial: Val) -> AtHand {
        if !self.is_early() {
            return AtHand::default();
        }
        let sums = CHUNK * (self.tile_bytes(1) + self.rows() * 4);
        let slot = env.b.ptr_add_const(partial, sums);
        let cached = self.kernel.segments.iter().any(|s| s.epilogue.cache().is_some());
        let angles = self.angles().map(|_| env.b.ptr_add_const(slot, SLOT));
        AtHand { slot: cached.then_some(slot), angles }
    }

    /// Asks for it.
    pub(super) fn load_early(&self, env: &mut Env) -> Early {
        if !self.is_early() {
            return Early { slot: None, angle: None };
        }
        let zero = env.b.index(0);
        let cache = self.kernel.segments.iter().find_map(|s| s.epilogue.cache());
        let slot = cache.map(|cache| cache.slot(env, zero));
        let angle = self.angles().map(|table| {
            let (row, last) = (env.row(table, zero), env.b.index(table.width - 1));
            let own = env.b.min(env.group.thread, last);
            let at = env.at(row, own, 4);
            env.b.load(Ty::F32, at, 0)
        });
        Early { slot, angle }
    }

    /// Stores it: it is there when the group has met next.
    pub(super) fn keep_early(&self, env: &mut Env, early: Early, to: AtHand) {
        let thread = env.group.thread;
        if let (Some(table), Some(angle), Some(to)) = (self.angles(), early.angle, to.angles) {
            let end = env.b.index(table.width);
            let mine = env.b.cmp(Cond::Lt, thread, end);
            env.if_then(mine, |env| {
                let at = env.at(to, thread, 4);
                env.b.store(angle, at, 0);
            });
        }
        if let (Some((page, slot)), Some(to)) = (early.slot, to.slot) {
            let zero = env.b.index(0);
            let first = env.b.cmp(Cond::Eq, thread, zero);
            env.if_then(first, |env| {
                env.b.store(page, to, 0);
                env.b.store(slot, to, 8);
            });
        }
    }
}
