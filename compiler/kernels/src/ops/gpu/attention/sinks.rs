//! Attention to the first and the last pages of a sequence; see the op `sink_attention`.
//!
//! A warp's queries arrive turned by their places in their pages, and are turned further for each page by the number of
//! pages between.

use super::{Attention, Own};
use crate::env::Env;
use crate::kir::{Cond, Val};
use crate::layout::PAGE;
use crate::ops::attention::Sinks;

/// The pages that a token sees: the first ones, and the last ones behind those that are forgotten.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    sinks: Sinks,
    /// How many there are: i64.
    pub count: Val,
    forgotten: Val,
}

impl Seen {
    /// The page in the sequence that is number `number` (i64) of those seen.
    pub(super) fn block(self, env: &mut Env, number: Val) -> Val {
        let first = env.b.index(self.sinks.first);
        let is_sink = env.b.cmp(Cond::Lt, number, first);
        let moved = env.b.add(number, self.forgotten);
        env.b.select(is_sink, number, moved)
    }

    /// Where the angles are by which queries turn for page `number` (i64).
    fn angles(self, env: &mut Env, number: Val) -> Val {
        let behind = env.b.sub(self.count, number);
        let between = env.b.add_const(behind, -1);
        let turns = env.b.ptr_add_const(env.weights, self.sinks.turns);
        env.at(turns, between, 4 * self.sinks.rotation.rotary_dim)
    }
}

impl Attention<'_> {
    /// The pages that a token sees, where not all.
    pub(super) fn seen(&self, env: &mut Env, token: Val) -> Option<Seen> {
        let sinks = self.kernel.sinks?;
        let last = env.step_index("positions", token);
        let (page, most) = (env.b.index(PAGE), env.b.index(sinks.first + sinks.last));
        let block = env.b.div(last, page);
        let blocks = env.b.add_const(block, 1);
        let count = env.b.min(blocks, most);
        Some(Seen { sinks, count, forgotten: env.b.sub(blocks, count) })
    }

    /// Turns the warp's queries for page `number` (i64) of those seen. No thread reads those of the page before any more.
    pub(super) fn turn(&self, env: &mut Env, own: Own, seen: Seen, number: Val) {
        self.copy_queries(env, own.arrived, own.queries);
        let angles = seen.angles(env, number);
        for h in 0..self.heads {
            let head = env.b.ptr_add_const(own.queries, 4 * h * self.head_dim());
            seen.sinks.rotation.emit(env, head, angles);
        }
    }
}
