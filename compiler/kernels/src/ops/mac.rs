//! The multiply-add that a product is a chain of.

use crate::env::{Env, RowElem};
use crate::formats::WeightFormat;
use crate::formats::float_rows::FloatRows;
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
    /// Bytes times bytes, four k at a time; see [`super::int_product`].
    Dot4I8,
}

impl Mac {
    /// The one for weights of a format and rows whose values are those of `values`, and what it wants
    /// the rows to hold; `None` if there is none.
    pub fn new(format: WeightFormat, values: RowElem) -> Option<(Mac, RowElem)> {
        match (format, values) {
            (WeightFormat::Quant(scheme), elem) if scheme.is_float() => Self::floats(elem),
            (WeightFormat::Quant(_), RowElem::Bytes) => Some((Mac::Dot4I8, RowElem::Bytes)),
            (WeightFormat::Quant(_), _) | (_, RowElem::Bytes) => None,
            (WeightFormat::Bf16, RowElem::Bf16) => Some((Mac::Dot2Bf16, RowElem::Bf16)),
            (_, elem) => Self::floats(elem),
        }
    }

    /// The same for workers that are groups of threads, whose matrix unit multiplies bf16 alone: all weights that become
    /// bf16 meet rows of it.
    pub fn of_groups(format: WeightFormat, values: RowElem) -> Option<(Mac, RowElem)> {
        match values {
            RowElem::Bf16 if FloatRows::takes(format) => Some((Mac::Dot2Bf16, RowElem::Bf16)),
            _ => Self::new(format, values),
        }
    }

    /// The one for weights that are decoded to f32.
    fn floats(values: RowElem) -> Option<(Mac, RowElem)> {
        match values {
            RowElem::Bytes => None,
            RowElem::F32 => Some((Mac::Fma, RowElem::F32)),
            RowElem::Bf16 | RowElem::Bf16InF32 => Some((Mac::Fma, RowElem::Bf16InF32)),
        }
    }

    /// Bytes of an element of the rows.
    pub fn row_elem_bytes(self) -> usize {
        match self {
            Mac::Fma => 4,
            Mac::Dot2Bf16 => 2,
            Mac::Dot4I8 => 1,
        }
    }

    /// Multiply-adds in one step of a float format.
    pub fn per_step(self, format: WeightFormat) -> usize {
        if self == Mac::Dot2Bf16 { format.k_step() / 2 } else { format.k_step() }
    }

    /// Operand `i` of the step at `xs + offset` in a row, in every lane.
    pub fn input(self, env: &mut Env, xs: Val, i: usize, offset: usize) -> Val {
        let ty = if self == Mac::Fma { Ty::F32 } else { Ty::I32 };
        let v = env.b.load_with(ty, xs, (offset + 4 * i) as i32, 4, Hint::None);
        env.b.splat(v, LANES)
    }

    /// The weight operands of the step at `ws`.
    pub fn weights(self, env: &mut Env, format: WeightFormat, ws: Val) -> Vec<Val> {
        if self == Mac::Fma { format.emit_decode(&mut env.b, ws, 0) } else { vec![packed(env, ws)] }
    }

    /// Weight operand `i` of the step at `ws`. A product that uses it for many tokens asks for one
    /// at a time, which takes a register less than keeping the packed step.
    pub fn weight(self, env: &mut Env, format: WeightFormat, ws: Val, i: usize) -> Val {
        if self == Mac::Fma { format.emit_decode_one(&mut env.b, ws, i) } else { packed(env, ws) }
    }

    /// `w * x + acc`.
    pub fn emit(self, env: &mut Env, w: Val, x: Val, acc: Val) -> Val {
        match self {
            Mac::Fma => env.b.fma(w, x, acc),
            Mac::Dot2Bf16 => env.b.dot2_bf16(acc, w, x),
            Mac::Dot4I8 => env.b.dot4_i8(acc, w, x),
        }
    }
}

/// The weights of a step as dot products read them.
fn packed(env: &mut Env, ws: Val) -> Val {
    env.b.load(Ty::vector(Elem::I32, LANES), ws, 0)
}
