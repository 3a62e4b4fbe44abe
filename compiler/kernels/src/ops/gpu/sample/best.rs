//! The best token of some.

use crate::env::Env;
use crate::kir::{BinOp, Cond, Ty, Val};

/// Bytes of a [`Best`] in memory.
pub(super) const BEST_BYTES: usize = 16;

/// The best of some tokens.
#[derive(Clone, Copy)]
pub(super) struct Best {
    /// Logit and noise: f32.
    pub score: Val,
    /// Largest logit without noise: f32.
    pub largest: Val,
    /// -1 where no logit was a number: i32.
    pub token: Val,
}

impl Best {
    pub(super) fn nothing(env: &mut Env) -> Best {
        let lowest = env.b.float(Ty::F32, f64::NEG_INFINITY);
        Best { score: lowest, largest: lowest, token: env.b.int(Ty::I32, -1) }
    }

    pub(super) fn values(self) -> Vec<Val> {
        vec![self.score, self.largest, self.token]
    }

    pub(super) fn of(values: &[Val]) -> Best {
        Best { score: values[0], largest: values[1], token: values[2] }
    }

    pub(super) fn load(env: &mut Env, at: Val, offset: i32) -> Best {
        let [score, largest] = [0, 4].map(|o| env.b.load(Ty::F32, at, offset + o));
        Best { score, largest, token: env.b.load(Ty::I32, at, offset + 8) }
    }

    pub(super) fn store_in_first_lane(self, env: &mut Env, at: Val) {
        let zero = env.b.index(0);
        let first = env.b.cmp(Cond::Eq, env.group.lane, zero);
        env.if_then(first, |env| {
            for (i, v) in self.values().into_iter().enumerate() {
                env.b.store(v, at, 4 * i as i32);
            }
        });
    }

    /// The better one; the lower token of equal ones.
    pub(super) fn or(self, env: &mut Env, other: Best) -> Best {
        let better = env.b.cmp(Cond::Gt, other.score, self.score);
        let equal = env.b.cmp(Cond::Eq, other.score, self.score);
        let lower = env.b.cmp(Cond::Lt, other.token, self.token);
        let first = env.b.and(equal, lower);
        let better = env.b.bin(BinOp::Or, better, first);
        Best {
            score: env.b.select(better, other.score, self.score),
            largest: env.b.max(self.largest, other.largest),
            token: env.b.select(better, other.token, self.token),
        }
    }

    /// The best of the warp's threads, in all of them.
    pub(super) fn over_warp(self, env: &mut Env) -> Best {
        [16, 8, 4, 2, 1].into_iter().fold(self, |best, mask| {
            let other: Vec<Val> = best.values().into_iter().map(|v| env.b.lane_xor(v, mask)).collect();
            best.or(env, Best::of(&other))
        })
    }

    /// The best of the group's threads, in all of them.
    pub(super) fn over_group(self, env: &mut Env, shared: Val) -> Best {
        let best = self.over_warp(env);
        env.b.group_barrier();
        let to = env.at(shared, env.group.warp, BEST_BYTES);
        best.store_in_first_lane(env, to);
        env.b.group_barrier();
        let mut best = Best::load(env, shared, 0);
        for warp in 1..env.group.warps() {
            let other = Best::load(env, shared, (warp * BEST_BYTES) as i32);
            best = best.or(env, other);
        }
        best
    }
}
