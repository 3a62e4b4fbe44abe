//! Conversions between binary16 and binary32 in integer arithmetic and one exact or correctly
//! rounded float operation each.
//!
//! No operand or result of a float operation is subnormal where it matters, so that the result
//! does not depend on the processor's flush modes. NaNs keep sign and upper payload and become
//! quiet, as processors do it.

use crate::kir::func::Val;
use crate::kir::{BinOp, Builder, Cast, Cond, Elem, Ty};

/// Difference of the exponent biases, at binary32's exponent position.
const REBIAS: i64 = (127 - 15) << 23;

struct Ints<'a> {
    b: &'a mut Builder,
    ty: Ty,
}

impl Ints<'_> {
    fn bin(&mut self, op: BinOp, a: Val, constant: i64) -> Val {
        let k = self.b.int(self.ty, constant);
        self.b.bin(op, a, k)
    }

    fn cmp(&mut self, cond: Cond, a: Val, constant: i64) -> Val {
        let k = self.b.int(self.ty, constant);
        self.b.cmp(cond, a, k)
    }

    fn select(&mut self, c: Val, a: Val, constant: i64) -> Val {
        let k = self.b.int(self.ty, constant);
        self.b.select(c, a, k)
    }

    fn as_float(&mut self, a: Val) -> Val {
        self.b.cast(Cast::Bitcast, a, self.ty.with_elem(Elem::F32))
    }

    fn as_int(&mut self, a: Val) -> Val {
        self.b.cast(Cast::Bitcast, a, self.ty)
    }
}

/// i16 lanes holding binary16 as f32.
pub(super) fn to_f32(b: &mut Builder, half: Val) -> Val {
    let ty = b.ty(half).with_elem(Elem::I32);
    let wide = b.cast(Cast::ZExt, half, ty);
    let i = &mut Ints { b, ty };
    let magnitude = i.bin(BinOp::And, wide, 0x7fff);
    let sign = i.bin(BinOp::And, wide, 0x8000);
    let sign = i.bin(BinOp::Shl, sign, 16);
    let shifted = i.bin(BinOp::Shl, magnitude, 13);
    let normal = i.bin(BinOp::Add, shifted, REBIAS);
    let special = special_to_f32(i, magnitude, normal);
    let subnormal = subnormal_to_f32(i, shifted);
    let is_special = i.cmp(Cond::Ge, magnitude, 0x7c00);
    let is_subnormal = i.cmp(Cond::Lt, magnitude, 0x400);
    let finite = i.b.select(is_subnormal, subnormal, normal);
    let unsigned = i.b.select(is_special, special, finite);
    let bits = i.b.or(unsigned, sign);
    i.as_float(bits)
}

/// Infinity or a NaN: the exponent goes on to 255 and a NaN becomes quiet.
fn special_to_f32(i: &mut Ints<'_>, magnitude: Val, normal: Val) -> Val {
    let moved = i.bin(BinOp::Add, normal, REBIAS);
    let quiet = i.bin(BinOp::Or, moved, 1 << 22);
    let is_nan = i.cmp(Cond::Gt, magnitude, 0x7c00);
    i.b.select(is_nan, quiet, moved)
}

/// `m * 2^-24` as `(2^-14 + m * 2^-24) - 2^-14`; the difference is exact.
fn subnormal_to_f32(i: &mut Ints<'_>, shifted: Val) -> Val {
    const OFFSET: i64 = 113 << 23;
    let sum = i.bin(BinOp::Add, shifted, OFFSET);
    let offset = i.b.int(i.ty, OFFSET);
    let (sum, offset) = (i.as_float(sum), i.as_float(offset));
    let value = i.b.sub(sum, offset);
    i.as_int(value)
}

/// f32 lanes as i16 holding binary16, to nearest even.
pub(super) fn from_f32(b: &mut Builder, float: Val) -> Val {
    let ty = b.ty(float).with_elem(Elem::I32);
    let bits = b.cast(Cast::Bitcast, float, ty);
    let i = &mut Ints { b, ty };
    let magnitude = i.bin(BinOp::And, bits, 0x7fff_ffff);
    let sign = i.bin(BinOp::LShr, bits, 16);
    let sign = i.bin(BinOp::And, sign, 0x8000);
    let normal = normal_from_f32(i, magnitude);
    let subnormal = subnormal_from_f32(i, magnitude);
    let special = special_from_f32(i, magnitude);
    let is_special = i.cmp(Cond::Ge, magnitude, 0x4780_0000);
    let is_subnormal = i.cmp(Cond::Lt, magnitude, 0x3880_0000);
    let finite = i.b.select(is_subnormal, subnormal, normal);
    let unsigned = i.b.select(is_special, special, finite);
    let half = i.b.or(unsigned, sign);
    b.cast(Cast::Trunc, half, ty.with_elem(Elem::I16))
}

/// Rounds 13 bits away; a carry runs into the exponent and, at its end, to infinity.
fn normal_from_f32(i: &mut Ints<'_>, magnitude: Val) -> Val {
    let odd = i.bin(BinOp::LShr, magnitude, 13);
    let odd = i.bin(BinOp::And, odd, 1);
    let rebiased = i.bin(BinOp::Add, magnitude, 0xfff - REBIAS);
    let rounded = i.b.add(rebiased, odd);
    i.bin(BinOp::LShr, rounded, 13)
}

/// One unit of `0.5 + x` is binary16's smallest subnormal: the addition rounds.
fn subnormal_from_f32(i: &mut Ints<'_>, magnitude: Val) -> Val {
    const HALF: i64 = 126 << 23;
    let offset = i.b.int(i.ty, HALF);
    let (value, offset) = (i.as_float(magnitude), i.as_float(offset));
    let sum = i.b.add(value, offset);
    let sum = i.as_int(sum);
    i.bin(BinOp::Sub, sum, HALF)
}

/// 65536 and more becomes infinity; a NaN keeps ten bits and becomes quiet.
fn special_from_f32(i: &mut Ints<'_>, magnitude: Val) -> Val {
    let payload = i.bin(BinOp::LShr, magnitude, 13);
    let payload = i.bin(BinOp::And, payload, 0x3ff);
    let nan = i.bin(BinOp::Or, payload, 0x7e00);
    let is_nan = i.cmp(Cond::Gt, magnitude, 0x7f80_0000);
    i.select(is_nan, nan, 0x7c00)
}
