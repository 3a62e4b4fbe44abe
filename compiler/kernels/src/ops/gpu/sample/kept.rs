//! Which tokens may be chosen: all whose logit is at least some number, which is looked for by halving the range that it
//! lies in.
//!
//! Few pieces of a row hold tokens that matter. A bound that no token kept is below picks them: the `top_k`-th largest of
//! the pieces' largest logits, and what is so far below the largest logit of all that even every token there together
//! would not be missed by `top_p`.

use super::best::BEST_BYTES;
use super::{PIECE, Row, SampleKernel};
use crate::env::{Env, WARP};
use crate::kir::{BinOp, Cast, Cond, Ty, Val};
use crate::math;
use crate::ops::gpu::reduce::{group_before, group_sum};

/// Bits of a number, each of which a step of the search finds.
const STEPS: usize = 32;
/// Offset of a piece's largest logit in memory.
const LARGEST: i32 = 4;

/// A row whose pieces have been picked.
#[derive(Clone, Copy)]
struct Picked {
    shared: Val,
    row: Row,
    /// Largest logit.
    largest: Val,
    /// Numbers of the pieces, i32, and how many there are: i64.
    list: Val,
    count: Val,
}

/// Some sum over tokens with a logit of at least a number.
type SumFrom<'s> = &'s dyn Fn(&mut Env, Val) -> Val;

impl SampleKernel {
    /// Bytes of a list of all pieces.
    pub(super) fn list_bytes(&self) -> usize {
        4 * self.count()
    }

    /// The least logit of a token that is kept. The group's threads come here together.
    pub(super) fn least(
        &self,
        env: &mut Env,
        (shared, list): (Val, Val),
        row: Row,
        (pieces, largest): (Val, Val),
    ) -> Val {
        let settings = row.settings;
        let within = env.b.sub(largest, settings.margin);
        let (none, one) = (env.b.index(0), env.b.float(Ty::F32, 1.0));
        let by_number = env.b.cmp(Cond::Gt, settings.top_k, none);
        let by_share = env.b.cmp(Cond::Lt, settings.top_p, one);
        let filtered = env.b.bin(BinOp::Or, by_number, by_share);
        let filtered = env.b.and(filtered, settings.noisy);
        let found = |env: &mut Env| {
            let lowest = env.b.float(Ty::F32, f64::from(f32::MIN));
            let number = |env: &mut Env| vec![self.bound_of_number(env, shared, row, (pieces, largest))];
            let number = env.if_value(by_number, number, |_| vec![lowest])[0];
            let share = |env: &mut Env| vec![self.bound_of_share(env, row, largest)];
            let share = env.if_value(by_share, share, |_| vec![lowest])[0];
            // What a number of tokens leaves is what a share is of.
            let bound = env.b.select(by_number, number, share);
            let count = self.pick(env, (shared, list), pieces, bound);
            let picked = Picked { shared, row, largest, list, count };
            let least = self.least_of_both(env, picked, [by_number, by_share], bound);
            vec![env.b.max(least, within)]
        };
        env.if_value(filtered, found, |_| vec![within])[0]
    }

    /// The `top_k`-th largest of the pieces' largest logits.
    fn bound_of_number(&self, env: &mut Env, shared: Val, row: Row, (pieces, largest): (Val, Val)) -> Val {
        let sum = |env: &mut Env, least: Val| {
            let zero = env.b.float(Ty::F32, 0.0);
            let own = self.own_pieces(env, pieces, zero, |env, _, found, sum| {
                let one = env.b.float(Ty::F32, 1.0);
                let more = env.b.add(sum, one);
                let counts = env.b.cmp(Cond::Ge, found, least);
                env.b.select(counts, more, sum)
            });
            group_sum(env, shared, own)
        };
        let lowest = env.b.float(Ty::F32, f64::from(f32::MIN));
        let (wanted, none) = (env.b.cast(Cast::IntToFloat, row.settings.top_k, Ty::F32), env.b.float(Ty::F32, 0.0));
        search(env, (lowest, largest), (wanted, none), &sum)
    }

