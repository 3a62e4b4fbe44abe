//! Adds a vector to every row.

use super::common::{Args, floats, map_rows, pointwise};
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::Type;

/// Type rule: `(x f32[..,N], b [N]) -> f32[..,N]`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let args = Args::new(op, operands, &["x", "b"])?;
    let (ty, width) = args.rows(0)?;
    args.vector(1, width)?;
    Ok(vec![ty.clone().into()])
}

/// Reference meaning.
pub(crate) fn eval(_op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let bias = floats(operands, 1)?;
    map_rows(operands, |row, out| out.extend(row.iter().zip(bias).map(|(x, b)| x + b)))
}

/// Bytes and flops.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    pointwise(op, operands, sizes, 1.0)
}
