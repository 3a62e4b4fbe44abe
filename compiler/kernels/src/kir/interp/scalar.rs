//! What instructions do to one lane. A lane is held as its bits, zero extended to 64.

use super::error::Fault;
use crate::kir::{BinOp, Cast, Cond, Elem, UnOp};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// The new lane, or why there is none.
pub(super) type Lane = Result<u64, Fault>;
pub(super) type Fn1 = fn(u64) -> Lane;
pub(super) type Fn2 = fn(u64, u64) -> Lane;
pub(super) type Fn3 = fn(u64, u64, u64) -> Lane;

/// Lower `B` bits.
fn wrap<const B: u32>(v: u64) -> u64 {
    if B == 64 { v } else { v & ((1 << B) - 1) }
}

/// `B` bits as a signed number.
fn signed<const B: u32>(v: u64) -> i64 {
    ((v << (64 - B)) as i64) >> (64 - B)
}

/// Lower `bits` bits.
pub(super) fn wrap_to(v: u64, bits: u32) -> u64 {
    if bits == 64 { v } else { v & ((1 << bits) - 1) }
}

/// A float held as bits.
trait Float:
    Copy
    + PartialOrd
    + Neg<Output = Self>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
{
    fn get(bits: u64) -> Self;
    fn put(self) -> u64;
    fn wide(self) -> f64;
    fn from_int(v: i64) -> Self;
    fn abs(self) -> Self;
    fn sqrt(self) -> Self;
    fn round(self) -> Self;
    fn floor(self) -> Self;
    fn fma(self, b: Self, c: Self) -> Self;
}

macro_rules! float {
    ($ty:ident, $bits:ident) => {
        impl Float for $ty {
            fn get(bits: u64) -> $ty {
                $ty::from_bits(bits as $bits)
            }
            fn put(self) -> u64 {
                u64::from(self.to_bits())
            }
            fn wide(self) -> f64 {
                f64::from(self)
            }
            fn from_int(v: i64) -> $ty {
                v as $ty
            }
            fn abs(self) -> $ty {
                $ty::abs(self)
            }
            fn sqrt(self) -> $ty {
                $ty::sqrt(self)
            }
            fn round(self) -> $ty {
                self.round_ties_even()
            }
            fn floor(self) -> $ty {
                $ty::floor(self)
            }
            fn fma(self, b: $ty, c: $ty) -> $ty {
                self.mul_add(b, c)
            }
        }
    };
}
float!(f32, u32);
float!(f64, u64);

macro_rules! by_width {
    ($elem:expr, $f:ident, $op:expr) => {
        match $elem {
            Elem::I1 => $f::<1>($op),
            Elem::I8 => $f::<8>($op),
            Elem::I16 => $f::<16>($op),
            Elem::I32 => $f::<32>($op),
            Elem::I64 => $f::<64>($op),
            Elem::F32 | Elem::F64 | Elem::Ptr => unreachable!("verified: an integer or truth value"),
        }
    };
}

pub(super) fn un(op: UnOp, elem: Elem) -> Fn1 {
    match elem {
        Elem::F32 => un_float::<f32>(op),
        Elem::F64 => un_float::<f64>(op),
        _ => by_width!(elem, un_int, op),
    }
}

fn un_float<F: Float>(op: UnOp) -> Fn1 {
    match op {
        UnOp::Neg => |a| Ok((-F::get(a)).put()),
        UnOp::Abs => |a| Ok(F::get(a).abs().put()),
        UnOp::Sqrt => |a| Ok(F::get(a).sqrt().put()),
        UnOp::Round => |a| Ok(F::get(a).round().put()),
        UnOp::Floor => |a| Ok(F::get(a).floor().put()),
        UnOp::Not => unreachable!("verified: no bits of a float"),
    }
}

fn un_int<const B: u32>(op: UnOp) -> Fn1 {
    match op {
        UnOp::Neg => |a| Ok(wrap::<B>(a.wrapping_neg())),
        UnOp::Not => |a| Ok(wrap::<B>(!a)),
        _ => unreachable!("verified: only of floats"),
    }
}

pub(super) fn bin(op: BinOp, elem: Elem) -> Fn2 {
    match elem {
        Elem::F32 => bin_float::<f32>(op),
        Elem::F64 => bin_float::<f64>(op),
        _ => by_width!(elem, bin_int, op),
    }
}

