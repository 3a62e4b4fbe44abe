//! Product of two tensors, element by element.

use super::common::{Args, pointwise, zip};
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::Type;

/// Type rule: `(a f32[..], b f32[..]) -> f32[..]`, one shape.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let args = Args::new(op, operands, &["a", "b"])?;
    let ty = args.f32(0)?;
    args.exactly(1, ty)?;
    Ok(vec![ty.clone().into()])
}

/// Reference meaning.
pub(crate) fn eval(_op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    zip(operands, |a, b| a * b)
}

/// Bytes and flops.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    pointwise(op, operands, sizes, 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{f, infer, run};

    #[test]
    fn multiplies() {
        assert_eq!(run("mul", &[f(&[2], &[1., 2.]), f(&[2], &[3., -4.])]), [3., -8.]);
        assert!(infer("mul", &["bf16[4]", "bf16[4]"]).contains("expected an f32 tensor"));
    }
}
