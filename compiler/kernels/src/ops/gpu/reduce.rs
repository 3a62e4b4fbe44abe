//! Sums and largest values over a group's threads.

use super::REDUCE_BYTES;
use crate::env::Env;
use crate::group;
use crate::kir::{Builder, Cond, Val};

/// The sum over the group's threads (f32 or i32), in all of them. `shared` is the beginning of shared memory.
pub fn group_sum(env: &mut Env, shared: Val, v: Val) -> Val {
    let own = group::reduce_add(&mut env.b, v);
    over_warps(env, shared, own, Builder::add)
}

/// The largest of the group's threads, in all of them.
pub fn group_max(env: &mut Env, shared: Val, v: Val) -> Val {
    let own = group::reduce_max(&mut env.b, v);
    over_warps(env, shared, own, Builder::max)
}

/// Joins what each warp's threads agree on, in the order of warps.
fn over_warps(env: &mut Env, shared: Val, own: Val, join: fn(&mut Builder, Val, Val) -> Val) -> Val {
    let (warps, warp, lane) = (env.group.warps(), env.group.warp, env.group.lane);
    assert!(4 * warps <= REDUCE_BYTES, "a value for each warp");
    env.b.group_barrier();
    let zero = env.b.index(0);
    let first = env.b.cmp(Cond::Eq, lane, zero);
    env.if_then(first, |env| {
        let at = env.at(shared, warp, 4);
        env.b.store(own, at, 0);
    });
    env.b.group_barrier();
    let ty = env.b.ty(own);
    let values: Vec<Val> = (0..warps).map(|w| env.b.load(ty, shared, 4 * w as i32)).collect();
    values[1..].iter().fold(values[0], |all, v| join(&mut env.b, all, *v))
}
