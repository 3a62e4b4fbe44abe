//! Cosines and sines of a rotary embedding (arXiv 2104.09864).
//!
//! The angle `position * inv_freq` is rounded to f32, as in the checkpoints' own code: at position
//! 100000 that rounding is visible.

use super::common::{Args, bad, floats, ints, pointwise, result};
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{DType, Dim, TensorType, Type};

/// Type rule: `(positions i32[n], inv_freq [r/2]) -> f32[n,r]`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::RopeTable { scaling, period } = op else { return Err(bad(op, "is not rope_table")) };
    if *period == Some(0) {
        return Err(bad(op, "period=0, expected at least 1 position"));
    }
    if !scaling.get().is_finite() {
        return Err(bad(op, format!("scaling={scaling:?} is not finite")));
    }
    let args = Args::new(op, operands, &["positions", "inv_freq"])?;
    let rows = args.index(0)?;
    let width = match args.weight(1)?.shape.as_slice() {
        [Dim::Const(half @ 1..)] => half.checked_mul(2),
        _ => None,
    };
    let width = width.ok_or_else(|| args.wrong(1, "a vector of at least 1 frequency"))?;
    Ok(vec![TensorType::new(DType::F32, [rows, Dim::Const(width)]).into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::RopeTable { scaling, period } = op else { return Err(bad(op, "is not rope_table")) };
    let (positions, frequencies) = (ints(operands, 0)?, floats(operands, 1)?);
    let width = 2 * frequencies.len();
    let mut out = Vec::with_capacity(positions.len() * width);
    for p in positions {
        let p = period.map_or(i64::from(*p), |period| i64::from(*p) % period as i64);
        let angles = frequencies.iter().map(|f| f64::from(p as f32 * f));
        out.extend(angles.clone().map(|a| libm::cos(a) as f32 * scaling.get()));
        out.extend(angles.map(|a| libm::sin(a) as f32 * scaling.get()));
    }
    result(&[positions.len(), width], out)
}

/// Bytes and flops: a sine or cosine counts as about twenty operations.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    pointwise(op, operands, sizes, 20.0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, f, i, infer, run};

    #[test]
    fn cosines_then_sines() {
        let table = run("rope_table{scaling=2.0, period=none}", &[i(&[2]), f(&[2], &[1.0, 0.5])]);
        close(&table, &[-0.832_293_7, 1.080_604_6, 1.818_594_9, 1.682_942]);
        assert_eq!(infer("rope_table{scaling=1.0, period=none}", &["i32[T]", "f32[8]"]), "f32[T,16]");
        assert!(infer("rope_table{scaling=1.0, period=none}", &["i32[T]", "f32[8,1]"]).contains("a vector"));
    }

    #[test]
    fn positions_count_within_a_period() {
        let of = |p: i32, period: &str| {
            run(&format!("rope_table{{scaling=1.0, period={period}}}"), &[i(&[p]), f(&[2], &[1.0, 0.5])])
        };
        assert_eq!((of(37, "32"), of(32, "32")), (of(5, "none"), of(0, "none")));
        assert!(infer("rope_table{scaling=1.0, period=0}", &["i32[T]", "f32[8]"]).contains("period=0"));
    }

    #[test]
    fn the_angle_is_an_f32() {
        let table = run("rope_table{scaling=1.0, period=none}", &[i(&[100_000]), f(&[1], &[0.1])]);
        close(&table, &[-0.952_155_37, -0.305_614_4]);
    }
}
