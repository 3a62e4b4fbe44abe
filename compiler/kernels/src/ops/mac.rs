//! The multiply-add that a product is a chain of.

use crate::env::{Env, RowElem};
use crate::formats::WeightFormat;
use crate::kir::{Elem, Hint, Ty, Val};
use crate::layout::LANES;

/// What multiplies weights with elements of a row and adds to f32 sums, in one vector of a panel's
/// rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mac {
    /// f32 times f32, one k at a time; weights are decoded.
    Fma,
    /// bf16 times bf16, two k at a time; see [`crate::kir::Op::Dot2Bf16`].
    Dot2Bf16,
}

impl Mac {
    /// The one for weights of a format and rows of bf16 values, or of any f32; and what it wants the
    /// rows to hold.
    pub fn new(format: WeightFormat, bf16_rows: bool) -> (Mac, RowElem) {
        match (format, bf16_rows) {
            (WeightFormat::Bf16, true) => (Mac::Dot2Bf16, RowElem::Bf16),
            (_, true) => (Mac::Fma, RowElem::Bf16InF32),
            (_, false) => (Mac::Fma, RowElem::F32),
        }
    }

    /// Bytes of an element of the rows.
    pub fn row_elem_bytes(self) -> usize {
        match self {
            Mac::Fma => 4,
            Mac::Dot2Bf16 => 2,
        }
    }

    /// Multiply-adds in one step of a format.
    pub fn per_step(self, format: WeightFormat) -> usize {
        match self {
            Mac::Fma => format.k_step(),
            Mac::Dot2Bf16 => format.k_step() / 2,
        }
    }

    /// Operand `i` of the step at `xs + offset` in a row, in every lane.
    pub fn input(self, env: &mut Env, xs: Val, i: usize, offset: usize) -> Val {
        let ty = match self {
            Mac::Fma => Ty::F32,
            Mac::Dot2Bf16 => Ty::I32,
        };
        let v = env.b.load_with(ty, xs, (offset + 4 * i) as i32, 4, Hint::None);
        env.b.splat(v, LANES)
    }

    /// The weight operands of the step at `ws`.
    pub fn weights(self, env: &mut Env, format: WeightFormat, ws: Val) -> Vec<Val> {
        match self {
            Mac::Fma => format.emit_decode(&mut env.b, ws, 0),
            Mac::Dot2Bf16 => vec![pairs(env, ws)],
        }
    }

    /// Weight operand `i` of the step at `ws`. A product that uses it for many tokens asks for one
    /// at a time, which takes a register less than keeping the packed step.
    pub fn weight(self, env: &mut Env, format: WeightFormat, ws: Val, i: usize) -> Val {
        match self {
            Mac::Fma => format.emit_decode_one(&mut env.b, ws, i),
            Mac::Dot2Bf16 => pairs(env, ws),
        }
    }

    /// `w * x + acc`.
    pub fn emit(self, env: &mut Env, w: Val, x: Val, acc: Val) -> Val {
        match self {
            Mac::Fma => env.b.fma(w, x, acc),
            Mac::Dot2Bf16 => env.b.dot2_bf16(acc, w, x),
        }
    }
}

/// The pairs of a step of bf16 weights.
fn pairs(env: &mut Env, ws: Val) -> Val {
    env.b.load(Ty::vector(Elem::I32, LANES), ws, 0)
}
