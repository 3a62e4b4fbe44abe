//! What happens to a unit's raw product before it is stored.
//!
//! Steps work on one raw row in scratch, vector by vector; norm and rotation of heads see the whole
//! head, which is then exactly one unit. The last step is a sink.

use super::kv::{KvCache, Part};
use super::rope::Rotation;
use crate::env::{Env, Place, RowElem, Rows};
use crate::kir::{Cond, Elem, Ty, Val};
use crate::layout::{LANES, PANEL};
use crate::math;

/// Pointwise nonlinearities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Activation {
    Silu,
    Gelu,
    GeluTanh,
    Relu,
}

impl Activation {
    /// Emits the function.
    pub fn emit(self, env: &mut Env, v: Val) -> Val {
        match self {
            Activation::Silu => math::silu(&mut env.b, v),
            Activation::Gelu => math::gelu(&mut env.b, v),
            Activation::GeluTanh => math::gelu_tanh(&mut env.b, v),
            Activation::Relu => {
                let zero = env.b.float(env.b.ty(v), 0.0);
                env.b.max(v, zero)
            }
        }
    }
}

/// One step. Offsets are those of f32 vectors in the call's weights, padded as the unit is.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Adds a vector; on a gated pair it holds each unit's gate rows, then its up rows.
    Bias(usize),
    /// Pointwise nonlinearity.
    Act(Activation),
    /// Of a unit whose first half is gate and second half up: activation(gate) * up. What follows
    /// sees half as many panels.
    Gated(Activation),
    /// Adds rows of the result's shape.
    Residual(Rows),
    /// Multiplies by rows of the result's shape.
    Mul(Rows),
    /// Multiplies by a constant.
    Scale(f32),
    /// RMSNorm of the head that the unit is.
    HeadNorm {
        /// Added to the mean square.
        eps: f32,
        /// Offset of the scale.
        scale: usize,
    },
    /// Rotation of the head that the unit is.
    Rope {
        /// Which elements rotate with which.
        rotation: Rotation,
        /// Angles of each token.
        table: Rows,
    },
}

/// Where a unit's rows go.
#[derive(Clone, Debug, PartialEq)]
pub enum Sink {
    /// Columns of a buffer, rounded where it holds less than f32; the unit's first column is its
    /// index times the unit's rows.
    Rows(Rows),
    /// A head of the KV cache; the unit's index is the head.
    Kv(KvCache, Part),
}

/// The steps of one product and where it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Epilogue {
    /// Steps in order.
    pub steps: Vec<Step>,
    /// Where the result goes.
    pub sink: Sink,
    /// Result rows (output features) of a unit.
    pub unit_rows: usize,
    /// Panels of a unit, both halves of a gated pair counted.
    pub panels: usize,
}

const VECTOR: Ty = Ty::vector(Elem::F32, LANES);

impl Epilogue {
    /// Emits the epilogue of unit `unit` (i64) for tokens `0..n` whose raw rows are at `raw`.
    pub fn emit(&self, env: &mut Env, unit: Val, raw: Val, n: Val) {
        let lo = env.b.index(0);
        env.for_range(lo, n, 1, |env, t| {
            let raw = env.at(raw, t, self.panels * PANEL * 4);
            self.emit_row(env, unit, raw, t);
        });
    }

    fn emit_row(&self, env: &mut Env, unit: Val, raw: Val, t: Val) {
        let mut panels = self.panels;
        let mut rest = self.steps.as_slice();
        while let Some(whole) = rest.iter().position(Step::needs_whole_head) {
            panels = self.pointwise(env, &rest[..whole], panels, (unit, raw, t), None);
            self.whole_head(env, &rest[whole], raw, t);
            rest = &rest[whole + 1..];
        }
        match &self.sink {
            Sink::Rows(out) => {
                self.pointwise(env, rest, panels, (unit, raw, t), Some(out));
            }
            Sink::Kv(cache, part) => {
                self.pointwise(env, rest, panels, (unit, raw, t), None);
                let at = cache.slot(env, t);
                cache.store_head(env, at, *part, unit, raw);
            }
        }
    }

