//! Elementary functions in KIR, on f32 vectors or scalars. Kernels import no math library.
//!
//! Bounds hold on targets with a fused multiply-add; without one they double.

use crate::kir::{BinOp, Builder, Cast, Cond, Elem, Ty, UnOp, Val};

/// e^x. Relative error at most 2 units in the last place for x in [-87, 88]; below, at most
/// 2e-38; above, clamped to e^88.
pub fn exp(b: &mut Builder, x: Val) -> Val {
    let ty = b.ty(x);
    let (lo, hi) = (b.float(ty, -87.0), b.float(ty, 88.0));
    let x = b.max(x, lo);
    let x = b.min(x, hi);
    let log2e = b.float(ty, std::f64::consts::LOG2_E);
    let scaled = b.mul(x, log2e);
    let n = b.un(UnOp::Round, scaled);
    // ln 2 in two parts; the first has few bits, so its product with n is exact.
    let (ln2_hi, ln2_lo) = (b.float(ty, -0.693359375), b.float(ty, 2.121_944_4e-4));
    let r = b.fma(n, ln2_hi, x);
    let r = b.fma(n, ln2_lo, r);
    let coefficients =
        [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0].map(|c| b.float(ty, c));
    let p = horner(b, r, &coefficients);
    let n = b.cast(Cast::FloatToInt, n, ty.with_elem(Elem::I32));
    let (bias, shift) = (b.int(b.ty(n), 127), b.int(b.ty(n), 23));
    let exponent = b.add(n, bias);
    let bits = b.shl(exponent, shift);
    let power = b.cast(Cast::Bitcast, bits, ty);
    b.mul(p, power)
}

/// Natural logarithm of a normal number above 0. Relative error at most 2 units in the last place away from
/// 1, absolute error at most 1e-7 near it (Cephes, logf).
pub fn ln(b: &mut Builder, x: Val) -> Val {
    let (r, e) = near_one(b, x);
    ln_1p(b, r, e)
}

/// `-ln(1 - (n + 1/2) / 2^31)` for n in `0..2^31` (i32): exponentially distributed where n is uniform. The
/// relative error is at most 4 units in the last place also where the value is tiny.
pub fn exponential(b: &mut Builder, n: Val) -> Val {
    let (ty, int) = (b.ty(n).with_elem(Elem::F32), b.ty(n));
    let part = |b: &mut Builder, n: Val| {
        let (half, unit) = (b.float(ty, 0.5), b.float(ty, 1.0 / (1u64 << 31) as f64));
        let n = b.cast(Cast::IntToFloat, n, ty);
        let n = b.add(n, half);
        b.mul(n, unit)
    };
    let most = b.int(int, i64::from(i32::MAX));
    let complement = b.bin(BinOp::Sub, most, n);
    let x = part(b, complement);
    let (r, e) = near_one(b, x);
    // Up to a quarter 1 - x is known better than from x.
    let quarter = b.int(int, 1 << 29);
    let small = b.cmp(Cond::Lt, n, quarter);
    let exact = part(b, n);
    let exact = b.un(UnOp::Neg, exact);
    let r = b.select(small, exact, r);
    let log = ln_1p(b, r, e);
    b.un(UnOp::Neg, log)
}

/// r and e with `x = (1 + r) * 2^e` and 1 + r between the roots of 1/2 and 2; e is a float.
fn near_one(b: &mut Builder, x: Val) -> (Val, Val) {
    let (ty, int) = (b.ty(x), b.ty(x).with_elem(Elem::I32));
    let bits = b.cast(Cast::Bitcast, x, int);
    let (root, shift) = (b.int(int, i64::from(std::f32::consts::FRAC_1_SQRT_2.to_bits())), b.int(int, 23));
    let above = b.bin(BinOp::Sub, bits, root);
    let e = b.bin(BinOp::AShr, above, shift);
    let moved = b.shl(e, shift);
    let m = b.bin(BinOp::Sub, bits, moved);
    let (m, one) = (b.cast(Cast::Bitcast, m, ty), b.float(ty, 1.0));
    (b.sub(m, one), b.cast(Cast::IntToFloat, e, ty))
}

