//! Rows of 8-bit integers with one scale, which integer products read.
//!
//! A row of k elements: the integers `round(x / scale)`, padded with zeros to whole cache lines; the
//! scale (f32) and the sum of all integers (i32); from the next cache line on, the sum of each block
//! of [`BLOCK`] (i32). The scale is the largest magnitude over 127.

use super::norm::Values;
use crate::env::Env;
use crate::formats::codes::BLOCK;
use crate::group;
use crate::kir::{BinOp, Cast, Cond, Elem, Ty, UnOp, Val};
use crate::layout::{ALIGN, LANES};
use crate::math;

/// Offsets in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRow {
    /// Elements.
    pub k: usize,
}

const FLOATS: Ty = Ty::vector(Elem::F32, LANES);
const INTS: Ty = Ty::vector(Elem::I32, LANES);
const VECTOR: usize = LANES as usize;

impl ByteRow {
    fn integers(self) -> usize {
        self.k.next_multiple_of(ALIGN)
    }

    /// Offset of the scale.
    pub fn scale(self) -> usize {
        self.integers()
    }

    /// Offset of the sum of all integers.
    pub fn total(self) -> usize {
        self.integers() + 4
    }

    /// Offset of the sum of block 0; the others follow.
    pub fn sums(self) -> usize {
        self.integers() + ALIGN
    }

    /// Bytes of a row.
    pub fn bytes(self) -> usize {
        self.sums() + 4 * self.k.div_ceil(BLOCK)
    }

    /// Emits the conversion of a row of f32 into the row at `to`; in a group a warp's threads do it together.
    pub fn emit(self, env: &mut Env, x: &Values, to: Val) {
        if env.group.threads > 1 {
            return self.emit_in_warp(env, x, to);
        }
        let largest = self.largest(env, x);
        let (scale, inverse) = scale_of(env, largest, INTEGERS);
        env.b.store(scale, to, self.scale() as i32);
        let inverse = env.b.splat(inverse, LANES);
        let whole = self.k / BLOCK * BLOCK;
        let none = env.b.int(Ty::I32, 0);
        let (lo, hi, step) = (env.b.index(0), env.b.index(whole), env.b.index(BLOCK));
        let mut total = env.for_carried((lo, hi, step), &[none], |env, k, total| {
            let sum = self.block(env, x, (inverse, to), k, BLOCK);
            vec![env.b.add(total[0], sum)]
        })[0];
        if whole < self.k {
            let k = env.b.index(whole);
            let sum = self.block(env, x, (inverse, to), k, self.k - whole);
            total = env.b.add(total, sum);
        }
        self.pad(env, to);
        env.b.store(total, to, self.total() as i32);
    }

    /// The same where each thread of a warp has one element of a block.
    fn emit_in_warp(self, env: &mut Env, x: &Values, to: Val) {
        let lane = env.group.lane;
        let largest = self.largest_in_warp(env, x);
        let (scale, inverse) = scale_of(env, largest, INTEGERS);
        let none = env.b.int(Ty::I32, 0);
        let (lo, blocks, one) = (env.b.index(0), env.b.index(self.k.div_ceil(BLOCK)), env.b.index(1));
        let total = env.for_carried((lo, blocks, one), &[none], |env, block, total| {
            let sum = self.block_in_warp(env, x, (inverse, to), block);
            vec![env.b.add(total[0], sum)]
        })[0];
        self.pad_in_warp(env, to);
        let first = env.b.cmp(Cond::Eq, lane, lo);
        env.if_then(first, |env| {
            env.b.store(scale, to, self.scale() as i32);
            env.b.store(total, to, self.total() as i32);
        });
        env.b.warp_barrier();
    }

    /// The largest magnitude of a row whose elements a warp's threads share, in all of them.
    fn largest_in_warp(self, env: &mut Env, x: &Values) -> Val {
        let (lane, zero) = (env.group.lane, env.b.float(Ty::F32, 0.0));
        let (hi, step) = (env.b.index(self.k), env.b.index(BLOCK));
        let found = env.for_carried((lane, hi, step), &[zero], |env, i, found| {
            let v = x.load(env, i, env.lanes());
            let magnitude = env.b.un(UnOp::Abs, v);
            vec![env.b.max(magnitude, found[0])]
        })[0];
        group::reduce_max(&mut env.b, found)
    }

    fn block_in_warp(self, env: &mut Env, x: &Values, (inverse, to): (Val, Val), block: Val) -> Val {
        let (lane, end) = (env.group.lane, env.b.index(self.k));
        let i = env.b.mul_const(block, BLOCK as i64);
        let i = env.b.add(i, lane);
        let exists = env.b.cmp(Cond::Lt, i, end);
        let v = env.if_value(exists, |env| vec![x.load(env, i, 1)], |env| vec![env.b.float(Ty::F32, 0.0)])[0];
        let q = integer(env, v, inverse);
        let byte = env.b.cast(Cast::Trunc, q, Ty::I8);
        let at = env.b.ptr_add(to, i);
        env.b.store(byte, at, 0);
        let sum = group::reduce_add(&mut env.b, q);
        let zero = env.b.index(0);
        let first = env.b.cmp(Cond::Eq, lane, zero);
        env.if_then(first, |env| {
            let at = env.at(to, block, 4);
            env.b.store(sum, at, self.sums() as i32);
        });
        sum
    }