    /// What tokens are below whose share is less than `1 - top_p`, even if all of them stood there.
    fn bound_of_share(&self, env: &mut Env, row: Row, largest: Val) -> Val {
        let (one, all) = (env.b.float(Ty::F32, 1.0), env.b.float(Ty::F32, self.vocab as f64));
        let left = env.b.sub(one, row.settings.top_p);
        let ratio = env.b.div(all, left);
        let far = math::ln(&mut env.b, ratio);
        let far = env.b.mul(far, row.settings.temperature);
        let bound = env.b.sub(largest, far);
        let lowest = env.b.float(Ty::F32, f64::from(f32::MIN));
        env.b.max(bound, lowest)
    }

    /// Goes over this thread's pieces, with their numbers and largest logits.
    fn own_pieces(
        &self,
        env: &mut Env,
        pieces: Val,
        init: Val,
        body: impl FnOnce(&mut Env, Val, Val, Val) -> Val,
    ) -> Val {
        let (count, step) = (env.b.index(self.count()), env.b.index(env.group.threads));
        let values = env.for_carried((env.group.thread, count, step), &[init], |env, piece, values| {
            let at = env.at(pieces, piece, BEST_BYTES);
            let largest = env.b.load(Ty::F32, at, LARGEST);
            vec![body(env, piece, largest, values[0])]
        });
        values[0]
    }

    /// Lists the pieces whose largest logit is at least `bound`: their number.
    fn pick(&self, env: &mut Env, (shared, list): (Val, Val), pieces: Val, bound: Val) -> Val {
        let none = env.b.int(Ty::I32, 0);
        let next = |env: &mut Env, largest: Val, count: Val| {
            let one = env.b.int(Ty::I32, 1);
            let more = env.b.add(count, one);
            let picked = env.b.cmp(Cond::Ge, largest, bound);
            (picked, env.b.select(picked, more, count))
        };
        let own = self.own_pieces(env, pieces, none, |env, _, largest, count| next(env, largest, count).1);
        let (before, all) = group_before(env, shared, own);
        self.own_pieces(env, pieces, before, |env, piece, largest, count| {
            let (picked, after) = next(env, largest, count);
            let place = env.b.cast(Cast::SExt, count, Ty::I64);
            let at = env.at(list, place, 4);
            let piece = env.b.cast(Cast::Trunc, piece, Ty::I32);
            env.if_then(picked, |env| env.b.store(piece, at, 0));
            after
        });
        env.b.group_barrier();
        env.b.cast(Cast::SExt, all, Ty::I64)
    }

    /// The `top_k`-th largest logit, then the largest one with which the tokens from there on have the share `top_p` of
    /// those from the first on; each where it is asked for, and at least `bound`.
    ///
    /// Both are one search, so that its code is there once: tokens weigh 1 in the first, and in the second what they
    /// are likely.
    fn least_of_both(&self, env: &mut Env, picked: Picked, asked: [Val; 2], bound: Val) -> Val {
        let settings = picked.row.settings;
        let (zero, one, two) = (env.b.index(0), env.b.index(1), env.b.index(2));
        let values = env.for_carried((zero, two, one), &[bound], |env, which, values| {
            let second = env.b.cmp(Cond::Eq, which, one);
            let asked = env.b.select(second, asked[1], asked[0]);
            let found = |env: &mut Env| {
                let infinite = env.b.float(Ty::F32, f64::INFINITY);
                // Differences of logits are finite: over this all tokens weigh 1.
                let divisor = env.b.select(second, settings.temperature, infinite);
                let sum = |env: &mut Env, least: Val| self.sum(env, picked, least, divisor);
                let number = env.b.cast(Cast::IntToFloat, settings.top_k, Ty::F32);
                let share = env.b.float(Ty::F32, 0.0);
                let share = env.b.select(second, settings.top_p, share);
                vec![search(env, (values[0], picked.largest), (number, share), &sum)]
            };
            env.if_value(asked, found, |_| values.to_vec())
        });
        values[0]
    }

