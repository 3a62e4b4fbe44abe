//! The epilogue of a head by elements: each of its first half with the one that stands as far in the second, which
//! is what a rotation turns together. What needs no more than that need not wait for the rest of the head.

use super::{Epilogue, Piece, RawRow, Sink, Step};
use crate::env::{Env, Rows};
use crate::kir::{Ty, Val};
use crate::layout::PANEL;
use crate::ops::kv::KvCache;

/// Where what is the same for all elements of a token is at hand already.
#[derive(Clone, Copy, Debug, Default)]
pub struct AtHand {
    /// The two values of the token's [`KvCache::slot`].
    pub slot: Option<Val>,
    /// Its angles.
    pub angles: Option<Val>,
}

impl Epilogue {
    /// Whether elements of a unit can be finished when those of the other half that stand as far in it are there.
    pub fn is_in_halves(&self) -> bool {
        let (last, before) = match self.steps.split_last() {
            Some((Step::Rope { rotation, .. }, before)) => {
                (!rotation.interleaved && rotation.rotary_dim == self.unit_rows, before)
            }
            _ => (true, &self.steps[..]),
        };
        let stored = match &self.sink {
            Sink::Rows(_) => true,
            Sink::Kv(cache, _) => !cache.layout.has_scales(),
        };
        let whole = self.unit_rows == self.panels * PANEL && self.panels.is_multiple_of(2);
        let alone = before.iter().all(|s| !s.needs_whole_head() && !matches!(s, Step::Gated(_)));
        last && stored && whole && alone
    }

    /// Emits the epilogue for some elements of the first half of a unit, and as many behind them in the row that are
    /// of the second half.
    pub fn emit_halves(&self, env: &mut Env, (unit, token): (Val, Val), raw: RawRow, at_hand: AtHand) {
        let half = (self.panels / 2 * PANEL) as i64;
        env.elements(raw.count, |env, i, lanes| {
            let element = raw.first.map_or(i, |first| env.b.add(i, first));
            let piece = |element| Piece { unit, token, element, lanes, valid: usize::MAX };
            let pieces = [piece(element), piece(env.b.add_const(element, half))];
            let at = env.at(raw.at, i, 4);
            let at = [at, env.b.ptr_add_const(at, 4 * raw.count)];
            let steps = self.steps.iter().take_while(|s| !s.needs_whole_head()).count();
            let [a, b] = [0, 1].map(|h| self.value(env, &self.steps[..steps], (at[h], raw.count), pieces[h]));
            let values = match self.steps.get(steps) {
                Some(Step::Rope { rotation, table }) => {
                    let angles = at_hand.angles.unwrap_or_else(|| env.row(table, token));
                    rotation.turned(env, [a, b], angles, element)
                }
                _ => [a, b],
            };
            for (v, piece) in values.into_iter().zip(pieces) {
                self.put(env, v, piece, at_hand.slot);
            }
        });
    }

    /// The angles that heads are turned by, if they are.
    pub fn angles(&self) -> Option<&Rows> {
        self.steps.iter().find_map(|s| if let Step::Rope { table, .. } = s { Some(table) } else { None })
    }

    /// The cache that the result goes to, if it does.
    pub fn cache(&self) -> Option<&KvCache> {
        if let Sink::Kv(cache, _) = &self.sink { Some(cache) } else { None }
    }

    /// Stores some elements of a unit's result.
    fn put(&self, env: &mut Env, v: Val, piece: Piece, slot: Option<Val>) {
        match &self.sink {
            Sink::Rows(out) => self.store(env, out, v, piece),
            Sink::Kv(cache, part) => {
                let at = match slot {
                    Some(slot) => (env.b.load(Ty::PTR, slot, 0), env.b.load(Ty::I64, slot, 8)),
                    None => cache.slot(env, piece.token),
                };
                cache.store_element(env, at, *part, (piece.unit, piece.element), v);
            }
        }
    }
}
