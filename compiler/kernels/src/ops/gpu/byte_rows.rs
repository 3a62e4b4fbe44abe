//! Rows of 8-bit integers in shared memory, as products of integers read them.
//!
//! A row is its integers in the order of k with zeros behind them, then its scale (f32), then sums of
//! integers (i32), each times a constant: of every group of k, or of the whole row.

use super::pieces::{Piece, Pieces, lane_of};
use super::reduce::{group_max, group_sum};
use super::rows::each;
use crate::env::{Env, RowElem, Rows};
use crate::formats::codes::BLOCK;
use crate::kir::{Cast, Cond, Elem, Hint, Ty, UnOp, Val};
use crate::ops::byte_rows::{ByteRow, INTEGERS, integer, scale_of};
use crate::ops::norm::Norm;

/// Which sums of a row are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSums {
    /// Elements of k of a sum: 32, 64 or 128; `None` is the whole row.
    pub group: Option<usize>,
    /// What they are multiplied with.
    pub factor: i32,
}

/// Consecutive elements that a thread takes at a time: a word of integers.
const CHUNK: usize = 4;
const INTS: Ty = Ty::vector(Elem::I32, CHUNK as u16);

impl ByteSums {
    /// Offset of the scale in a row of `k` integers.
    pub fn scale(self, k: usize) -> usize {
        k
    }

    /// Offset of the first sum.
    pub fn sums(self, k: usize) -> usize {
        self.scale(k) + 4
    }

    /// Bytes of a row, padded so that 32 bytes at the same place of four rows lie in different banks.
    pub fn stride(self, k: usize) -> usize {
        let sums = self.group.map_or(1, |group| k.div_ceil(group));
        (self.sums(k) + 4 * sums).next_multiple_of(128) + 32
    }
}

/// Puts a row into shared memory.
pub struct ByteStage<'a> {
    /// Where the row comes from.
    pub x: &'a Rows,
    /// What is done to it.
    pub norm: Option<Norm>,
    /// Its sums.
    pub sums: ByteSums,
    /// Integers of the stored row: a multiple of the group.
    pub padded: usize,
}

