//! Swaps the two dimensions of a weight.

use super::common::{Args, result};
use super::{Cost, Op, Sizes, tensor};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{Dim, TensorType, Type};

/// Type rule: `[a,b] -> [b,a]`, of the same element type.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let args = Args::new(op, operands, &["w"])?;
    let (dtype, rows, columns) = args.weight2(0)?;
    Ok(vec![TensorType::new(dtype, [Dim::Const(columns), Dim::Const(rows)]).into()])
}

/// Reference meaning.
pub(crate) fn eval(_op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let w = tensor(operands, 0)?;
    let (rows, columns, data) = (w.shape[0], w.shape[1], w.as_f32()?);
    let mut out = Vec::with_capacity(data.len());
    for c in 0..columns {
        out.extend((0..rows).map(|r| data[r * columns + c]));
    }
    result(&[columns, rows], out)
}

/// Bytes and flops: none in a step, weights are laid out when they are packed.
pub(crate) fn cost(_op: &Op, _operands: &[&Type], _sizes: Sizes) -> Cost {
    Cost::default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{f, infer, run};

    #[test]
    fn swaps_dimensions() {
        assert_eq!(run("transpose", &[f(&[2, 3], &[1., 2., 3., 4., 5., 6.])]), [1., 4., 2., 5., 3., 6.]);
        assert_eq!(infer("transpose", &["f16[2,3]"]), "f16[3,2]");
        assert!(infer("transpose", &["f32[T,3]"]).contains("constant dimensions"));
    }
}
