//! How much attention cached positions get, counted for a runtime that forgets those that are used least.
//!
//! While a token's pages go by, what their positions weigh waits in the worker's scratch, with the maximum that it
//! is relative to. When the sums are known, each position's share of the attention, that of all heads of the group
//! together, is added to its count in the page. The tokens of a key head follow each other in one worker, so counts
//! are the same however a text was cut into steps.

use super::attention::{AttentionKernel, Frame, Item, VECTOR};
use super::kv::Part;
use crate::env::{Count, Env, Place};
use crate::kir::{Ty, Val};
use crate::layout::{ALIGN, LANES, PAGE};
use crate::math;

/// Where what positions weigh waits: [`log_bytes`] for each page that a token sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counts {
    /// In a worker's scratch.
    pub log: Place,
}

/// Bytes that the weights of a page wait in, for so many query heads of a key head: for each of them the page's
/// positions, then for each the maximum.
pub fn log_bytes(heads: usize) -> usize {
    (heads * (PAGE + 1) * 4).next_multiple_of(ALIGN)
}

impl AttentionKernel {
    /// Runs `body` for this worker's tokens and key heads: whole key heads, whose tokens follow each other.
    pub(super) fn items_by_head(&self, env: &mut Env, body: impl FnOnce(&mut Env, Val, Val)) {
        let heads = env.b.index(self.cache.layout.heads);
        env.own_rows(heads, |env, kv_head| {
            let (none, tokens) = (env.b.index(0), env.count(Count::Tokens));
            env.for_range(none, tokens, 1, |env, t| body(env, t, kv_head));
        });
    }

    /// Where page `i` (i64) of those that the token sees is logged.
    pub(super) fn log(&self, env: &mut Env, i: Val) -> Option<Val> {
        let counts = self.counts?;
        let base = env.ptr(counts.log);
        Some(env.at(base, i, log_bytes(self.group())))
    }

    /// Logs what a vector of a page's positions weighs for head `g` of the group.
    pub(super) fn log_weights(&self, env: &mut Env, log: Val, (g, i): (usize, usize), weights: Val) {
        env.b.store(weights, log, (4 * (g * PAGE + i * LANES as usize)) as i32);
    }

    /// Logs what the weights of head `g` are relative to.
    pub(super) fn log_maximum(&self, env: &mut Env, log: Val, g: usize, maximum: Val) {
        env.b.store(maximum, log, (4 * (self.group() * PAGE + g)) as i32);
    }

    /// Adds to the counts of the first `pages` (i64) pages what the token has logged.
    pub(super) fn count(&self, env: &mut Env, frame: &Frame, item: Item, pages: Val) {
        let none = env.b.index(0);
        env.for_range(none, pages, 1, |env, block| {
            let Some(log) = self.log(env, block) else { return };
            let page = self.cache.page(env, item.seq, block);
            let counts = self.cache.head(env, page, Part::Counts, item.kv_head);
            let mut sums: Vec<Val> = vectors().map(|at| env.b.load(VECTOR, counts, at)).collect();
            for g in 0..self.group() {
                let share = self.share(env, frame, log, g);
                for (sum, at) in sums.iter_mut().zip(vectors()) {
                    let weights = env.b.load(VECTOR, log, at + (4 * g * PAGE) as i32);
                    *sum = env.b.fma(weights, share, *sum);
                }
            }
            sums.iter().zip(vectors()).for_each(|(sum, at)| env.b.store(*sum, counts, at));
        });
    }

    /// What makes head `g`'s logged weights shares of one, in all lanes.
    fn share(&self, env: &mut Env, frame: &Frame, log: Val, g: usize) -> Val {
        let then = env.b.load(Ty::F32, log, (4 * (self.group() * PAGE + g)) as i32);
        let (maximum, sum) = frame.stats(env, g);
        let behind = env.b.sub(then, maximum);
        let factor = math::exp(&mut env.b, behind);
        let share = env.b.div(factor, sum);
        env.b.splat(share, LANES)
    }
}

/// Byte offsets of the vectors of a page's positions.
fn vectors() -> impl Iterator<Item = i32> {
    (0..PAGE).step_by(LANES as usize).map(|i| 4 * i as i32)
}
