//! RMSNorm and LayerNorm of one row, and the kernel that writes normalised rows.

use super::byte_rows::ByteRow;
use crate::env::{Count, Env, RowElem, Rows, Scratch, WARP};
use crate::kir::{Elem, Function, Hint, Ty, UnOp, Val};
use crate::layout::LANES;
use crate::math;

/// How a row is normalised. Scale and bias are byte offsets of f32 vectors in the call's weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// x / sqrt(mean(x^2) + eps) * scale.
    Rms {
        /// Added to the mean square.
        eps: f32,
        /// Offset of the scale.
        scale: usize,
    },
    /// (x - mean) / sqrt(variance + eps) * scale + bias.
    Layer {
        /// Added to the variance.
        eps: f32,
        /// Offset of the scale.
        scale: usize,
        /// Offset of the bias.
        bias: usize,
    },
}

const VECTOR: Ty = Ty::vector(Elem::F32, LANES);

/// Sum over `f` of the row's vectors, and of its last elements one by one. `f` maps an element (a
/// vector or a scalar) to the term that is added.
pub(super) fn sum(env: &mut Env, x: Val, n: usize, mut f: impl FnMut(&mut Env, Val) -> Val) -> Val {
    if env.group.threads > 1 {
        return warp_sum(env, x, n, f);
    }
    let lanes = LANES as usize;
    let zero = env.b.float(VECTOR, 0.0);
    let (lo, hi, step) = (env.b.index(0), env.b.index(n / lanes * lanes), env.b.index(lanes));
    let total = env.for_carried((lo, hi, step), &[zero], |env, i, acc| {
        let p = env.at(x, i, 4);
        let v = env.b.load(VECTOR, p, 0);
        let term = f(env, v);
        vec![env.b.add(acc[0], term)]
    });
    let mut total = math::reduce_add(&mut env.b, total[0]);
    for i in n / lanes * lanes..n {
        let v = env.b.load(Ty::F32, x, 4 * i as i32);
        let term = f(env, v);
        total = env.b.add(total, term);
    }
    total
}

/// The same where a warp's threads take elements in turns; all of them get it.
fn warp_sum(env: &mut Env, x: Val, n: usize, mut f: impl FnMut(&mut Env, Val) -> Val) -> Val {
    let (lanes, together) = in_flight(n);
    let ty = Ty { elem: Elem::F32, lanes };
    let first = env.b.mul_const(env.group.lane, i64::from(lanes));
    let (zero, hi) = (env.b.float(ty, 0.0), env.b.index(n));
    let stride = WARP * usize::from(lanes);
    let step = env.b.index(stride * together);
    let total = env.for_carried((first, hi, step), &[zero], |env, i, acc| {
        let p = env.at(x, i, 4);
        let align = 4 * u32::from(lanes);
        let values: Vec<Val> =
            (0..together).map(|k| env.b.load_with(ty, p, (4 * k * stride) as i32, align, Hint::None)).collect();
        let add = |acc, v| {
            let term = f(env, v);
            env.b.add(acc, term)
        };
        vec![values.into_iter().fold(acc[0], add)]
    })[0];
    let own = (1..lanes).fold(None, |sum: Option<Val>, lane| {
        let first = sum.unwrap_or_else(|| env.b.extract(total, 0));
        let other = env.b.extract(total, lane);
        Some(env.b.add(first, other))
    });
    crate::group::reduce_add(&mut env.b, own.unwrap_or(total))
}

/// Elements that a thread of a warp loads at once, and how many such loads are in flight, so that the warp's
/// threads have equally many of `n`.
fn in_flight(n: usize) -> (u16, usize) {
    let whole = |lanes: u16, together: usize| n.is_multiple_of(WARP * usize::from(lanes) * together);
    [8, 4, 2, 1].into_iter().find(|t| whole(4, *t)).map_or((1, 1), |together| (4, together))
}

/// Writes a row of `n` elements by a warp, several loads in flight.
fn warp_row(env: &mut Env, values: &Values, y: RowAt, n: usize) {
    let (lanes, together) = in_flight(n);
    if lanes == 1 {
        return env.elements(n, |env, i, _| {
            let v = values.load(env, i, 1);
            env.store_row(y.1, v, y.0, i);
        });
    }
    let stride = WARP * usize::from(lanes);
    let first = env.b.mul_const(env.group.lane, i64::from(lanes));
    let (hi, step) = (env.b.index(n), env.b.index(stride * together));
    env.for_step(first, hi, step, |env, i| {
        let places: Vec<Val> = (0..together).map(|k| env.b.add_const(i, (k * stride) as i64)).collect();
        let loaded: Vec<Val> = places.iter().map(|i| values.load(env, *i, lanes)).collect();
        for (i, v) in places.into_iter().zip(loaded) {
            crate::group::store_quad(env, y.1, v, y.0, i);
        }
    });
    env.b.warp_barrier();
}

/// `(sum / n + eps)^-1/2`.
pub fn inverse_root(env: &mut Env, sum: Val, n: usize, eps: f32) -> Val {
    let (count, eps, one) =
        (env.b.float(Ty::F32, n as f64), env.b.float(Ty::F32, eps.into()), env.b.float(Ty::F32, 1.0));
    let mean = env.b.div(sum, count);
    let shifted = env.b.add(mean, eps);
    let root = env.b.un(UnOp::Sqrt, shifted);
    env.b.div(one, root)
}

/// A row's address and what its elements are.
pub type RowAt = (Val, RowElem);