    fn pad_in_warp(self, env: &mut Env, to: Val) {
        let at = env.b.ptr_add(to, env.group.lane);
        let zero = env.b.int(Ty::I8, 0);
        for block in (self.k.next_multiple_of(BLOCK)..self.integers()).step_by(BLOCK) {
            env.b.store(zero, at, block as i32);
        }
    }

    /// Zeros behind the last whole block.
    fn pad(self, env: &mut Env, to: Val) {
        let zero = env.b.int(INTS.with_elem(Elem::I8), 0);
        for at in (self.k.next_multiple_of(BLOCK)..self.integers()).step_by(VECTOR) {
            env.b.store(zero, to, at as i32);
        }
    }

    /// The largest magnitude in the row; in a group a warp's threads find it together.
    pub(super) fn largest(self, env: &mut Env, x: &Values) -> Val {
        if env.group.threads > 1 {
            return self.largest_in_warp(env, x);
        }
        let zero = env.b.float(FLOATS, 0.0);
        let whole = self.k / VECTOR * VECTOR;
        let (lo, hi, step) = (env.b.index(0), env.b.index(whole), env.b.index(VECTOR));
        let most = |env: &mut Env, v: Val, so_far: Val| {
            let magnitude = env.b.un(UnOp::Abs, v);
            env.b.max(magnitude, so_far)
        };
        let mut found = env.for_carried((lo, hi, step), &[zero], |env, k, found| {
            let v = x.load(env, k, LANES);
            vec![most(env, v, found[0])]
        })[0];
        if whole < self.k {
            let k = env.b.index(whole);
            let v = valid(env, x, k, self.k - whole);
            found = most(env, v, found);
        }
        math::reduce_max(&mut env.b, found)
    }

    /// Converts a block, of which `len` elements are there; stores its sum and gives it.
    fn block(self, env: &mut Env, x: &Values, (inverse, to): (Val, Val), k: Val, len: usize) -> Val {
        let integers: Vec<Val> = (0..BLOCK / VECTOR)
            .map(|i| {
                let k = env.b.add_const(k, (i * VECTOR) as i64);
                let v = valid(env, x, k, len.saturating_sub(i * VECTOR));
                let q = integer(env, v, inverse);
                let at = env.b.ptr_add(to, k);
                let bytes = env.b.cast(Cast::Trunc, q, INTS.with_elem(Elem::I8));
                env.b.store(bytes, at, 0);
                q
            })
            .collect();
        let sum = integers[1..].iter().fold(integers[0], |a, q| env.b.add(a, *q));
        let sum = math::reduce_add(&mut env.b, sum);
        let index = env.b.index(BLOCK);
        let index = env.b.div(k, index);
        let at = env.at(to, index, 4);
        env.b.store(sum, at, self.sums() as i32);
        sum
    }
}

/// The vector at element `k` (i64) with zeros from lane `len` on.
fn valid(env: &mut Env, x: &Values, k: Val, len: usize) -> Val {
    if len >= VECTOR {
        return x.load(env, k, LANES);
    }
    let zero = env.b.float(FLOATS, 0.0);
    if len == 0 {
        return zero;
    }
    let v = x.load(env, k, LANES);
    let first = env.b.index(0);
    let lanes = super::kv::lane_numbers(env, first);
    let len = env.b.int(INTS, len as i64);
    let inside = env.b.cmp(Cond::Lt, lanes, len);
    env.b.select(inside, v, zero)
}

/// What the largest magnitude of a row becomes, as it is read and as it is rounded, where elements are integers.
pub const INTEGERS: (f64, f64) = (127.0, 127.0);

/// The scale of a row with this largest magnitude, and what its elements are multiplied with: the inverse, or
/// zero in a row of zeros.
pub fn scale_of(env: &mut Env, largest: Val, (read, rounded): (f64, f64)) -> (Val, Val) {
    let (zero, read, rounded) = (env.b.float(Ty::F32, 0.0), env.b.float(Ty::F32, read), env.b.float(Ty::F32, rounded));
    let some = env.b.cmp(Cond::Gt, largest, zero);
    let (scale, inverse) = (env.b.div(largest, read), env.b.div(rounded, largest));
    (scale, env.b.select(some, inverse, zero))
}

/// `round(v * inverse)`, kept within -127 and 127, in as many lanes.
pub fn integer(env: &mut Env, v: Val, inverse: Val) -> Val {
    let floats = env.b.ty(v);
    let (low, high) = (env.b.float(floats, -127.0), env.b.float(floats, 127.0));
    let scaled = env.b.mul(v, inverse);
    let bounded = env.b.bin(BinOp::Max, scaled, low);
    let bounded = env.b.bin(BinOp::Min, bounded, high);
    let rounded = env.b.un(UnOp::Round, bounded);
    env.b.cast(Cast::FloatToInt, rounded, floats.with_elem(Elem::I32))
}
