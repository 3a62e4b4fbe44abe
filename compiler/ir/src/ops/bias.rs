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

#[cfg(test)]
mod tests {
    use super::super::testing::{f, infer, run};

    #[test]
    fn adds_to_every_row() {
        assert_eq!(run("bias", &[f(&[2, 2], &[1., 2., 3., 4.]), f(&[2], &[10., 20.])]), [11., 22., 13., 24.]);
        assert_eq!(infer("bias", &["f32[T,2,3]", "bf16[3]"]), "f32[T,2,3]");
        let error = "bias: operand 1 (b) is bf16[4], expected a floating-point vector [3]";
        assert_eq!(infer("bias", &["f32[T,3]", "bf16[4]"]), error);
    }
}
