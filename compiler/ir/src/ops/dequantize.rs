//! The values of a narrow tensor where another type is expected: the identity.

use super::common::{Args, bad, result};
use super::{Cost, Op, Sizes, tensor};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{DType, TensorType, Type};

/// Type rule: `quantized[..] -> dtype[..]` or `i8[..] -> dtype[..]`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Dequantize { dtype } = op else { return Err(bad(op, "is not dequantize")) };
    let args = Args::new(op, operands, &["x"])?;
    let x = args.float(0)?;
    if !matches!(x.dtype, DType::Quant(_) | DType::I8) || !dtype.is_stored_float() {
        return Err(args.wrong(0, format_args!("quantized or i8, for dtype={dtype} of f32, f16 or bf16")));
    }
    Ok(vec![TensorType { dtype: *dtype, ..x.clone() }.into()])
}

/// Reference meaning.
pub(crate) fn eval(_op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let x = tensor(operands, 0)?;
    result(&x.shape, x.as_f32()?.to_vec())
}

/// Bytes and flops: nothing by itself; what reads the result pays for the wider type.
pub(crate) fn cost(_op: &Op, _operands: &[&Type], _sizes: Sizes) -> Cost {
    Cost::default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eval, f, infer};

    #[test]
    fn keeps_values_and_changes_the_type() {
        assert_eq!(eval("dequantize{dtype=f32}", &[f(&[1, 2], &[1.0, 2.5])]), [1.0, 2.5]);
        assert_eq!(infer("dequantize{dtype=bf16}", &["w4[8,64]"]), "bf16[8,64]");
        assert_eq!(infer("dequantize{dtype=f32}", &["i8[T,64]"]), "f32[T,64]");
        assert!(infer("dequantize{dtype=f32}", &["bf16[T,64]"]).contains("expected quantized or i8"));
    }
}