/// `ln(1 + r) + e * ln 2` for 1 + r between the roots of 1/2 and 2.
fn ln_1p(b: &mut Builder, r: Val, e: Val) -> Val {
    let ty = b.ty(r);
    let coefficients = [
        7.037_683_6e-2,
        -1.151_461_03e-1,
        1.167_699_874e-1,
        -1.242_014_084_6e-1,
        1.424_932_278_7e-1,
        -1.666_805_766_5e-1,
        2.000_071_476_5e-1,
        -2.499_999_399_3e-1,
        3.333_333_117_4e-1,
    ]
    .map(|c| b.float(ty, c));
    let square = b.mul(r, r);
    let cube = b.mul(square, r);
    let p = horner(b, r, &coefficients);
    let (ln2_hi, ln2_lo, half) = (b.float(ty, 0.693359375), b.float(ty, -2.121_944_4e-4), b.float(ty, -0.5));
    let y = b.mul(cube, p);
    let y = b.fma(e, ln2_lo, y);
    let y = b.fma(square, half, y);
    let y = b.add(r, y);
    b.fma(e, ln2_hi, y)
}

/// Polynomial with the highest coefficient first.
fn horner(b: &mut Builder, x: Val, coefficients: &[Val]) -> Val {
    coefficients[1..].iter().fold(coefficients[0], |acc, c| b.fma(acc, x, *c))
}

/// x / (1 + e^-x).
pub fn silu(b: &mut Builder, x: Val) -> Val {
    let ty = b.ty(x);
    let negated = b.un(UnOp::Neg, x);
    let e = exp(b, negated);
    let one = b.float(ty, 1.0);
    let denominator = b.add(e, one);
    b.div(x, denominator)
}

/// tanh x, absolute error at most 3e-7.
pub fn tanh(b: &mut Builder, x: Val) -> Val {
    let ty = b.ty(x);
    let (one, two) = (b.float(ty, 1.0), b.float(ty, 2.0));
    let doubled = b.mul(x, two);
    let e = exp(b, doubled);
    let denominator = b.add(e, one);
    let q = b.div(two, denominator);
    b.sub(one, q)
}

/// x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).
pub fn gelu_tanh(b: &mut Builder, x: Val) -> Val {
    let ty = b.ty(x);
    let (c, k) = (b.float(ty, 0.044715), b.float(ty, 0.797_884_560_802_865_4));
    let square = b.mul(x, x);
    let cube = b.mul(square, x);
    let inner = b.fma(c, cube, x);
    let scaled = b.mul(k, inner);
    let t = tanh(b, scaled);
    half_times_one_plus(b, x, t)
}

/// x/2 * (1 + erf(x / sqrt 2)); erf by Abramowitz and Stegun 7.1.26, absolute error at most 5e-7.
pub fn gelu(b: &mut Builder, x: Val) -> Val {
    let ty = b.ty(x);
    let z = {
        let k = b.float(ty, std::f64::consts::FRAC_1_SQRT_2);
        b.mul(x, k)
    };
    let magnitude = b.un(UnOp::Abs, z);
    let (one, p) = (b.float(ty, 1.0), b.float(ty, 0.327_591_1));
    let denominator = b.fma(p, magnitude, one);
    let t = b.div(one, denominator);
    let coefficients =
        [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592].map(|c| b.float(ty, c));
    let poly = horner(b, t, &coefficients);
    let poly = b.mul(poly, t);
    let square = b.mul(z, z);
    let negated = b.un(UnOp::Neg, square);
    let e = exp(b, negated);
    let tail = b.mul(poly, e);
    let positive = b.sub(one, tail);
    let negative = b.un(UnOp::Neg, positive);
    let zero = b.float(ty, 0.0);
    let below = b.cmp(Cond::Lt, z, zero);
    let erf = b.select(below, negative, positive);
    half_times_one_plus(b, x, erf)
}

fn half_times_one_plus(b: &mut Builder, x: Val, t: Val) -> Val {
    let ty = b.ty(x);
    let (half, one) = (b.float(ty, 0.5), b.float(ty, 1.0));
    let sum = b.add(t, one);
    let h = b.mul(x, half);
    b.mul(h, sum)
}

/// Rounds f32 to bf16, to nearest even; the result is i16. NaN stays NaN.
pub fn to_bf16(b: &mut Builder, x: Val) -> Val {
    let ty = b.ty(x);
    let ity = ty.with_elem(Elem::I32);
    let bits = b.cast(Cast::Bitcast, x, ity);
    let (sixteen, one, bias, quiet) = (b.int(ity, 16), b.int(ity, 1), b.int(ity, 0x7fff), b.int(ity, 0x0040_0000));
    let upper = b.lshr(bits, sixteen);
    let odd = b.bin(BinOp::And, upper, one);
    let sum = b.add(bits, bias);
    let sum = b.add(sum, odd);
    let is_nan = b.cmp(Cond::Ne, x, x);
    let nan = b.bin(BinOp::Or, bits, quiet);
    let rounded = b.select(is_nan, nan, sum);
    let rounded = b.lshr(rounded, sixteen);
    b.cast(Cast::Trunc, rounded, ty.with_elem(Elem::I16))
}

