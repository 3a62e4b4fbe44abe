//! Sums and largest values over a group's threads.

use super::REDUCE_BYTES;
use crate::env::Env;
use crate::group;
use crate::kir::{Builder, Cond, Ty, Val};

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

/// The sum over the threads of the group before this one, and over all of them: of i32.
pub fn group_before(env: &mut Env, shared: Val, v: Val) -> (Val, Val) {
    let none = env.b.int(Ty::I32, 0);
    let (mut before, mut all) = (none, v);
    for mask in [1u8, 2, 4, 8, 16] {
        let other = env.b.lane_xor(all, mask);
        let (bit, zero) = (env.b.index(usize::from(mask)), env.b.index(0));
        let own = env.b.and(env.group.lane, bit);
        let upper = env.b.cmp(Cond::Ne, own, zero);
        let added = env.b.select(upper, other, none);
        before = env.b.add(before, added);
        all = env.b.add(all, other);
    }
    let warps = of_warps(env, shared, all);
    for (number, warp) in warps.iter().enumerate() {
        let number = env.b.index(number);
        let earlier = env.b.cmp(Cond::Lt, number, env.group.warp);
        let added = env.b.select(earlier, *warp, none);
        before = env.b.add(before, added);
    }
    (before, warps[1..].iter().fold(warps[0], |sum, v| env.b.add(sum, *v)))
}

/// Joins what each warp's threads agree on, in the order of warps.
fn over_warps(env: &mut Env, shared: Val, own: Val, join: fn(&mut Builder, Val, Val) -> Val) -> Val {
    let values = of_warps(env, shared, own);
    values[1..].iter().fold(values[0], |all, v| join(&mut env.b, all, *v))
}

/// What each warp's threads agree on, in all threads of the group.
fn of_warps(env: &mut Env, shared: Val, own: Val) -> Vec<Val> {
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
    (0..warps).map(|w| env.b.load(ty, shared, 4 * w as i32)).collect()
}
