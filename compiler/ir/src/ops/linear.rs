//! A matmul with prologue and epilogue. Its types, meaning and cost are those of its expansion.

use super::expand;
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::Type;

/// Type rule: see [`expand::expand`].
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    expand::infer(op, operands)
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    expand::eval(op, operands)
}

/// Bytes and flops: weights and operands are read once, intermediate results never.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    expand::cost(op, operands, sizes)
}
