//! Rows of x in shared memory, as products read them: normalised, rounded, in the order of k that a
//! thread's loads want.

use super::byte_rows::{ByteStage, ByteSums};
use super::pieces::{Piece, Pieces, lane_of};
use crate::env::{Env, RowElem, Rows};
use crate::group::{self, bf16_place};
use crate::kir::{Elem, Hint, Ty, Val};
use crate::math;
use crate::ops::norm::Norm;

/// What the rows in shared memory hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// bf16 in the order of [`group::pair_place`].
    Bf16,
    /// Three such rows whose sum is the f32 row to 24 bits: the value rounded, and what that left, twice.
    Bf16Split,
    /// f32.
    F32,
    /// bf16 values in f32.
    Bf16InF32,
    /// 8-bit integers with a scale, and sums of them.
    Bytes(ByteSums),
}

impl Staged {
    /// Rows in shared memory for one row of x.
    pub fn planes(self) -> usize {
        if self == Staged::Bf16Split { 3 } else { 1 }
    }

    /// Bytes of a row of `k` elements, padded so that the same words of eight rows lie in different banks.
    pub fn stride(self, k: usize) -> usize {
        match self {
            Staged::Bf16 | Staged::Bf16Split => (2 * k).next_multiple_of(128) + 64,
            Staged::F32 | Staged::Bf16InF32 => (4 * k).next_multiple_of(128),
            Staged::Bytes(sums) => sums.stride(k),
        }
    }
}

/// Puts rows into shared memory.
pub struct Stage<'a> {
    /// Where the rows come from.
    pub x: &'a Rows,
    /// What is done to each.
    pub norm: Option<Norm>,
    /// What is stored.
    pub staged: Staged,
    /// Elements of a stored row; zeros stand behind those of x.
    pub padded: usize,
}

/// Consecutive elements that a thread takes at a time.
const CHUNK: usize = 4;

impl Stage<'_> {
    /// Stores rows `first..first + count` of x from `to` on. The group meets before anything is written and
    /// when all is there. `shared` is the beginning of shared memory.
    pub fn emit(&self, env: &mut Env, shared: Val, to: Val, (first, count): (Val, Val)) {
        let zero = env.b.index(0);
        let row_bytes = self.staged.planes() * self.staged.stride(self.padded);
        env.for_range(zero, count, 1, |env, t| {
            let index = env.b.add(first, t);
            let (from, to) = (env.row(self.x, index), env.at(to, t, row_bytes));
            if let Staged::Bytes(sums) = self.staged {
                return ByteStage { x: self.x, norm: self.norm, sums, padded: self.padded }.emit(env, shared, from, to);
            }
            if self.copies() {
                self.copy(env, from, to);
            } else {
                self.convert(env, shared, from, to);
            }
            self.pad(env, to);
        });
        env.b.group_barrier();
    }

    /// Whether rows lie in memory as they are wanted.
    fn copies(&self) -> bool {
        self.x.elem == RowElem::Bf16 && self.staged == Staged::Bf16 && self.norm.is_none()
    }

    fn copy(&self, env: &mut Env, from: Val, to: Val) {
        let words = self.x.width.div_ceil(group::K_GROUP) * 2 * group::K_GROUP / 16;
        each(env, 0..words, |env, i| {
            let (from, to) = (env.at(from, i, 16), env.at(to, i, 16));
            let v = env.b.load_with(Ty::vector(Elem::I32, 4), from, 0, 16, Hint::None);
            env.b.store_with(v, to, 0, 16);
        });
    }

    fn pad(&self, env: &mut Env, to: Val) {
        if self.padded == self.x.width {
            return;
        }
        if self.copies() {
            env.b.group_barrier();
        }
        each(env, self.x.width..self.padded, |env, i| {
            let zero = env.b.float(Ty::F32, 0.0);
            self.put(env, to, i, zero);
        });
    }

    /// Elements per load: as many as divide the row.
    fn chunk(&self) -> usize {
        if self.x.width.is_multiple_of(CHUNK) && self.x.elem != RowElem::Bf16 { CHUNK } else { 1 }
    }

    /// Holds the row in registers, each thread its chunks, normalises and stores it.
    fn convert(&self, env: &mut Env, shared: Val, from: Val, to: Val) {
        let chunk = self.chunk();
        let pieces = Pieces { x: self.x, norm: self.norm, chunk };
        for piece in pieces.load(env, shared, from) {
            match piece.exists {
                None => self.put_chunk(env, to, &piece, chunk),
                Some(exists) => env.if_then(exists, |env| self.put_chunk(env, to, &piece, chunk)),
            }
        }
    }

    fn put_chunk(&self, env: &mut Env, to: Val, piece: &Piece, chunk: usize) {
        let first = env.b.mul_const(piece.i, chunk as i64);
        let elem = match self.staged {
            Staged::Bf16 => Some(RowElem::Bf16),
            Staged::F32 => Some(RowElem::F32),
            Staged::Bf16InF32 => Some(RowElem::Bf16InF32),
            Staged::Bf16Split | Staged::Bytes(_) => None,
        };
        if let (CHUNK, Some(elem)) = (chunk, elem) {
            return group::store_quad(env, elem, piece.v, to, first);
        }
        for lane in 0..chunk {
            let v = lane_of(env, piece.v, lane as u16);
            let i = env.b.add_const(first, lane as i64);
            self.put(env, to, i, v);
        }
    }

    /// Stores element `i` (i64) of a row, in all its planes.
    fn put(&self, env: &mut Env, to: Val, i: Val, v: Val) {
        match self.staged {
            Staged::F32 => env.store_row(RowElem::F32, v, to, i),
            Staged::Bf16InF32 => env.store_row(RowElem::Bf16InF32, v, to, i),
            Staged::Bf16 => env.store_row(RowElem::Bf16, v, to, i),
            Staged::Bytes(_) => unreachable!("rows of bytes are stored by themselves"),
            Staged::Bf16Split => {
                let at = bf16_place(env, to, i);
                let mut rest = v;
                for plane in 0..self.staged.planes() {
                    let part = math::to_bf16(&mut env.b, rest);
                    env.b.store(part, at, (plane * self.staged.stride(self.padded)) as i32);
                    let value = math::from_bf16(&mut env.b, part);
                    rest = env.b.sub(rest, value);
                }
            }
        }
    }
}

/// Runs `body` for each of `numbers`, shared out among the group's threads.
pub fn each(env: &mut Env, numbers: std::ops::Range<usize>, body: impl FnOnce(&mut Env, Val)) {
    let first = env.b.add_const(env.group.thread, numbers.start as i64);
    let (hi, step) = (env.b.index(numbers.end), env.b.index(env.group.threads));
    env.for_step(first, hi, step, body);
}
