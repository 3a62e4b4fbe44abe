//! Rows of x in shared memory, as products read them: normalised, rounded, in the order of k that a
//! thread's loads want.

use super::REDUCE_BYTES;
use crate::env::{Env, RowElem, Rows};
use crate::group::{self, bf16_place};
use crate::kir::{Cond, Elem, Hint, Ty, Val};
use crate::math;
use crate::ops::norm::{Norm, inverse_root};

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
        self.each(env, words, |env, i| {
            let (from, to) = (env.at(from, i, 16), env.at(to, i, 16));
            let v = env.b.load_with(Ty::vector(Elem::I32, 4), from, 0, 16, Hint::None);
            env.b.store_with(v, to, 0, 16);
        });
    }

    /// Runs `body` for each of `0..n`, shared out among the group's threads.
    fn each(&self, env: &mut Env, n: usize, body: impl FnOnce(&mut Env, Val)) {
        let (thread, hi, step) = (env.group.thread, env.b.index(n), env.b.index(env.group.threads));
        env.for_step(thread, hi, step, body);
    }

    fn pad(&self, env: &mut Env, to: Val) {
        let missing = self.padded - self.x.width;
        if missing == 0 {
            return;
        }
        if self.copies() {
            env.b.group_barrier();
        }
        let stride = self.staged.stride(self.padded);
        for plane in 0..self.staged.planes() {
            let to = env.b.ptr_add_const(to, plane * stride);
            self.each(env, missing, |env, i| {
                let i = env.b.add_const(i, self.x.width as i64);
                let zero = env.b.float(Ty::F32, 0.0);
                self.put(env, to, i, zero);
            });
        }
    }

    /// Elements per load: as many as divide the row.
    fn chunk(&self) -> usize {
        if self.x.width.is_multiple_of(CHUNK) && self.x.elem != RowElem::Bf16 { CHUNK } else { 1 }
    }

    /// Holds the row in registers, each thread its chunks, normalises and stores it.
    fn convert(&self, env: &mut Env, shared: Val, from: Val, to: Val) {
        let chunk = self.chunk();
        let chunks = self.x.width / chunk;
        let rounds = chunks.div_ceil(env.group.threads);
        let ty = Ty { elem: Elem::F32, lanes: chunk as u16 };
        let mut pieces = Vec::new();
        for round in 0..rounds {
            let thread = env.group.thread;
            let i = env.b.add_const(thread, (round * env.group.threads) as i64);
            let whole = (round + 1) * env.group.threads <= chunks;
            let load = |env: &mut Env| {
                if chunk == 1 {
                    return vec![env.load_row(self.x.elem, from, i, 1)];
                }
                let at = env.at(from, i, 4 * chunk);
                vec![env.b.load_with(ty, at, 0, 4 * chunk as u32, Hint::None)]
            };
            let exists = (!whole).then(|| {
                let end = env.b.index(chunks);
                env.b.cmp(Cond::Lt, i, end)
            });
            let v = match exists {
                None => load(env)[0],
                Some(exists) => env.if_value(exists, load, |env| vec![env.b.float(ty, 0.0)])[0],
            };
            let mut piece = Piece { i, exists, v, scale: None, bias: None };
            // In flight together with x.
            if let Some(Norm::Rms { scale, .. } | Norm::Layer { scale, .. }) = self.norm {
                piece.scale = Some(self.vector(env, scale, &piece));
            }
            if let Some(Norm::Layer { bias, .. }) = self.norm {
                piece.bias = Some(self.vector(env, bias, &piece));
            }
            pieces.push(piece);
        }
        let pieces = self.normalised(env, shared, pieces);
        for piece in pieces {
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
            Staged::Bf16Split => None,
        };
        if let (CHUNK, Some(elem)) = (chunk, elem) {
            return group::store_quad(env, elem, piece.v, to, first);
        }
        for lane in 0..chunk {
            let v = if chunk == 1 { piece.v } else { env.b.extract(piece.v, lane as u16) };
            let i = env.b.add_const(first, lane as i64);
            self.put(env, to, i, v);
        }
    }

    /// Stores element `i` (i64) of a row.
    fn put(&self, env: &mut Env, to: Val, i: Val, v: Val) {
        match self.staged {
            Staged::F32 => env.store_row(RowElem::F32, v, to, i),
            Staged::Bf16InF32 => env.store_row(RowElem::Bf16InF32, v, to, i),
            Staged::Bf16 => env.store_row(RowElem::Bf16, v, to, i),
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

    fn normalised(&self, env: &mut Env, shared: Val, pieces: Vec<Piece>) -> Vec<Piece> {
        let Some(norm) = self.norm else { return pieces };
        let n = self.x.width;
        match norm {
            Norm::Rms { eps, .. } => {
                let squares = self.sum(env, shared, &pieces, |env, v| env.b.mul(v, v));
                let factor = inverse_root(env, squares, n, eps);
                pieces.into_iter().map(|p| self.scaled(env, p, factor)).collect()
            }
            Norm::Layer { eps, .. } => {
                let total = self.sum(env, shared, &pieces, |_, v| v);
                let count = env.b.float(Ty::F32, n as f64);
                let mean = env.b.div(total, count);
                let centred: Vec<Piece> = pieces.into_iter().map(|p| self.centred(env, p, mean)).collect();
                let squares = self.sum(env, shared, &centred, |env, v| env.b.mul(v, v));
                let factor = inverse_root(env, squares, n, eps);
                centred.into_iter().map(|p| self.scaled(env, p, factor)).collect()
            }
        }
    }

    /// The piece less the mean; where nothing exists still zero.
    fn centred(&self, env: &mut Env, piece: Piece, mean: Val) -> Piece {
        let mean = env.b.splat(mean, env.b.ty(piece.v).lanes);
        let v = env.b.sub(piece.v, mean);
        let v = match piece.exists {
            None => v,
            Some(exists) => {
                let zero = env.b.float(env.b.ty(v), 0.0);
                env.b.select(exists, v, zero)
            }
        };
        Piece { v, ..piece }
    }

    fn scaled(&self, env: &mut Env, piece: Piece, factor: Val) -> Piece {
        let factor = env.b.splat(factor, env.b.ty(piece.v).lanes);
        let v = env.b.mul(piece.v, factor);
        let v = piece.scale.map_or(v, |scale| env.b.mul(v, scale));
        let v = piece.bias.map_or(v, |bias| env.b.add(v, bias));
        Piece { v, ..piece }
    }

    /// The elements of a vector of weights that belong to a piece.
    fn vector(&self, env: &mut Env, offset: usize, piece: &Piece) -> Val {
        let ty = env.b.ty(piece.v);
        let base = env.b.ptr_add_const(env.weights, offset);
        let load = |env: &mut Env| {
            let at = env.at(base, piece.i, ty.bytes() as usize);
            vec![env.b.load_with(ty, at, 0, ty.bytes(), Hint::Constant)]
        };
        match piece.exists {
            None => load(env)[0],
            Some(exists) => env.if_value(exists, load, |env| vec![env.b.float(ty, 0.0)])[0],
        }
    }

    /// Sum of `f` over the row, in all threads of the group.
    fn sum(&self, env: &mut Env, shared: Val, pieces: &[Piece], f: impl Fn(&mut Env, Val) -> Val) -> Val {
        let mut total = None;
        for piece in pieces {
            let term = f(env, piece.v);
            for lane in 0..env.b.ty(term).lanes {
                let v = if env.b.ty(term).lanes == 1 { term } else { env.b.extract(term, lane) };
                total = Some(match total {
                    None => v,
                    Some(total) => env.b.add(total, v),
                });
            }
        }
        let total = total.expect("rows have elements");
        group_sum(env, shared, total)
    }
}

/// A thread's chunk of a row: its number, whether it exists if that is not certain, its elements, and those of
/// the norm's vectors.
struct Piece {
    i: Val,
    exists: Option<Val>,
    v: Val,
    scale: Option<Val>,
    bias: Option<Val>,
}

/// The sum over the group's threads, in all of them.
pub fn group_sum(env: &mut Env, shared: Val, v: Val) -> Val {
    let (warps, warp, lane) = (env.group.warps(), env.group.warp, env.group.lane);
    assert!(4 * warps <= REDUCE_BYTES, "a sum for each warp");
    let own = group::reduce_add(&mut env.b, v);
    env.b.group_barrier();
    let zero = env.b.index(0);
    let first = env.b.cmp(Cond::Eq, lane, zero);
    env.if_then(first, |env| {
        let at = env.at(shared, warp, 4);
        env.b.store(own, at, 0);
    });
    env.b.group_barrier();
    let sums: Vec<Val> = (0..warps).map(|w| env.b.load(Ty::F32, shared, 4 * w as i32)).collect();
    sums[1..].iter().fold(sums[0], |total, s| env.b.add(total, *s))
}
