//! The choice of a token from a row of logits; [`llmc_abi::step::Sampling`] says which one.
//!
//! Warps take pieces of a row, each worker a contiguous range of them, and keep each piece's best token and
//! largest logit in memory. The worker that completes a row compares its pieces. The best token of all is
//! the best one of those that are kept, if it is one of them; where it is not, that worker goes through the row
//! once more.

mod best;
mod kept;

use super::REDUCE_BYTES;
use super::noise::{self, gumbel};
use crate::env::{Count, Env, Place, Scratch, WARP};
use crate::kir::{Cast, Cond, Function, Ty, Val};
use best::{BEST_BYTES, Best};
use llmc_abi::step::Sampling;
use std::mem::offset_of;

/// Logits of a piece.
const PIECE: usize = 4 * WARP;

/// Chooses a token for each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleKernel {
    /// Logits of a row.
    pub vocab: usize,
    /// Where the results of pieces wait: [`SampleKernel::bytes`].
    pub pieces: Place,
    /// Number of the first row's counter.
    pub counters: usize,
}

/// How to choose.
#[derive(Clone, Copy)]
struct Settings {
    temperature: Val,
    margin: Val,
    top_p: Val,
    /// i64.
    top_k: Val,
    /// Whether there is noise.
    noisy: Val,
}

/// A row.
#[derive(Clone, Copy)]
struct Row {
    logits: Val,
    /// Seed of its noise.
    key: Val,
    settings: Settings,
}

impl SampleKernel {
    /// Bytes for the results of pieces of `rows` rows.
    pub fn bytes(vocab: usize, rows: usize) -> usize {
        rows * vocab.div_ceil(PIECE) * BEST_BYTES
    }

    fn count(&self) -> usize {
        self.vocab.div_ceil(PIECE)
    }

    /// Emits the kernel.
    pub fn build(&self, name: &str, scratch: Scratch) -> Function {
        let mut env = Env::new(name, scratch);
        let own = (scratch.threads / WARP * BEST_BYTES).max(REDUCE_BYTES);
        let shared = env.b.shared(own + self.list_bytes());
        let list = env.b.ptr_add_const(shared, own);
        let at = env.field("sampling");
        let choose = env.b.load(Ty::I64, at, offset_of!(Sampling, choose) as i32);
        let n = env.count(Count::Rows);
        let (zero, rows) = (env.b.index(0), env.b.mul(n, choose));
        let all = env.b.index(self.count());
        let range = env.share(all);
        env.for_range(zero, rows, 1, |env, index| {
            let row = self.prepare(env, at, index);
            self.row(env, (shared, list), row, (index, range));
        });
        env.finish()
    }

    fn prepare(&self, env: &mut Env, sampling: Val, index: Val) -> Row {
        let load = |env: &mut Env, ty, offset: usize| env.b.load(ty, sampling, offset as i32);
        let temperature = load(env, Ty::F32, offset_of!(Sampling, temperature));
        let margin = load(env, Ty::F32, offset_of!(Sampling, margin));
        let top_p = load(env, Ty::F32, offset_of!(Sampling, top_p));
        let top_k = load(env, Ty::I32, offset_of!(Sampling, top_k));
        let top_k = env.b.cast(Cast::ZExt, top_k, Ty::I64);
        let seed = load(env, Ty::I64, offset_of!(Sampling, seed));
        let zero = env.b.float(Ty::F32, 0.0);
        let noisy = env.b.cmp(Cond::Gt, temperature, zero);
        let token = env.step_index("rows", index);
        let position = env.step_index("positions", token);
        let key = noise::output(&mut env.b, seed, position);
        let logits = env.ptr(Place::Logits);
        let logits = env.at(logits, index, 4 * self.vocab);
        Row { logits, key, settings: Settings { temperature, margin, top_p, top_k, noisy } }
    }

    /// This worker's pieces of a row, and all of it where they are the last ones.
    fn row(&self, env: &mut Env, shared: (Val, Val), row: Row, (index, (lo, hi)): (Val, (Val, Val))) {
        let pieces = env.ptr(self.pieces);
        let pieces = env.at(pieces, index, self.count() * BEST_BYTES);
        let (first, step) = (env.b.add(lo, env.group.warp), env.b.index(env.group.warps()));
        env.for_step(first, hi, step, |env, piece| {
            let best = self.piece(env, row, piece);
            let to = env.at(pieces, piece, BEST_BYTES);
            best.store_in_first_lane(env, to);
        });
        let some = env.b.cmp(Cond::Lt, lo, hi);
        env.if_then(some, |env| {
            let add = env.b.sub(hi, lo);
            let add = env.b.cast(Cast::Trunc, add, Ty::I32);
            let counter = env.ptr(Place::Counter(self.counters));
            let counter = env.at(counter, index, 4);
            let last = env.b.last_of(counter, add, self.count());
            env.if_then(last, |env| self.finish(env, shared, row, (index, pieces)));
        });
    }

