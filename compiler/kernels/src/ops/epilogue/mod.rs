//! What happens to a unit's raw product before it is stored.
//!
//! Steps work on one raw row in scratch, vector by vector; norm and rotation of heads see the whole
//! head, which is then exactly one unit. The last step is a sink.

mod halves;

pub use halves::AtHand;

use crate::env::{Env, Place, RowElem, Rows};
use crate::kir::{Cond, Elem, Ty, Val};
use crate::layout::{LANES, PANEL};
use crate::math;
use crate::ops::kv::{KvCache, Part};
use crate::ops::rope::Rotation;

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

/// A row of raw sums, and which elements of its unit stand there.
#[derive(Clone, Copy)]
pub struct RawRow {
    /// The sums.
    pub at: Val,
    /// Element of the unit (i64) that the first one is; `None` is 0.
    pub first: Option<Val>,
    /// How many elements stand there; of a gated pair as many of the gate, then of up.
    pub count: usize,
}

/// Some elements of a unit's result for one token.
#[derive(Clone, Copy)]
struct Piece {
    unit: Val,
    token: Val,
    /// First element in the unit: i64.
    element: Val,
    lanes: u16,
    /// Elements from `element` on that exist, where that is known.
    valid: usize,
}

impl Epilogue {
    /// Emits the epilogue of unit `unit` (i64) for tokens `0..n` whose raw rows are at `raw`.
    pub fn emit(&self, env: &mut Env, unit: Val, raw: Val, n: Val) {
        let lo = env.b.index(0);
        env.for_range(lo, n, 1, |env, t| {
            let raw = env.at(raw, t, self.panels * PANEL * 4);
            self.emit_row(env, unit, raw, t);
        });
    }

