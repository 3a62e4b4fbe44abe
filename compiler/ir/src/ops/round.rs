//! Converts to a narrower type, to nearest even.

use super::common::{Args, bad, map, pointwise, round_to};
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{DType, TensorType, Type};

/// Type rule: `f32[..] -> bf16[..]`, the one narrower type that products take.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Round { dtype } = op else { return Err(bad(op, "is not round")) };
    if *dtype != DType::Bf16 {
        return Err(bad(op, format!("dtype={dtype}, expected bf16")));
    }
    let args = Args::new(op, operands, &["x"])?;
    Ok(vec![TensorType { dtype: *dtype, ..args.f32(0)?.clone() }.into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::Round { dtype } = op else { return Err(bad(op, "is not round")) };
    map(operands, |x| round_to(*dtype, x))
}

/// Bytes and flops.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    pointwise(op, operands, sizes, 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{f, infer, run};

    #[test]
    fn rounds_to_nearest_even() {
        let x = f(&[3], &[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.0 + 1.0 / 255.0]);
        assert_eq!(run("round{dtype=bf16}", &[x]), [1.0, 1.015_625, 1.007_812_5]);
        assert_eq!(infer("round{dtype=bf16}", &["f32[T,2]"]), "bf16[T,2]");
        assert_eq!(infer("round{dtype=f16}", &["f32[2]"]), "round: dtype=f16, expected bf16");
    }
}