/// A vector of the call's weights at `offset`, from element `i`.
fn weights_vector(env: &mut Env, offset: usize, i: Val, lanes: u16) -> Val {
    let base = env.b.ptr_add_const(env.weights, offset);
    let p = env.at(base, i, 4);
    env.load_f32(p, lanes)
}

/// The elements of a row as f32, normalised or as they are.
pub struct Values {
    x: RowAt,
    norm: Option<(Norm, Factors)>,
}

/// What a norm needs of the whole row: scalars.
struct Factors {
    factor: Val,
    mean: Option<Val>,
}

impl Values {
    /// The `n` elements of the row at `x`; to be normalised they are f32.
    pub fn new(env: &mut Env, norm: Option<Norm>, x: RowAt, n: usize) -> Values {
        Values { x, norm: norm.map(|norm| (norm, factors(env, norm, x.0, n))) }
    }

    /// `lanes` elements from `i` (i64) on.
    pub fn load(&self, env: &mut Env, i: Val, lanes: u16) -> Val {
        let v = env.load_row(self.x.1, self.x.0, i, lanes);
        match &self.norm {
            None => v,
            Some((norm, factors)) => factors.apply(env, *norm, i, v),
        }
    }
}

impl Factors {
    fn apply(&self, env: &mut Env, norm: Norm, i: Val, v: Val) -> Val {
        let lanes = env.b.ty(v).lanes;
        let [factor, mean] = [Some(self.factor), self.mean].map(|f| f.map(|f| env.b.splat(f, lanes)));
        let centred = mean.map_or(v, |mean| env.b.sub(v, mean));
        let v = env.b.mul(centred, factor.expect("a norm has a factor"));
        match norm {
            Norm::Rms { scale, .. } => {
                let g = weights_vector(env, scale, i, lanes);
                env.b.mul(v, g)
            }
            Norm::Layer { scale, bias, .. } => {
                let (g, h) = (weights_vector(env, scale, i, lanes), weights_vector(env, bias, i, lanes));
                let v = env.b.mul(v, g);
                env.b.add(v, h)
            }
        }
    }
}

/// Writes the `n` elements of the row at `x`, normalised or as they are, converted to what `y` holds.
pub fn row(env: &mut Env, norm: Option<Norm>, x: RowAt, y: RowAt, n: usize) {
    let values = Values::new(env, norm, x, n);
    if y.1 == RowElem::Bytes {
        return ByteRow { k: n }.emit(env, &values, y.0);
    }
    if env.group.threads > 1 {
        return warp_row(env, &values, y, n);
    }
    env.for_const(n.next_multiple_of(LANES as usize), LANES as usize, |env, i| {
        let v = values.load(env, i, LANES);
        env.store_row(y.1, v, y.0, i);
    });
}

fn factors(env: &mut Env, norm: Norm, x: Val, n: usize) -> Factors {
    match norm {
        Norm::Rms { eps, .. } => {
            let squares = sum(env, x, n, |env, v| env.b.mul(v, v));
            let factor = inverse_root(env, squares, n, eps);
            Factors { factor, mean: None }
        }
        Norm::Layer { eps, .. } => {
            let total = sum(env, x, n, |_, v| v);
            let count = env.b.float(Ty::F32, n as f64);
            let mean = env.b.div(total, count);
            let squares = sum(env, x, n, |env, v| {
                let m = env.b.splat(mean, env.b.ty(v).lanes);
                let d = env.b.sub(v, m);
                env.b.mul(d, d)
            });
            let factor = inverse_root(env, squares, n, eps);
            Factors { factor, mean: Some(mean) }
        }
    }
}

/// Converts rows to what the result holds: each worker takes every `workers`-th one.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvertKernel {
    /// Which count the rows follow.
    pub count: Count,
    /// Input.
    pub x: Rows,
    /// Output, of the same width.
    pub y: Rows,
}

impl ConvertKernel {
    /// Emits the kernel.
    pub fn build(&self, name: &str, scratch: Scratch) -> Function {
        let mut env = Env::new(name, scratch);
        let n = env.count(self.count);
        if self.y.elem == RowElem::Bytes || env.group.threads == 1 {
            env.own_rows(n, |env, r| {
                let (x, y) = (env.row(&self.x, r), env.row(&self.y, r));
                row(env, None, (x, self.x.elem), (y, self.y.elem), self.x.width);
            });
        } else {
            env.copy_rows(n, &self.x, &self.y);
        }
        env.finish()
    }
}

/// Normalises rows: each worker takes every `workers`-th one. Where a row is seen as several
/// `groups` (heads), each is normalised by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct NormKernel {
    /// Which count the rows follow.
    pub count: Count,
    /// Input.
    pub x: Rows,
    /// Output, of the same width.
    pub y: Rows,
    /// Groups that a row consists of; each is `x.width / groups` elements, a multiple of the
    /// vector length if there are several.
    pub groups: usize,
    /// What is done.
    pub norm: Norm,
}

impl NormKernel {
    /// Emits the kernel.
    pub fn build(&self, name: &str, scratch: Scratch) -> Function {
        let mut env = Env::new(name, scratch);
        let n = env.count(self.count);
        let group = self.x.width / self.groups;
        env.own_rows(n, |env, r| {
            let (x, y) = (env.row(&self.x, r), env.row(&self.y, r));
            for g in 0..self.groups {
                let (x, y) = (env.b.ptr_add_const(x, g * group * 4), env.b.ptr_add_const(y, g * group * 4));
                row(env, Some(self.norm), (x, RowElem::F32), (y, RowElem::F32), group);
            }
        });
        env.finish()
    }
}
