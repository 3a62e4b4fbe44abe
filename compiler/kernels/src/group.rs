//! A worker that is a group of threads: warps of 32, and how rows of bf16 lie for matrix products.

use crate::env::{Env, RowElem, WARP};
use crate::kir::{BinOp, Builder, Cast, Elem, Ty, Val};
use crate::math;

/// The threads of a worker.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// How many there are.
    pub threads: usize,
    /// This thread's number: i64.
    pub thread: Val,
    /// This thread's number in its warp: i64.
    pub lane: Val,
    /// This thread's warp: i64.
    pub warp: Val,
}

impl Group {
    /// That of a function under construction. With one thread there are no numbers.
    pub fn new(b: &mut Builder, threads: usize) -> Group {
        if threads == 1 {
            return Group { threads, thread: b.args(), lane: b.args(), warp: b.args() };
        }
        let thread = b.thread();
        let (lanes, five) = (b.index(WARP - 1), b.int(Ty::I64, 5));
        Group { threads, thread, lane: b.and(thread, lanes), warp: b.lshr(thread, five) }
    }

    /// Number of warps.
    pub fn warps(&self) -> usize {
        self.threads / WARP
    }
}

/// The sum over a warp's threads, in all of them.
pub fn reduce_add(b: &mut Builder, v: Val) -> Val {
    reduce(b, v, Builder::add)
}

/// The largest of a warp's threads, in all of them.
pub fn reduce_max(b: &mut Builder, v: Val) -> Val {
    reduce(b, v, Builder::max)
}

fn reduce(b: &mut Builder, v: Val, join: fn(&mut Builder, Val, Val) -> Val) -> Val {
    [16, 8, 4, 2, 1].into_iter().fold(v, |v, mask| {
        let other = b.lane_xor(v, mask);
        join(b, v, other)
    })
}

/// Elements of k whose pairs are put in another order.
pub const K_GROUP: usize = 32;

/// Where pair `pair` of bf16 stands in its row: in each group of 16 pairs those with numbers 4j + t come in the
/// order of t, then j. A thread of a matrix product reads pairs t, t + 4, t + 8 and t + 12, which so
/// stand together.
pub const fn pair_place(pair: usize) -> usize {
    pair / 16 * 16 + pair % 4 * 4 + pair / 4 % 4
}

/// Address of element `index` (i64) of a row of bf16 at `row`, in the order of [`pair_place`].
pub fn bf16_place(env: &mut Env, row: Val, index: Val) -> Val {
    let mut bits = |mask: usize, shift: i64| {
        let mask = env.b.index(mask);
        let kept = env.b.and(index, mask);
        match shift {
            0 => kept,
            _ => {
                let by = env.b.int(Ty::I64, shift.abs());
                env.b.bin(if shift > 0 { BinOp::Shl } else { BinOp::LShr }, kept, by)
            }
        }
    };
    // Bits of the element's number: 0 in the pair, 1-2 t, 3-4 j, 5 and up the group.
    let (within, t, j) = (bits(1, 0), bits(0b110, 2), bits(0b11000, -2));
    let group = bits(!31 & (i64::MAX as usize), 0);
    let low = env.b.or(within, t);
    let low = env.b.or(low, j);
    let place = env.b.or(low, group);
    env.at(row, place, 2)
}

/// Stores four f32 elements of a row from element `index` (i64, a multiple of 4) on, rounded to what it holds.
pub fn store_quad(env: &mut Env, elem: RowElem, v: Val, row: Val, index: Val) {
    if elem != RowElem::Bf16 {
        let to = env.at(row, index, elem.bytes());
        let v = env.rounded(elem, v);
        return env.b.store_with(v, to, 0, 16);
    }
    // Two pairs, whose places are four words apart.
    let half = math::to_bf16(&mut env.b, v);
    let words = env.b.cast(Cast::Bitcast, half, Ty::vector(Elem::I32, 2));
    let to = bf16_place(env, row, index);
    for pair in 0..2 {
        let word = env.b.extract(words, pair);
        env.b.store(word, to, 16 * i32::from(pair));
    }
}

#[cfg(test)]
mod tests {
    use super::pair_place;

    #[test]
    fn places_are_a_permutation_of_each_group() {
        let mut places: Vec<usize> = (16..32).map(pair_place).collect();
        assert_eq!(&places[..5], [16, 20, 24, 28, 17]);
        places.sort_unstable();
        assert!(places.into_iter().eq(16..32));
    }
}
