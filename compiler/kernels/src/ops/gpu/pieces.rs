//! A row of x in the registers of a group's threads: each thread's chunks of consecutive elements,
//! normalised.

use super::reduce::group_sum;
use crate::env::{Env, RowElem, Rows};
use crate::kir::{Cond, Elem, Hint, Ty, Val};
use crate::ops::norm::{Norm, inverse_root};

/// How a row is taken apart.
pub struct Pieces<'a> {
    /// Where the row comes from.
    pub x: &'a Rows,
    /// What is done to it.
    pub norm: Option<Norm>,
    /// Elements of a chunk. Zeros stand behind those of the row.
    pub chunk: usize,
}

/// A thread's chunk of a row.
pub struct Piece {
    /// Its number: i64.
    pub i: Val,
    /// Whether it exists, if that is not certain.
    pub exists: Option<Val>,
    /// Its elements: f32.
    pub v: Val,
    /// Those of the norm's vectors, in flight together with them.
    scale: Option<Val>,
    bias: Option<Val>,
}

/// Loads some elements (their number) from one (i64) on.
type Load<'l> = &'l dyn Fn(&mut Env, Val, u16) -> Val;

impl Pieces<'_> {
    /// Chunks of the row.
    fn chunks(&self) -> usize {
        self.x.width.div_ceil(self.chunk)
    }

    /// Whether the last chunk has all its elements.
    fn is_even(&self) -> bool {
        self.x.width.is_multiple_of(self.chunk)
    }

    /// This thread's chunks of the row at `from`. `shared` is the beginning of shared memory. The group's
    /// threads must come here together.
    pub fn load(&self, env: &mut Env, shared: Val, from: Val) -> Vec<Piece> {
        let threads = env.group.threads;
        let pieces = (0..self.chunks().div_ceil(threads)).map(|round| {
            let i = env.b.add_const(env.group.thread, (round * threads) as i64);
            let whole = (round + 1) * threads <= self.chunks();
            let exists = (!whole).then(|| {
                let end = env.b.index(self.chunks());
                env.b.cmp(Cond::Lt, i, end)
            });
            let v = self.gather(env, (i, exists), self.x.elem != RowElem::Bf16, &|env, e, lanes| {
                if lanes == 1 {
                    return env.load_row(self.x.elem, from, e, 1);
                }
                let at = env.at(from, e, 4);
                env.b.load_with(Ty::vector(Elem::F32, lanes), at, 0, 4 * u32::from(lanes), Hint::None)
            });
            let vector = |env: &mut Env, offset: Option<usize>| offset.map(|o| self.vector(env, o, (i, exists)));
            let (scale, bias) = match self.norm {
                None => (None, None),
                Some(Norm::Rms { scale, .. }) => (Some(scale), None),
                Some(Norm::Layer { scale, bias, .. }) => (Some(scale), Some(bias)),
            };
            let (scale, bias) = (vector(env, scale), vector(env, bias));
            Piece { i, exists, v, scale, bias }
        });
        let pieces = pieces.collect();
        self.normalised(env, shared, pieces)
    }

    /// The elements of a chunk, loaded together if they lie next to each other and all exist.
    fn gather(&self, env: &mut Env, (i, exists): (Val, Option<Val>), together: bool, load: Load<'_>) -> Val {
        let lanes = self.chunk as u16;
        let ty = Ty { elem: Elem::F32, lanes };
        let all = |env: &mut Env| {
            let first = env.b.mul_const(i, self.chunk as i64);
            vec![if lanes == 1 || (together && self.is_even()) {
                load(env, first, lanes)
            } else {
                self.one_by_one(env, first, ty, load)
            }]
        };
        match exists {
            None => all(env)[0],
            Some(exists) => env.if_value(exists, all, |env| vec![env.b.float(ty, 0.0)])[0],
        }
    }

    fn one_by_one(&self, env: &mut Env, first: Val, ty: Ty, load: Load<'_>) -> Val {
        let none = env.b.float(ty, 0.0);
        (0..ty.lanes).fold(none, |v, lane| {
            let e = env.b.add_const(first, i64::from(lane));
            let element = if self.is_even() {
                load(env, e, 1)
            } else {
                let end = env.b.index(self.x.width);
                let inside = env.b.cmp(Cond::Lt, e, end);
                env.if_value(inside, |env| vec![load(env, e, 1)], |env| vec![env.b.float(Ty::F32, 0.0)])[0]
            };
            env.b.insert(v, lane, element)
        })
    }

    fn normalised(&self, env: &mut Env, shared: Val, pieces: Vec<Piece>) -> Vec<Piece> {
        let Some(norm) = self.norm else { return pieces };
        let n = self.x.width;
        match norm {
            Norm::Rms { eps, .. } => {
                let squares = sum(env, shared, &pieces, |env, v| env.b.mul(v, v));
                let factor = inverse_root(env, squares, n, eps);
                pieces.into_iter().map(|p| self.scaled(env, p, factor)).collect()
            }
            Norm::Layer { eps, .. } => {
                let total = sum(env, shared, &pieces, |_, v| v);
                let count = env.b.float(Ty::F32, n as f64);
                let mean = env.b.div(total, count);
                let centred: Vec<Piece> = pieces.into_iter().map(|p| self.centred(env, p, mean)).collect();
                let squares = sum(env, shared, &centred, |env, v| env.b.mul(v, v));
                let factor = inverse_root(env, squares, n, eps);
                centred.into_iter().map(|p| self.scaled(env, p, factor)).collect()
            }
        }
    }

    /// The piece less the mean; where nothing exists still zero.
    fn centred(&self, env: &mut Env, piece: Piece, mean: Val) -> Piece {
        let mean = env.b.splat(mean, self.chunk as u16);
        let v = env.b.sub(piece.v, mean);
        let v = match self.inside(env, &piece) {
            None => v,
            Some(inside) => {
                let zero = env.b.float(env.b.ty(v), 0.0);
                env.b.select(inside, v, zero)
            }
        };
        Piece { v, ..piece }
    }

    /// Which of the piece's elements exist, if that is not certain.
    fn inside(&self, env: &mut Env, piece: &Piece) -> Option<Val> {
        if self.is_even() {
            return piece.exists;
        }
        let ty = Ty { elem: Elem::I64, lanes: self.chunk as u16 };
        let first = env.b.mul_const(piece.i, self.chunk as i64);
        let none = env.b.int(ty, 0);
        let elements = (0..ty.lanes).fold(none, |v, lane| {
            let e = env.b.add_const(first, i64::from(lane));
            env.b.insert(v, lane, e)
        });
        let end = env.b.int(ty, self.x.width as i64);
        Some(env.b.cmp(Cond::Lt, elements, end))
    }

    fn scaled(&self, env: &mut Env, piece: Piece, factor: Val) -> Piece {
        let factor = env.b.splat(factor, self.chunk as u16);
        let v = env.b.mul(piece.v, factor);
        let v = piece.scale.map_or(v, |scale| env.b.mul(v, scale));
        let v = piece.bias.map_or(v, |bias| env.b.add(v, bias));
        Piece { v, ..piece }
    }

    /// The elements of a vector of weights that belong to a piece.
    fn vector(&self, env: &mut Env, offset: usize, (i, exists): (Val, Option<Val>)) -> Val {
        let base = env.b.ptr_add_const(env.weights, offset);
        self.gather(env, (i, exists), true, &|env, e, lanes| {
            let at = env.at(base, e, 4);
            env.b.load_with(Ty { elem: Elem::F32, lanes }, at, 0, 4 * u32::from(lanes), Hint::Constant)
        })
    }
}

/// Sum of `f` over the row, in all threads of the group.
fn sum(env: &mut Env, shared: Val, pieces: &[Piece], f: impl Fn(&mut Env, Val) -> Val) -> Val {
    let mut total = None;
    for piece in pieces {
        let term = f(env, piece.v);
        for lane in 0..env.b.ty(term).lanes {
            let v = lane_of(env, term, lane);
            total = Some(total.map_or(v, |total| env.b.add(total, v)));
        }
    }
    let total = total.expect("rows have elements");
    group_sum(env, shared, total)
}

/// Lane of a vector, or the scalar.
pub fn lane_of(env: &mut Env, v: Val, lane: u16) -> Val {
    if env.b.ty(v).lanes == 1 { v } else { env.b.extract(v, lane) }
}