    /// What tokens with logits of at least `least` weigh together: `exp` of how far below the largest they are, over
    /// `divisor`. Each warp takes picked pieces.
    fn sum(&self, env: &mut Env, picked: Picked, least: Val, divisor: Val) -> Val {
        let (zero, step) = (env.b.float(Ty::F32, 0.0), env.b.index(env.group.warps()));
        let values = env.for_carried((env.group.warp, picked.count, step), &[zero], |env, i, sums| {
            let at = env.at(picked.list, i, 4);
            let piece = env.b.load(Ty::I32, at, 0);
            let piece = env.b.cast(Cast::SExt, piece, Ty::I64);
            let first = env.b.mul_const(piece, PIECE as i64);
            let end = env.b.add_const(first, PIECE as i64);
            let all = env.b.index(self.vocab);
            let (end, by) = (env.b.min(end, all), env.b.index(WARP));
            let first = env.b.add(first, env.group.lane);
            env.for_carried((first, end, by), sums, |env, token, sums| {
                let logit = self.logit(env, picked.row, token);
                let counts = env.b.cmp(Cond::Ge, logit, least);
                let more = |env: &mut Env| {
                    let below = env.b.sub(logit, picked.largest);
                    let scaled = env.b.div(below, divisor);
                    let (zero, same) = (env.b.float(Ty::F32, 0.0), env.b.cmp(Cond::Eq, logit, picked.largest));
                    let scaled = env.b.select(same, zero, scaled);
                    let weight = math::exp(&mut env.b, scaled);
                    vec![env.b.add(sums[0], weight)]
                };
                env.if_value(counts, more, |_| sums.to_vec())
            })
        });
        group_sum(env, picked.shared, values[0])
    }
}

/// The largest number from `low` to `high` from which on `sum` is at least `wanted`, or `low`: that is a number where
/// `share` is 0, and else this share of the sum from `low` on, which is what the first step is for.
fn search(env: &mut Env, (low, high): (Val, Val), (wanted, share): (Val, Val), sum: SumFrom<'_>) -> Val {
    let (low, high) = (key(env, low), key(env, high));
    let (zero, steps, one) = (env.b.index(0), env.b.index(STEPS + 1), env.b.index(1));
    let none = env.b.float(Ty::F32, 0.0);
    let of_sum = env.b.cmp(Cond::Gt, share, none);
    let values = env.for_carried((zero, steps, one), &[low, high, wanted], |env, step, values| {
        let [low, high, wanted] = *values else { unreachable!("three values are carried") };
        let apart = env.b.sub(high, low);
        let up = env.b.add_const(apart, 1);
        let half = env.b.lshr(up, one);
        let half_way = env.b.add(low, half);
        let first = env.b.cmp(Cond::Eq, step, zero);
        let middle = env.b.select(first, low, half_way);
        let number = number(env, middle);
        let found = sum(env, number);
        let part = env.b.mul(found, share);
        let counts = env.b.and(first, of_sum);
        let wanted = env.b.select(counts, part, wanted);
        let enough = env.b.cmp(Cond::Ge, found, wanted);
        let below = env.b.add_const(middle, -1);
        let below = env.b.max(below, low);
        vec![env.b.select(enough, middle, low), env.b.select(enough, high, below), wanted]
    });
    number(env, values[0])
}

/// An i64 that is larger for larger f32.
fn key(env: &mut Env, number: Val) -> Val {
    let bits = env.b.cast(Cast::Bitcast, number, Ty::I32);
    let key = ordered(env, bits);
    env.b.cast(Cast::SExt, key, Ty::I64)
}

/// The f32 of a key.
fn number(env: &mut Env, key: Val) -> Val {
    let key = env.b.cast(Cast::Trunc, key, Ty::I32);
    let bits = ordered(env, key);
    env.b.cast(Cast::Bitcast, bits, Ty::F32)
}

/// Bits of negative numbers but for the sign turned, which turns them back too.
fn ordered(env: &mut Env, bits: Val) -> Val {
    let (by, mask) = (env.b.int(Ty::I32, 31), env.b.int(Ty::I32, i64::from(i32::MAX)));
    let sign = env.b.bin(BinOp::AShr, bits, by);
    let turned = env.b.and(sign, mask);
    env.b.bin(BinOp::Xor, bits, turned)
}
