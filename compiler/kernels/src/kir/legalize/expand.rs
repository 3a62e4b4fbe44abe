//! Replaces instructions a target lacks by sequences of simpler ones, lane count unchanged.

use super::Limits;
use super::half;
use super::rewrite::{Env, Pass, copy};
use super::tiles;
use crate::kir::func::Val;
use crate::kir::{BinOp, Builder, Cast, Cond, Elem, Op, Ty};

/// What is replaced while vectors are whole: what works across their lanes or in memory.
pub(super) struct ExpandWhole(pub Limits);

impl Pass for ExpandWhole {
    fn op(&self, b: &mut Builder, env: &Env<'_>, op: &Op, ty: Option<Ty>) -> Vec<Val> {
        let limits = &self.0;
        let v = |v: &Val| env.one(*v);
        match op {
            Op::Lookup16 { table, index } if !limits.native_lookup16 || limits.vector_bits < 512 => {
                vec![lookup16(b, v(table), v(index))]
            }
            Op::Tiles { tiles: t, x, panels, sums, rows } if !limits.native_tiles => {
                tiles::expand(b, *t, (v(x), v(panels), v(sums)), v(rows));
                vec![]
            }
            _ => copy(b, env, op, ty),
        }
    }
}

/// What is replaced in each part of a vector for itself, so that few values are in flight.
pub(super) struct Expand(pub Limits);

impl Pass for Expand {
    fn op(&self, b: &mut Builder, env: &Env<'_>, op: &Op, ty: Option<Ty>) -> Vec<Val> {
        let limits = &self.0;
        let v = |v: &Val| env.one(*v);
        let new = match op {
            Op::Cast(Cast::F16ToF32, a) if !limits.native_f16 => half::to_f32(b, v(a)),
            Op::Cast(Cast::F32ToF16, a) if !limits.native_f16 => half::from_f32(b, v(a)),
            Op::Dot2Bf16 { acc, a, b: c } if !limits.native_dot2_bf16 => dot2_bf16(b, limits.fma, v(acc), v(a), v(c)),
            Op::Dot4I8 { acc, a, b: c } if !limits.native_dot4_i8 => dot4_i8(b, v(acc), v(a), v(c)),
            Op::Dot2I8 { acc, a, b: c } if !limits.native_dot2_i8 => dot2_i8(b, v(acc), v(a), v(c)),
            Op::AddHalves { acc, a } if !limits.native_dot2_i8 => add_halves(b, v(acc), v(a)),
            Op::Fma(x, y, z) => fma(b, limits.fma, v(x), v(y), v(z)),
            _ => return copy(b, env, op, ty),
        };
        vec![new]
    }
}

fn fma(b: &mut Builder, native: bool, x: Val, y: Val, z: Val) -> Val {
    if native {
        return b.fma(x, y, z);
    }
    let product = b.mul(x, y);
    b.add(product, z)
}

/// A bf16 is the upper half of an f32: shifting or masking converts it.
fn dot2_bf16(b: &mut Builder, native_fma: bool, acc: Val, x: Val, y: Val) -> Val {
    let ints = b.ty(x);
    let floats = ints.with_elem(Elem::F32);
    let sixteen = b.int(ints, 16);
    let upper = b.int(ints, -0x1_0000);
    let lo = [x, y].map(|v| b.shl(v, sixteen)).map(|v| b.cast(Cast::Bitcast, v, floats));
    let hi = [x, y].map(|v| b.and(v, upper)).map(|v| b.cast(Cast::Bitcast, v, floats));
    let acc = fma(b, native_fma, hi[0], hi[1], acc);
    fma(b, native_fma, lo[0], lo[1], acc)
}

fn dot4_i8(b: &mut Builder, acc: Val, x: Val, y: Val) -> Val {
    (0..4).fold(acc, |acc, k| {
        let product = byte_product(b, x, y, k);
        b.add(acc, product)
    })
}

/// The product of unsigned byte `k` of x with signed byte `k` of y.
fn byte_product(b: &mut Builder, x: Val, y: Val, k: i64) -> Val {
    let ty = b.ty(x);
    let (byte, top) = (b.int(ty, 255), b.int(ty, 24));
    let right = b.int(ty, 8 * k);
    let left = b.int(ty, 24 - 8 * k);
    let unsigned = b.lshr(x, right);
    let unsigned = b.and(unsigned, byte);
    let signed = b.shl(y, left);
    let signed = b.bin(BinOp::AShr, signed, top);
    b.mul(unsigned, signed)
}

fn dot2_i8(b: &mut Builder, acc: Val, x: Val, y: Val) -> Val {
    let ty = b.ty(x);
    let (least, most) = (b.int(ty, i16::MIN.into()), b.int(ty, i16::MAX.into()));
    let sum = |b: &mut Builder, k: i64| {
        let (first, second) = (byte_product(b, x, y, k), byte_product(b, x, y, k + 1));
        let sum = b.add(first, second);
        let sum = b.bin(BinOp::Max, sum, least);
        b.bin(BinOp::Min, sum, most)
    };
    let (low, high) = (sum(b, 0), sum(b, 2));
    let (mask, sixteen) = (b.int(ty, 0xffff), b.int(ty, 16));
    // The low half must not carry into the high one.
    let low = b.add(acc, low);
    let low = b.and(low, mask);
    let high = b.shl(high, sixteen);
    let rest = b.int(ty, -0x1_0000);
    let upper = b.and(acc, rest);
    let high = b.add(upper, high);
    b.bin(BinOp::Or, high, low)
}

fn add_halves(b: &mut Builder, acc: Val, x: Val) -> Val {
    let sixteen = b.int(b.ty(x), 16);
    let low = b.shl(x, sixteen);
    let [low, high] = [low, x].map(|v| b.bin(BinOp::AShr, v, sixteen));
    let sum = b.add(acc, low);
    b.add(sum, high)
}

/// Chooses between pairs of numbers by the lowest bit of the index, between what is left by the next, and so on.
fn lookup16(b: &mut Builder, table: Val, index: Val) -> Val {
    let (ints, lanes) = (b.ty(index), b.ty(index).lanes);
    let mut left: Vec<Val> = (0..16)
        .map(|lane| {
            let number = b.extract(table, lane);
            b.splat(number, lanes)
        })
        .collect();
    let zero = b.int(ints, 0);
    for bit in 0..4 {
        let bit = b.int(ints, 1 << bit);
        let set = b.and(index, bit);
        let even = b.cmp(Cond::Eq, set, zero);
        left = left.chunks_exact(2).map(|pair| b.select(even, pair[0], pair[1])).collect();
    }
    left[0]
}