fn bin_float<F: Float>(op: BinOp) -> Fn2 {
    match op {
        BinOp::Add => |a, b| Ok((F::get(a) + F::get(b)).put()),
        BinOp::Sub => |a, b| Ok((F::get(a) - F::get(b)).put()),
        BinOp::Mul => |a, b| Ok((F::get(a) * F::get(b)).put()),
        BinOp::Div => |a, b| Ok((F::get(a) / F::get(b)).put()),
        BinOp::Min => |a, b| Ok(if F::get(a) < F::get(b) { a } else { b }),
        BinOp::Max => |a, b| Ok(if F::get(a) > F::get(b) { a } else { b }),
        _ => unreachable!("verified: only of integers"),
    }
}

fn bin_int<const B: u32>(op: BinOp) -> Fn2 {
    match op {
        BinOp::Add => |a, b| Ok(wrap::<B>(a.wrapping_add(b))),
        BinOp::Sub => |a, b| Ok(wrap::<B>(a.wrapping_sub(b))),
        BinOp::Mul => |a, b| Ok(wrap::<B>(a.wrapping_mul(b))),
        BinOp::Div => |a, b| Ok(wrap::<B>((signed::<B>(a) / divisor::<B>(b)?) as u64)),
        BinOp::Rem => |a, b| Ok(wrap::<B>((signed::<B>(a) % divisor::<B>(b)?) as u64)),
        BinOp::Min => |a, b| Ok(if signed::<B>(a) < signed::<B>(b) { a } else { b }),
        BinOp::Max => |a, b| Ok(if signed::<B>(a) > signed::<B>(b) { a } else { b }),
        BinOp::And => |a, b| Ok(a & b),
        BinOp::Or => |a, b| Ok(a | b),
        BinOp::Xor => |a, b| Ok(a ^ b),
        BinOp::Shl => |a, b| Ok(wrap::<B>(a << amount::<B>(b)?)),
        BinOp::LShr => |a, b| Ok(a >> amount::<B>(b)?),
        BinOp::AShr => |a, b| Ok(wrap::<B>((signed::<B>(a) >> amount::<B>(b)?) as u64)),
    }
}

fn divisor<const B: u32>(b: u64) -> Result<i64, Fault> {
    match signed::<B>(b) {
        0 => Err(Fault::Operand("the divisor is 0")),
        -1 => Err(Fault::Operand("the divisor is -1")),
        b => Ok(b),
    }
}

fn amount<const B: u32>(b: u64) -> Result<u32, Fault> {
    if b < u64::from(B) { Ok(b as u32) } else { Err(Fault::Operand("the shift is not less than the width")) }
}

pub(super) fn cmp(cond: Cond, elem: Elem) -> Fn2 {
    match elem {
        Elem::F32 => cmp_float::<f32>(cond),
        Elem::F64 => cmp_float::<f64>(cond),
        _ => by_width!(elem, cmp_int, cond),
    }
}

macro_rules! comparisons {
    ($cond:expr, $get:expr) => {
        match $cond {
            Cond::Eq => |a, b| Ok(u64::from($get(a) == $get(b))),
            Cond::Ne => |a, b| Ok(u64::from($get(a) != $get(b))),
            Cond::Lt => |a, b| Ok(u64::from($get(a) < $get(b))),
            Cond::Le => |a, b| Ok(u64::from($get(a) <= $get(b))),
            Cond::Gt => |a, b| Ok(u64::from($get(a) > $get(b))),
            Cond::Ge => |a, b| Ok(u64::from($get(a) >= $get(b))),
        }
    };
}

fn cmp_float<F: Float>(cond: Cond) -> Fn2 {
    comparisons!(cond, F::get)
}

fn cmp_int<const B: u32>(cond: Cond) -> Fn2 {
    comparisons!(cond, signed::<B>)
}

pub(super) fn fma(elem: Elem) -> Fn3 {
    match elem {
        Elem::F32 => |a, b, c| Ok(f32::get(a).fma(f32::get(b), f32::get(c)).put()),
        _ => |a, b, c| Ok(f64::get(a).fma(f64::get(b), f64::get(c)).put()),
    }
}

