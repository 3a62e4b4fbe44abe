//! The weights of a mixture's experts for each token; see the op `route`.
//!
//! An expert is kept where few enough others come before it, which every one finds out for itself: nothing is sorted, and
//! a vector's lanes, or a warp's threads, have an expert each.

use super::kv::lane_numbers;
use super::norm;
use crate::env::{Count, Env, RowElem, Rows, Scratch};
use crate::kir::{Cast, Cond, Elem, Function, Ty, UnOp, Val};
use crate::layout::LANES;
use crate::math;

/// Turns rows of logits into weights; the two do not overlap.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteKernel {
    /// Which count the rows follow.
    pub count: Count,
    /// Logits: f32.
    pub x: Rows,
    /// Weights: f32, of the same width.
    pub y: Rows,
    /// Experts that are kept.
    pub top: usize,
    /// Whether scores are a sigmoid of each logit rather than a softmax of all.
    pub sigmoid: bool,
    /// Whether what is kept is divided by its sum.
    pub normalize: bool,
    /// Factor on the weights.
    pub scale: f32,
}

impl RouteKernel {
    /// Emits the kernel.
    pub fn build(&self, name: &str, scratch: Scratch) -> Function {
        assert!(self.x.elem == RowElem::F32 && self.y.elem == RowElem::F32, "logits and weights are f32");
        let mut env = Env::new(name, scratch);
        let n = env.count(self.count);
        env.own_rows(n, |env, r| {
            let (x, y) = (env.row(&self.x, r), env.row(&self.y, r));
            self.row(env, x, y);
        });
        env.finish()
    }

    fn experts(&self) -> usize {
        self.x.width
    }

    /// Scores, then their sum, then weights.
    fn row(&self, env: &mut Env, x: Val, y: Val) {
        let highest = (!self.sigmoid).then(|| self.highest(env, x));
        env.elements(self.experts(), |env, i, lanes| {
            let v = env.load_row(RowElem::F32, x, i, lanes);
            let score = score(env, v, highest);
            let score = if self.normalize { self.kept(env, x, (i, v), score) } else { score };
            env.store_row(RowElem::F32, score, y, i);
        });
        let factor = self.factor(env, y);
        env.elements(self.experts(), |env, i, lanes| {
            let score = env.load_row(RowElem::F32, y, i, lanes);
            let factor = env.b.splat(factor, lanes);
            let weight = env.b.mul(score, factor);
            let weight = match self.normalize {
                true => weight,
                false => {
                    let v = env.load_row(RowElem::F32, x, i, lanes);
                    self.kept(env, x, (i, v), weight)
                }
            };
            env.store_row(RowElem::F32, weight, y, i);
        });
    }

    /// What scores are multiplied by.
    fn factor(&self, env: &mut Env, scores: Val) -> Val {
        let scale = env.b.float(Ty::F32, self.scale.into());
        if self.sigmoid && !self.normalize {
            return scale;
        }
        let sum = norm::sum(env, scores, self.experts(), |_, v| v);
        if env.group.threads > 1 {
            // Other threads have read the scores that this one replaces.
            env.b.warp_barrier();
        }
        env.b.div(scale, sum)
    }

    /// The highest logit: every thread looks at all of them.
    fn highest(&self, env: &mut Env, x: Val) -> Val {
        let first = env.b.load(Ty::F32, x, 0);
        let (lo, hi, one) = (env.b.index(1), env.b.index(self.experts()), env.b.index(1));
        env.for_carried((lo, hi, one), &[first], |env, j, highest| {
            let other = env.load_row(RowElem::F32, x, j, 1);
            vec![env.b.max(highest[0], other)]
        })[0]
    }

    /// `value` for the experts from `i` (i64) on, whose logits are `v`, as far as they are kept, and zero for the others.
    fn kept(&self, env: &mut Env, x: Val, (i, v): (Val, Val), value: Val) -> Val {
        let ty = env.b.ty(v);
        let ints = ty.with_elem(Elem::I32);
        let number = if ty.lanes == LANES { lane_numbers(env, i) } else { env.b.cast(Cast::Trunc, i, Ty::I32) };
        let (none, one) = (env.b.int(ints, 0), env.b.int(ints, 1));
        let (lo, hi, step) = (env.b.index(0), env.b.index(self.experts()), env.b.index(1));
        let before = env.for_carried((lo, hi, step), &[none], |env, j, before| {
            let other = env.load_row(RowElem::F32, x, j, 1);
            let other = env.b.splat(other, ty.lanes);
            let j = env.b.cast(Cast::Trunc, j, Ty::I32);
            let j = env.b.splat(j, ty.lanes);
            let (higher, equal) = (env.b.cmp(Cond::Gt, other, v), env.b.cmp(Cond::Eq, other, v));
            let earlier = env.b.cmp(Cond::Lt, j, number);
            let equal = env.b.and(equal, earlier);
            let first = env.b.or(higher, equal);
            let more = env.b.select(first, one, none);
            vec![env.b.add(before[0], more)]
        })[0];
        let (top, zero) = (env.b.int(ints, self.top as i64), env.b.float(ty, 0.0));
        let few = env.b.cmp(Cond::Lt, before, top);
        env.b.select(few, value, zero)
    }
}

/// e^(v - highest), or a sigmoid where there is no highest.
fn score(env: &mut Env, v: Val, highest: Option<Val>) -> Val {
    let ty = env.b.ty(v);
    match highest {
        Some(highest) => {
            let highest = env.b.splat(highest, ty.lanes);
            let below = env.b.sub(v, highest);
            math::exp(&mut env.b, below)
        }
        None => {
            let negated = env.b.un(UnOp::Neg, v);
            let (e, one) = (math::exp(&mut env.b, negated), env.b.float(ty, 1.0));
            let denominator = env.b.add(e, one);
            env.b.div(one, denominator)
        }
    }
}