impl ByteStage<'_> {
    /// Stores the row at `from` to `to`. `shared` is the beginning of shared memory. The group's threads
    /// must come here together.
    pub fn emit(&self, env: &mut Env, shared: Val, from: Val, to: Val) {
        self.pad(env, to);
        if self.x.elem == RowElem::Bytes {
            return self.copy(env, from, to);
        }
        let pieces = Pieces { x: self.x, norm: self.norm, chunk: CHUNK }.load(env, shared, from);
        let largest = largest(env, &pieces);
        let largest = group_max(env, shared, largest);
        let (scale, inverse) = scale_of(env, largest, INTEGERS);
        self.by_one(env, |env| env.b.store(scale, to, self.sums.scale(self.padded) as i32));
        let inverse = env.b.splat(inverse, CHUNK as u16);
        let mut total = env.b.int(Ty::I32, 0);
        for piece in pieces {
            let integers = integer(env, piece.v, inverse);
            if_exists(env, &piece, |env| put(env, to, piece.i, integers));
            let sum = (1..CHUNK as u16).fold(lane_of(env, integers, 0), |sum, lane| {
                let v = lane_of(env, integers, lane);
                env.b.add(sum, v)
            });
            match self.sums.group {
                Some(group) => self.put_sum(env, to, group, (&piece, sum)),
                None => total = env.b.add(total, sum),
            }
        }
        if self.sums.group.is_none() {
            let total = group_sum(env, shared, total);
            self.put_total(env, to, total);
        }
    }

    /// Zeros behind the integers and sums that are there.
    fn pad(&self, env: &mut Env, to: Val) {
        let zero = env.b.int(Ty::I32, 0);
        let mut zeros = |offset: usize, words: std::ops::Range<usize>| {
            if !words.is_empty() {
                each(env, words, |env, i| {
                    let at = env.at(to, i, 4);
                    env.b.store(zero, at, offset as i32);
                });
            }
        };
        zeros(0, self.x.width.div_ceil(CHUNK)..self.padded / CHUNK);
        if let Some(group) = self.sums.group {
            zeros(self.sums.sums(self.padded), self.x.width.div_ceil(group)..self.padded / group);
        }
    }

    /// Runs `body` in the group's first thread.
    fn by_one(&self, env: &mut Env, body: impl FnOnce(&mut Env)) {
        let zero = env.b.index(0);
        let first = env.b.cmp(Cond::Eq, env.group.thread, zero);
        env.if_then(first, body);
    }

    /// Stores the sum of a group of k, of which each thread has a chunk's: they are neighbours in a warp.
    fn put_sum(&self, env: &mut Env, to: Val, group: usize, (piece, sum): (&Piece, Val)) {
        let threads = group / CHUNK;
        let sum = (0..threads.ilog2()).fold(sum, |sum, bit| {
            let other = env.b.lane_xor(sum, 1 << bit);
            env.b.add(sum, other)
        });
        let sum = env.b.mul_const(sum, self.sums.factor.into());
        let (zero, count) = (env.b.index(0), env.b.index(threads));
        let (number, place) = (env.b.div(piece.i, count), env.b.rem(piece.i, count));
        let first = env.b.cmp(Cond::Eq, place, zero);
        let first = piece.exists.map_or(first, |exists| env.b.and(first, exists));
        env.if_then(first, |env| {
            let at = env.at(to, number, 4);
            env.b.store(sum, at, self.sums.sums(self.padded) as i32);
        });
    }

    fn put_total(&self, env: &mut Env, to: Val, total: Val) {
        let total = env.b.mul_const(total, self.sums.factor.into());
        self.by_one(env, |env| env.b.store(total, to, self.sums.sums(self.padded) as i32));
    }

    /// Copies a row that holds integers already.
    fn copy(&self, env: &mut Env, from: Val, to: Val) {
        let row = ByteRow { k: self.x.width };
        each(env, 0..self.x.width.div_ceil(CHUNK), |env, i| {
            let (from, to) = (env.at(from, i, 4), env.at(to, i, 4));
            let v = env.b.load(Ty::I32, from, 0);
            env.b.store(v, to, 0);
        });
        let scale = env.b.load(Ty::F32, from, row.scale() as i32);
        self.by_one(env, |env| env.b.store(scale, to, self.sums.scale(self.padded) as i32));
        let Some(group) = self.sums.group else {
            let total = env.b.load(Ty::I32, from, row.total() as i32);
            return self.put_total(env, to, total);
        };
        each(env, 0..self.x.width.div_ceil(group), |env, i| {
            let (lo, hi) = (env.b.mul_const(i, (group / BLOCK) as i64), env.b.index(self.x.width.div_ceil(BLOCK)));
            let end = env.b.add_const(lo, (group / BLOCK) as i64);
            let (end, one) = (env.b.min(end, hi), env.b.index(1));
            let none = env.b.int(Ty::I32, 0);
            let sum = env.for_carried((lo, end, one), &[none], |env, block, sum| {
                let at = env.at(from, block, 4);
                let v = env.b.load_with(Ty::I32, at, row.sums() as i32, 4, Hint::None);
                vec![env.b.add(sum[0], v)]
            })[0];
            let sum = env.b.mul_const(sum, self.sums.factor.into());
            let at = env.at(to, i, 4);
            env.b.store(sum, at, self.sums.sums(self.padded) as i32);
        });
    }
}

fn if_exists(env: &mut Env, piece: &Piece, body: impl FnOnce(&mut Env)) {
    match piece.exists {
        None => body(env),
        Some(exists) => env.if_then(exists, body),
    }
}

/// Stores a chunk's integers as a word.
fn put(env: &mut Env, to: Val, i: Val, integers: Val) {
    let bytes = env.b.cast(Cast::Trunc, integers, INTS.with_elem(Elem::I8));
    let at = env.at(to, i, CHUNK);
    env.b.store_with(bytes, at, 0, CHUNK as u32);
}

/// The largest magnitude of this thread's pieces.
fn largest(env: &mut Env, pieces: &[Piece]) -> Val {
    let zero = env.b.float(Ty::F32, 0.0);
    let mut found = zero;
    for piece in pieces {
        let magnitude = env.b.un(UnOp::Abs, piece.v);
        for lane in 0..CHUNK as u16 {
            let v = lane_of(env, magnitude, lane);
            found = env.b.max(v, found);
        }
    }
    found
}