/// Widens bf16, held as i16, to f32.
pub fn from_bf16(b: &mut Builder, x: Val) -> Val {
    let ty = b.ty(x);
    let bits = b.cast(Cast::ZExt, x, ty.with_elem(Elem::I32));
    let sixteen = b.int(b.ty(bits), 16);
    let bits = b.shl(bits, sixteen);
    b.cast(Cast::Bitcast, bits, ty.with_elem(Elem::F32))
}

/// Cosine and sine of a scalar f32 with |x| < 1e8, rounded to f32: computed in f64 with an error
/// far below half a unit of f32.
pub fn cos_sin(b: &mut Builder, x: Val) -> (Val, Val) {
    let x = b.cast(Cast::FExt, x, Ty::F64);
    let per_quarter = b.float(Ty::F64, std::f64::consts::FRAC_2_PI);
    let quarters = b.mul(x, per_quarter);
    let n = b.un(UnOp::Round, quarters);
    // pi/2 in two parts; the first has 33 bits, so its product with n below 2^20 is exact.
    let (hi, lo) = (b.float(Ty::F64, -1.570_796_326_734_125_6), b.float(Ty::F64, -6.077_100_506_506_192e-11));
    let r = b.fma(n, hi, x);
    let r = b.fma(n, lo, r);
    let r2 = b.mul(r, r);
    let sin = odd_taylor(b, r, r2);
    let cos = even_taylor(b, r2);
    let quadrant = b.cast(Cast::FloatToInt, n, Ty::I64);
    let (one, two, zero) = (b.int(Ty::I64, 1), b.int(Ty::I64, 2), b.int(Ty::I64, 0));
    let odd = b.bin(BinOp::And, quadrant, one);
    let swapped = b.cmp(Cond::Ne, odd, zero);
    let (s, c) = (b.select(swapped, cos, sin), b.select(swapped, sin, cos));
    let upper = b.bin(BinOp::And, quadrant, two);
    let sin_negative = b.cmp(Cond::Ne, upper, zero);
    let next = b.add(quadrant, one);
    let upper = b.bin(BinOp::And, next, two);
    let cos_negative = b.cmp(Cond::Ne, upper, zero);
    (signed_f32(b, c, cos_negative), signed_f32(b, s, sin_negative))
}

fn signed_f32(b: &mut Builder, x: Val, negative: Val) -> Val {
    let negated = b.un(UnOp::Neg, x);
    let v = b.select(negative, negated, x);
    b.cast(Cast::FTrunc, v, Ty::F32)
}

/// Coefficients 1/n! with alternating sign for the given n, highest first.
fn taylor(b: &mut Builder, degrees: &[u32]) -> Vec<Val> {
    let term = |n: u32| {
        let factorial: f64 = (1..=n).map(f64::from).product();
        if n / 2 % 2 == 1 { -1.0 / factorial } else { 1.0 / factorial }
    };
    degrees.iter().rev().map(|n| b.float(Ty::F64, term(*n))).collect()
}

fn odd_taylor(b: &mut Builder, r: Val, r2: Val) -> Val {
    let c = taylor(b, &[1, 3, 5, 7, 9, 11, 13, 15]);
    let p = horner(b, r2, &c);
    b.mul(p, r)
}

fn even_taylor(b: &mut Builder, r2: Val) -> Val {
    let c = taylor(b, &[0, 2, 4, 6, 8, 10, 12, 14, 16]);
    horner(b, r2, &c)
}

/// Sum of the lanes of a vector by halves: lane i + lane i+n/2 first.
pub fn reduce_add(b: &mut Builder, v: Val) -> Val {
    reduce(b, v, BinOp::Add)
}

/// Largest lane of a vector.
pub fn reduce_max(b: &mut Builder, v: Val) -> Val {
    reduce(b, v, BinOp::Max)
}

fn reduce(b: &mut Builder, v: Val, op: BinOp) -> Val {
    let mut v = v;
    let mut lanes = b.ty(v).lanes;
    while lanes > 2 {
        lanes /= 2;
        let lower = b.shuffle(v, v, (0..lanes).collect());
        let upper = b.shuffle(v, v, (lanes..2 * lanes).collect());
        v = b.bin(op, lower, upper);
    }
    let (lower, upper) = (b.extract(v, 0), b.extract(v, 1));
    b.bin(op, lower, upper)
}