    /// The best of a piece, in all threads of the warp.
    fn piece(&self, env: &mut Env, row: Row, piece: Val) -> Best {
        let first = env.b.mul_const(piece, PIECE as i64);
        let first = env.b.add(first, env.group.lane);
        let mut best = Best::nothing(env);
        for step in (0..PIECE).step_by(WARP) {
            let i = env.b.add_const(first, step as i64);
            if self.vocab.is_multiple_of(PIECE) {
                best = self.with_token(env, row, best, (i, None));
                continue;
            }
            let end = env.b.index(self.vocab);
            let inside = env.b.cmp(Cond::Lt, i, end);
            let more = |env: &mut Env| self.with_token(env, row, best, (i, None)).values();
            best = Best::of(&env.if_value(inside, more, |_| best.values()));
        }
        best.over_warp(env)
    }

    /// Compares the pieces of a row, which are all there, and writes the token.
    fn finish(&self, env: &mut Env, (shared, list): (Val, Val), row: Row, (index, pieces): (Val, Val)) {
        let (thread, step) = (env.group.thread, env.b.index(env.group.threads));
        let (count, none) = (env.b.index(self.count()), Best::nothing(env));
        let best = env.for_carried((thread, count, step), &none.values(), |env, piece, best| {
            let at = env.at(pieces, piece, BEST_BYTES);
            let piece = Best::load(env, at, 0);
            Best::of(best).or(env, piece).values()
        });
        let best = Best::of(&best).over_group(env, shared);
        let least = self.least(env, (shared, list), row, (pieces, best.largest));
        let own = {
            let zero = env.b.int(Ty::I32, 0);
            let token = env.b.max(best.token, zero);
            let token = env.b.cast(Cast::SExt, token, Ty::I64);
            self.logit(env, row, token)
        };
        let outside = env.b.cmp(Cond::Lt, own, least);
        let again = |env: &mut Env| self.within(env, shared, row, least).values();
        let best = Best::of(&env.if_value(outside, again, |_| best.values()));
        self.write(env, index, best.token);
    }

    /// The best token whose logit is at least `least`, in all threads of the group.
    fn within(&self, env: &mut Env, shared: Val, row: Row, least: Val) -> Best {
        let (thread, step) = (env.group.thread, env.b.index(env.group.threads));
        let (end, none) = (env.b.index(self.vocab), Best::nothing(env));
        let best = env.for_carried((thread, end, step), &none.values(), |env, i, best| {
            self.with_token(env, row, Best::of(best), (i, Some(least))).values()
        });
        Best::of(&best).over_group(env, shared)
    }

    /// The best of those before and a later token `i` (i64), which counts if its logit is not below `least`.
    fn with_token(&self, env: &mut Env, row: Row, best: Best, (i, least): (Val, Option<Val>)) -> Best {
        let logit = self.logit(env, row, i);
        let noisy = |env: &mut Env| {
            let noise = gumbel(&mut env.b, row.key, i);
            vec![env.b.fma(row.settings.temperature, noise, logit)]
        };
        let score = env.if_value(row.settings.noisy, noisy, |_| vec![logit])[0];
        let mut better = env.b.cmp(Cond::Gt, score, best.score);
        if let Some(least) = least {
            let within = env.b.cmp(Cond::Ge, logit, least);
            better = env.b.and(better, within);
        }
        let token = env.b.cast(Cast::Trunc, i, Ty::I32);
        let larger = env.b.cmp(Cond::Gt, logit, best.largest);
        Best {
            score: env.b.select(better, score, best.score),
            largest: env.b.select(larger, logit, best.largest),
            token: env.b.select(better, token, best.token),
        }
    }

    /// Logit `i` (i64) of a row, the largest number where it is infinite.
    fn logit(&self, env: &mut Env, row: Row, i: Val) -> Val {
        let at = env.at(row.logits, i, 4);
        let logit = env.b.load(Ty::F32, at, 0);
        let most = env.b.float(Ty::F32, f64::from(f32::MAX));
        let above = env.b.cmp(Cond::Gt, logit, most);
        env.b.select(above, most, logit)
    }

    fn write(&self, env: &mut Env, index: Val, token: Val) {
        let zero = env.b.index(0);
        let first = env.b.cmp(Cond::Eq, env.group.thread, zero);
        let sampled = env.field("sampled");
        let to = env.at(sampled, index, 4);
        let n = env.count(Count::Rows);
        let told = env.at(to, n, 4);
        env.if_then(first, |env| {
            let none = env.b.int(Ty::I32, 0);
            let fed = env.b.max(token, none);
            env.b.store(fed, to, 0);
            env.b.store(token, told, 0);
        });
    }
}