pub(super) fn select(c: u64, a: u64, b: u64) -> Lane {
    Ok(if c != 0 { a } else { b })
}

pub(super) fn ptr_add(ptr: u64, bytes: u64) -> Lane {
    Ok(ptr.wrapping_add(bytes))
}

/// See [`crate::kir::Op::Dot2Bf16`]; subnormals are not flushed.
pub(super) fn dot2_bf16(acc: u64, a: u64, b: u64) -> Lane {
    let low = |v: u64| f32::get(v << 16);
    let high = |v: u64| f32::get(v & 0xffff_0000);
    Ok(low(a).fma(low(b), high(a).fma(high(b), f32::get(acc))).put())
}

/// See [`crate::kir::Op::Dot4I8`].
pub(super) fn dot4_i8(acc: u64, a: u64, b: u64) -> Lane {
    let products = (a as u32).to_le_bytes().into_iter().zip((b as u32).to_le_bytes());
    let sum: i32 = products.map(|(a, b)| i32::from(a) * i32::from(b as i8)).sum();
    Ok(u64::from((acc as u32).wrapping_add(sum as u32)))
}

/// See [`crate::kir::Op::Dot2I8`].
pub(super) fn dot2_i8(acc: u64, a: u64, b: u64) -> Lane {
    let half = |i: u32| {
        let byte = |v: u64, k: u32| (v >> (16 * i + 8 * k)) as u8;
        let product = |k: u32| i32::from(byte(a, k)) * i32::from(byte(b, k) as i8);
        let sum = (product(0) + product(1)).clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        let sum = ((acc >> (16 * i)) as i16).wrapping_add(sum);
        u64::from(sum as u16) << (16 * i)
    };
    Ok(half(0) | half(1))
}

/// See [`crate::kir::Op::AddHalves`].
pub(super) fn add_halves(acc: u64, a: u64) -> Lane {
    let [low, high] = [a as i16, (a >> 16) as i16].map(i32::from);
    Ok(u64::from((acc as u32).wrapping_add((low + high) as u32)))
}

/// A conversion that keeps the number of lanes.
pub(super) fn cast(cast: Cast, from: Elem, to: Elem) -> Fn1 {
    match cast {
        Cast::SExt => by_width!(from, sext, to),
        Cast::ZExt | Cast::Bitcast => |a| Ok(a),
        Cast::Trunc => by_width!(to, trunc, ()),
        Cast::IntToFloat => by_width!(from, int_to_float, to),
        Cast::FloatToInt => by_width!(to, float_to_int, from),
        Cast::FExt => |a| Ok(f32::get(a).wide().put()),
        Cast::FTrunc => |a| Ok((f64::get(a) as f32).put()),
        Cast::F16ToF32 => |a| Ok(half::f16::from_bits(a as u16).to_f32().put()),
        Cast::F32ToF16 => |a| Ok(u64::from(half::f16::from_f32(f32::get(a)).to_bits())),
    }
}

fn sext<const B: u32>(to: Elem) -> Fn1 {
    match to {
        Elem::I16 => |a| Ok(wrap::<16>(signed::<B>(a) as u64)),
        Elem::I32 => |a| Ok(wrap::<32>(signed::<B>(a) as u64)),
        _ => |a| Ok(signed::<B>(a) as u64),
    }
}

fn trunc<const B: u32>((): ()) -> Fn1 {
    |a| Ok(wrap::<B>(a))
}

fn int_to_float<const B: u32>(to: Elem) -> Fn1 {
    match to {
        Elem::F32 => |a| Ok(f32::from_int(signed::<B>(a)).put()),
        _ => |a| Ok(f64::from_int(signed::<B>(a)).put()),
    }
}

fn float_to_int<const B: u32>(from: Elem) -> Fn1 {
    match from {
        Elem::F32 => |a| to_int::<B>(f32::get(a).wide()),
        _ => |a| to_int::<B>(f64::get(a)),
    }
}

fn to_int<const B: u32>(v: f64) -> Lane {
    let limit = (1u64 << (B - 1)) as f64;
    let whole = v.trunc();
    if whole >= -limit && whole < limit {
        Ok(wrap::<B>(whole as i64 as u64))
    } else {
        Err(Fault::Operand("the value does not fit the integer"))
    }
}
