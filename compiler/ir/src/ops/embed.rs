//! Rows of an embedding table.

use super::common::{Args, bytes, elements, ints, result};
use super::{Cost, Op, Sizes, tensor};
use crate::error::{Error, Result};
use crate::interp::RtValue;
use crate::types::{DType, Dim, TensorType, Type};

/// Type rule: `(table [V,d], ids i32[n]) -> f32[n,d]`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let args = Args::new(op, operands, &["table", "ids"])?;
    let (_, _, width) = args.weight2(0)?;
    let rows = args.index(1)?;
    Ok(vec![TensorType::new(DType::F32, [rows, Dim::Const(width)]).into()])
}

/// Reference meaning.
pub(crate) fn eval(_op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let (x, indices) = (tensor(operands, 0)?, ints(operands, 1)?);
    let (count, width) = (x.shape[0], x.shape[1]);
    let data = x.as_f32()?;
    let mut out = Vec::with_capacity(indices.len() * width);
    for i in indices {
        let row = usize::try_from(*i).ok().filter(|r| *r < count);
        let row = row.ok_or_else(|| Error::Interp(format!("id {i} is outside the table of {count} rows")))?;
        out.extend_from_slice(&data[row * width..(row + 1) * width]);
    }
    result(&[indices.len(), width], out)
}

/// Bytes and flops: only the rows looked up are read.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    let results = op.infer(operands).unwrap_or_default();
    let Some(y) = results.first().and_then(Type::tensor) else { return Cost::default() };
    let stored = operands[0].tensor().map_or(4, |t| t.dtype.size()) as f64;
    Cost { memory_bytes: elements(y, sizes) * stored, activation_bytes: bytes(y, sizes), flops: 0.0 }
}
