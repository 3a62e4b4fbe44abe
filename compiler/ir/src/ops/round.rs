//! Rounds to a narrower type, to nearest even; the elements are still held as f32.

use super::common::{Args, bad, map, pointwise, round_to};
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{DType, Type};

/// Type rule: `f32[..] -> f32[..]`; the type is f16 or bf16.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Round { dtype } = op else { return Err(bad(op, "is not round")) };
    if !matches!(dtype, DType::F16 | DType::Bf16) {
        return Err(bad(op, format!("dtype={dtype}, expected f16 or bf16")));
    }
    let args = Args::new(op, operands, &["x"])?;
    Ok(vec![args.f32(0)?.clone().into()])
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
        assert_eq!(run("round{dtype=f16}", &[f(&[2], &[2049.0, 1e6])]), [2048.0, f32::INFINITY]);
        assert_eq!(infer("round{dtype=i32}", &["f32[2]"]), "round: dtype=i32, expected f16 or bf16");
    }
}
