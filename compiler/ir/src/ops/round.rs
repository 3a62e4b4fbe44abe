//! Converts to a narrower type, to nearest even. 8-bit integers have one scale for each row.

use super::common::{Args, bad, map, map_rows, pointwise, round_to};
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{DType, TensorType, Type};

/// Type rule: `f32[..] -> bf16[..]` or `i8[..]`, the narrower types that products take.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Round { dtype } = op else { return Err(bad(op, "is not round")) };
    if !matches!(dtype, DType::Bf16 | DType::I8) {
        return Err(bad(op, format!("dtype={dtype}, expected bf16 or i8")));
    }
    let args = Args::new(op, operands, &["x"])?;
    Ok(vec![TensorType { dtype: *dtype, ..args.f32(0)?.clone() }.into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::Round { dtype } = op else { return Err(bad(op, "is not round")) };
    match dtype {
        DType::I8 => map_rows(operands, bytes_of_row),
        dtype => map(operands, |x| round_to(*dtype, x)),
    }
}

/// Appends a row rounded to integers from -127 to 127 times its largest magnitude over 127.
pub(crate) fn bytes_of_row(row: &[f32], out: &mut Vec<f32>) {
    let largest = row.iter().fold(0f32, |m, v| if v.abs() > m { v.abs() } else { m });
    let (scale, inverse) = (largest / 127.0, if largest > 0.0 { 127.0 / largest } else { 0.0 });
    out.extend(row.iter().map(|v| (v * inverse).clamp(-127.0, 127.0).round_ties_even() * scale));
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
        assert_eq!(infer("round{dtype=f16}", &["f32[2]"]), "round: dtype=f16, expected bf16 or i8");
        let x = f(&[2, 2], &[127.0, 0.4, -1.27, 0.026]);
        assert_eq!(run("round{dtype=i8}", &[x]), [127.0, 0.0, -1.27, 0.03]);
        assert_eq!(run("round{dtype=i8}", &[f(&[1, 2], &[0.0, 0.0])]), [0.0, 0.0]);
    }
}
