//! Numbers that look random and can be had in any order: outputs of SplitMix64 (Steele, Lea and Flood 2014,
//! "Fast splittable pseudorandom number generators"), whose state after n steps is known.

use crate::kir::{BinOp, Builder, Cast, Ty, Val};
use crate::math;

/// What a step adds to the state.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
/// Shifts and factors that make an output of a state.
const ROUNDS: [(i64, u64); 2] = [(30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB)];

/// Output `index` (i64, from 0) of the generator seeded with `seed` (i64).
pub fn output(b: &mut Builder, seed: Val, index: Val) -> Val {
    let steps = b.add_const(index, 1);
    let moved = b.mul_const(steps, STEP as i64);
    let mut z = b.add(seed, moved);
    for (shift, factor) in ROUNDS {
        z = folded(b, z, shift);
        z = b.mul_const(z, factor as i64);
    }
    folded(b, z, 31)
}

/// `z ^ (z >> shift)`.
fn folded(b: &mut Builder, z: Val, shift: i64) -> Val {
    let by = b.int(Ty::I64, shift);
    let upper = b.lshr(z, by);
    b.bin(BinOp::Xor, z, upper)
}

/// `-ln(-ln u)` for the u in 0..1 of output `index` of the generator seeded with `seed`: f32, at most 22.2.
pub fn gumbel(b: &mut Builder, seed: Val, index: Val) -> Val {
    let bits = output(b, seed, index);
    let by = b.int(Ty::I64, 33);
    let bits = b.lshr(bits, by);
    let bits = b.cast(Cast::Trunc, bits, Ty::I32);
    let waited = math::exponential(b, bits);
    let log = math::ln(b, waited);
    b.un(crate::kir::UnOp::Neg, log)
}