    /// Applies pointwise steps to each vector of the raw row, back into it or into `out`. Returns
    /// the number of panels left.
    fn pointwise(
        &self,
        env: &mut Env,
        steps: &[Step],
        panels: usize,
        (unit, raw, t): (Val, Val, Val),
        out: Option<&Rows>,
    ) -> usize {
        let gate = steps.iter().position(|s| matches!(s, Step::Gated(_)));
        let left = if gate.is_some() { panels / 2 } else { panels };
        if steps.is_empty() && out.is_none() {
            return left;
        }
        for p in 0..left {
            let mut v = env.b.load(VECTOR, raw, (p * PANEL * 4) as i32);
            let mut after = steps;
            if let Some(gate) = gate {
                let up = env.b.load(VECTOR, raw, ((p + left) * PANEL * 4) as i32);
                let before = &steps[..gate];
                v = self.apply(env, before, v, (unit, t, p));
                let up = self.apply(env, before, up, (unit, t, p + left));
                let Step::Gated(act) = steps[gate] else { unreachable!("found as Gated") };
                let g = act.emit(env, v);
                v = env.b.mul(g, up);
                after = &steps[gate + 1..];
            }
            v = self.apply(env, after, v, (unit, t, p));
            match out {
                Some(out) => self.store(env, out, v, (unit, t, p)),
                None => env.b.store(v, raw, (p * PANEL * 4) as i32),
            }
        }
        left
    }

    fn apply(&self, env: &mut Env, steps: &[Step], v: Val, (unit, t, p): (Val, Val, usize)) -> Val {
        steps.iter().fold(v, |v, step| match step {
            Step::Bias(offset) => {
                let base = env.ptr(Place::Weights(*offset));
                let base = env.at(base, unit, self.panels * PANEL * 4);
                let bias = env.b.load(VECTOR, base, (p * PANEL * 4) as i32);
                env.b.add(v, bias)
            }
            Step::Act(act) => act.emit(env, v),
            Step::Residual(rows) => {
                let r = self.other(env, rows, (unit, t, p));
                env.b.add(r, v)
            }
            Step::Mul(rows) => {
                let r = self.other(env, rows, (unit, t, p));
                env.b.mul(r, v)
            }
            Step::Scale(s) => {
                let s = env.b.float(VECTOR, f64::from(*s));
                env.b.mul(v, s)
            }
            Step::Gated(_) | Step::HeadNorm { .. } | Step::Rope { .. } => unreachable!("not pointwise"),
        })
    }

    /// Address of the vector of panel `p` in a buffer of the result's shape, and its first column.
    fn column(&self, env: &mut Env, rows: &Rows, (unit, t, p): (Val, Val, usize)) -> (Val, Val) {
        let row = env.row(rows, t);
        let first = env.b.mul_const(unit, self.unit_rows as i64);
        let column = env.b.add_const(first, (p * PANEL) as i64);
        (env.at(row, column, rows.elem.bytes()), column)
    }

    fn other(&self, env: &mut Env, rows: &Rows, at: (Val, Val, usize)) -> Val {
        let (p, _) = self.column(env, rows, at);
        env.b.load(VECTOR, p, 0)
    }

    /// Stores a vector of results: whole where the row has room for it, else its valid lanes.
    fn store(&self, env: &mut Env, out: &Rows, v: Val, at: (Val, Val, usize)) {
        let (to, column) = self.column(env, out, at);
        let valid = self.unit_rows.saturating_sub(at.2 * PANEL).min(PANEL);
        if valid < PANEL {
            return store_lanes(env, out.elem, v, to, valid);
        }
        if out.stride.is_multiple_of(PANEL * out.elem.bytes()) {
            return env.store_elems(out.elem, v, to);
        }
        let width = env.b.index(out.width);
        let end = env.b.add_const(column, PANEL as i64);
        let fits = env.b.cmp(Cond::Le, end, width);
        let tail = out.width % PANEL;
        let elem = out.elem;
        env.if_else(fits, |env| env.store_elems(elem, v, to), |env| store_lanes(env, elem, v, to, tail));
    }

    fn whole_head(&self, env: &mut Env, step: &Step, raw: Val, t: Val) {
        match step {
            Step::HeadNorm { eps, scale } => {
                let norm = super::norm::Norm::Rms { eps: *eps, scale: *scale };
                super::norm::row(env, Some(norm), (raw, RowElem::F32), (raw, RowElem::F32), self.unit_rows);
            }
            Step::Rope { rotation, table } => {
                let angles = env.row(table, t);
                rotation.emit(env, raw, angles);
            }
            _ => unreachable!("pointwise"),
        }
    }
}

impl Step {
    fn needs_whole_head(&self) -> bool {
        matches!(self, Step::HeadNorm { .. } | Step::Rope { .. })
    }
}

fn store_lanes(env: &mut Env, elem: RowElem, v: Val, to: Val, valid: usize) {
    for lane in 0..valid {
        let x = env.b.extract(v, lane as u16);
        let to = env.b.ptr_add_const(to, lane * elem.bytes());
        env.store_elems(elem, x, to);
    }
}
