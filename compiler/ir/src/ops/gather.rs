//! Rows of an activation, such as those whose logits are wanted.

use super::common::{Args, bytes, ints, result};
use super::{Cost, Op, Sizes, tensor};
use crate::error::{Error, Result};
use crate::interp::RtValue;
use crate::types::{DType, Dim, TensorType, Type};

/// Type rule: `(x f32[n,d], rows i32[m]) -> f32[m,d]`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let args = Args::new(op, operands, &["x", "rows"])?;
    let (_, width) = args.matrix(0)?;
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
        let row = row.ok_or_else(|| Error::Interp(format!("row {i} is outside the operand of {count} rows")))?;
        out.extend_from_slice(&data[row * width..(row + 1) * width]);
    }
    result(&[indices.len(), width], out)
}

/// Bytes and flops: only the rows wanted are read.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    let results = op.infer(operands).unwrap_or_default();
    let written: f64 = results.iter().filter_map(Type::tensor).map(|t| bytes(t, sizes)).sum();
    Cost { activation_bytes: 2.0 * written, ..Cost::default() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cost, f, failure, i, infer, run};

    #[test]
    fn takes_rows() {
        assert_eq!(run("gather", &[f(&[2, 2], &[1., 2., 3., 4.]), i(&[1])]), [3., 4.]);
        assert!(failure("gather", &[f(&[1, 1], &[1.]), i(&[-1])]).contains("row -1 is outside"));
        assert_eq!(infer("gather", &["f32[T,4]", "i32[R]"]), "f32[R,4]");
        assert_eq!(cost("gather", &["f32[T,4]", "i32[R]"]), (0.0, 96.0, 0.0));
    }
}
