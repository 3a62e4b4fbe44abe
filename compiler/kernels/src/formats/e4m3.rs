//! e4m3fn: eight bits with four of exponent and three of mantissa (OCP 8-bit Floating Point Specification, 1.0).

use crate::kir::{BinOp, Builder, Cast, Cond, Elem, Ty, UnOp, Val};

/// The largest number.
pub const LARGEST: f64 = 448.0;
/// What [`emit_decode`] leaves out. The bits of an e4m3fn, sign apart, are in the place of a binary16's those of a number
/// so much smaller, below the least normal number too.
pub const RAISE: f64 = 256.0;
/// The least normal number.
const NORMAL: f64 = 1.0 / 64.0;
/// A number whose units in the last place are those of numbers below [`NORMAL`].
const UNITS: f32 = 16384.0;
/// Where in a binary32 the mantissa's three bits begin, and by how much exponents there are larger.
const MANTISSA: i64 = 20;
const EXPONENT: i64 = 127 - 7;

/// Codes (i8) as f32, divided by [`RAISE`].
pub fn emit_decode(b: &mut Builder, codes: Val) -> Val {
    let half = emit_halves(b, codes);
    let floats = b.ty(codes).with_elem(Elem::F32);
    b.cast(Cast::F16ToF32, half, floats)
}

/// The same as binary16 (i16).
fn emit_halves(b: &mut Builder, codes: Val) -> Val {
    let halves = b.ty(codes).with_elem(Elem::I16);
    let wide = b.cast(Cast::SExt, codes, halves);
    let (seven, keep) = (b.int(halves, 7), b.int(halves, 0xBFFF_u16 as i16 as i64));
    let moved = b.shl(wide, seven);
    b.bin(BinOp::And, moved, keep)
}

/// The codes (i8) of numbers (f32), to nearest even; what is larger than the largest becomes that.
pub fn emit_encode(b: &mut Builder, v: Val) -> Val {
    let floats = b.ty(v);
    let words = floats.with_elem(Elem::I32);
    let (largest, normal) = (b.float(floats, LARGEST), b.float(floats, NORMAL));
    let size = b.un(UnOp::Abs, v);
    let size = b.min(size, largest);
    let bits = b.cast(Cast::Bitcast, size, words);
    // To nearest even where a mantissa of three bits ends.
    let (by, one) = (b.int(words, MANTISSA), b.int(words, 1));
    let last = b.lshr(bits, by);
    let odd = b.and(last, one);
    let half = b.int(words, (1 << (MANTISSA - 1)) - 1);
    let raised = b.add(bits, half);
    let raised = b.add(raised, odd);
    let code = b.lshr(raised, by);
    let bias = b.int(words, EXPONENT << 3);
    let code = b.sub(code, bias);
    // Below the least normal number codes count units.
    let units = b.float(floats, f64::from(UNITS));
    let sum = b.add(size, units);
    let sum = b.cast(Cast::Bitcast, sum, words);
    let none = b.int(words, i64::from(UNITS.to_bits()));
    let small = b.sub(sum, none);
    let is_small = b.cmp(Cond::Lt, size, normal);
    let code = b.select(is_small, small, code);
    let signs = b.cast(Cast::Bitcast, v, words);
    let (top, sign) = (b.int(words, 24), b.int(words, 0x80));
    let signs = b.lshr(signs, top);
    let signs = b.and(signs, sign);
    let code = b.or(code, signs);
    b.cast(Cast::Trunc, code, Ty { elem: Elem::I8, ..words })
}