    /// Emits the epilogue of a unit for token `t`; in a group a warp's threads do it together.
    pub fn emit_row(&self, env: &mut Env, unit: Val, raw: Val, t: Val) {
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

    /// Whether elements of a unit can be finished without the others (but for the two of a gated pair).
    pub fn is_pointwise(&self) -> bool {
        matches!(self.sink, Sink::Rows(_)) && !self.steps.iter().any(Step::needs_whole_head)
    }

    /// Whether a unit is a gate and up pair.
    pub fn is_gated(&self) -> bool {
        self.steps.iter().any(|s| matches!(s, Step::Gated(_)))
    }

    /// One result of a pointwise epilogue: element `element` (i64) of a unit and token, whose sum is at `raw`.
    pub fn value_at(&self, env: &mut Env, (unit, element, token): (Val, Val, Val), raw: Val) -> Val {
        let piece = Piece { unit, token, element, lanes: 1, valid: usize::MAX };
        let half = if self.is_gated() { self.panels / 2 } else { self.panels };
        self.value(env, &self.steps, (raw, half * PANEL), piece)
    }

    /// Stores such a result.
    pub fn store_at(&self, env: &mut Env, (unit, element, token): (Val, Val, Val), v: Val) {
        let Sink::Rows(out) = &self.sink else { unreachable!("pointwise epilogues go to rows") };
        let piece = Piece { unit, token, element, lanes: 1, valid: usize::MAX };
        self.store(env, out, v, piece);
    }

    /// Emits a pointwise epilogue for some elements of a unit and token `t`.
    pub fn emit_part(&self, env: &mut Env, unit: Val, raw: RawRow, t: Val) {
        let Sink::Rows(out) = &self.sink else { unreachable!("pointwise epilogues go to rows") };
        env.elements(raw.count, |env, i, lanes| {
            let element = raw.first.map_or(i, |first| env.b.add(i, first));
            let piece = Piece { unit, token: t, element, lanes, valid: usize::MAX };
            let at = env.at(raw.at, i, 4);
            let v = self.value(env, &self.steps, (at, raw.count), piece);
            self.store(env, out, v, piece);
        });
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
        let gated = steps.iter().any(|s| matches!(s, Step::Gated(_)));
        let left = if gated { panels / 2 } else { panels };
        if steps.is_empty() && out.is_none() {
            return left;
        }
        let count = left * PANEL;
        let one = |env: &mut Env, element: Val, lanes: u16, valid: usize| {
            let piece = Piece { unit, token: t, element, lanes, valid };
            let at = env.at(raw, element, 4);
            let v = self.value(env, steps, (at, count), piece);
            match out {
                Some(out) => self.store(env, out, v, piece),
                None => env.b.store(v, at, 0),
            }
        };
        if env.group.threads > 1 {
            env.elements(count, |env, element, lanes| one(env, element, lanes, usize::MAX));
            return left;
        }
        for p in 0..left {
            let element = env.b.index(p * PANEL);
            one(env, element, LANES, self.unit_rows.saturating_sub(p * PANEL));
        }
        left
    }

    /// What pointwise steps make of the sums at `at`; the up part of a gated pair stands `count` elements
    /// behind them.
    fn value(&self, env: &mut Env, steps: &[Step], (at, count): (Val, usize), piece: Piece) -> Val {
        let ty = Ty { elem: Elem::F32, lanes: piece.lanes };
        let v = env.b.load(ty, at, 0);
        let Some(gate) = steps.iter().position(|s| matches!(s, Step::Gated(_))) else {
            return self.apply(env, steps, v, piece);
        };
        let up = env.b.load(ty, at, (4 * count) as i32);
        let half = self.panels / 2 * PANEL;
        let upper = Piece { element: env.b.add_const(piece.element, half as i64), ..piece };
        let v = self.apply(env, &steps[..gate], v, piece);
        let up = self.apply(env, &steps[..gate], up, upper);
        let Step::Gated(act) = steps[gate] else { unreachable!("found as Gated") };
        let g = act.emit(env, v);
        let v = env.b.mul(g, up);
        self.apply(env, &steps[gate + 1..], v, piece)
    }

    fn apply(&self, env: &mut Env, steps: &[Step], v: Val, piece: Piece) -> Val {
        let ty = env.b.ty(v);
        steps.iter().fold(v, |v, step| match step {
            Step::Bias(offset) => {
                let base = env.ptr(Place::Weights(*offset));
                let base = env.at(base, piece.unit, self.panels * PANEL * 4);
                let base = env.at(base, piece.element, 4);
                let bias = env.b.load(ty, base, 0);
                env.b.add(v, bias)
            }
            Step::Act(act) => act.emit(env, v),
            Step::Residual(rows) => {
                let r = self.other(env, rows, piece);
                env.b.add(r, v)
            }
            Step::Mul(rows) => {
                let r = self.other(env, rows, piece);
                env.b.mul(r, v)
            }
            Step::Scale(s) => {
                let s = env.b.float(ty, f64::from(*s));
                env.b.mul(v, s)
            }
            Step::Gated(_) | Step::HeadNorm { .. } | Step::Rope { .. } => unreachable!("not pointwise"),
        })
    }

    /// First column of a piece in a row of the result.
    fn column(&self, env: &mut Env, piece: Piece) -> Val {
        let first = env.b.mul_const(piece.unit, self.unit_rows as i64);
        env.b.add(first, piece.element)
    }

    fn other(&self, env: &mut Env, rows: &Rows, piece: Piece) -> Val {
        let (row, column) = (env.row(rows, piece.token), self.column(env, piece));
        if env.group.threads == 1 {
            let at = env.at(row, column, rows.elem.bytes());
            return env.b.load(VECTOR, at, 0);
        }
        self.inside(env, rows, column, |env| vec![env.load_row(rows.elem, row, column, 1)])
    }

    /// What `f` gives where a column of a group's result exists, else zero.
    fn inside(&self, env: &mut Env, rows: &Rows, column: Val, f: impl FnOnce(&mut Env) -> Vec<Val>) -> Val {
        if rows.width.is_multiple_of(PANEL) {
            return f(env)[0];
        }
        let width = env.b.index(rows.width);
        let exists = env.b.cmp(Cond::Lt, column, width);
        env.if_value(exists, f, |env| vec![env.b.float(Ty::F32, 0.0)])[0]
    }

    /// Stores results: whole vectors where the row has room for them, else valid lanes.
    fn store(&self, env: &mut Env, out: &Rows, v: Val, piece: Piece) {
        let (row, column) = (env.row(out, piece.token), self.column(env, piece));
        if piece.lanes == 1 {
            return self.store_one(env, out, v, (row, column), piece);
        }
        let to = env.at(row, column, out.elem.bytes());
        if piece.valid < PANEL {
            return store_lanes(env, out.elem, v, to, piece.valid);
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

    /// Stores one result if its column exists.
    fn store_one(&self, env: &mut Env, out: &Rows, v: Val, (row, column): (Val, Val), piece: Piece) {
        if self.unit_rows.is_multiple_of(PANEL) && out.width.is_multiple_of(PANEL) {
            return env.store_row(out.elem, v, row, column);
        }
        let (rows, width) = (env.b.index(self.unit_rows), env.b.index(out.width));
        let in_unit = env.b.cmp(Cond::Lt, piece.element, rows);
        let in_row = env.b.cmp(Cond::Lt, column, width);
        let exists = env.b.and(in_unit, in_row);
        env.if_then(exists, |env| env.store_row(out.elem, v, row, column));
    }

    fn whole_head(&self, env: &mut Env, step: &Step, raw: Val, t: Val) {
        match step {
            Step::HeadNorm { eps, scale } => {
                let norm = crate::ops::norm::Norm::Rms { eps: *eps, scale: *scale };
                crate::ops::norm::row(env, Some(norm), (raw, RowElem::F32), (raw, RowElem::F32), self.unit_rows);
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
