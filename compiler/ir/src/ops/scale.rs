//! Multiplies by a constant.

use super::common::{Args, bad, map, pointwise};
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::Type;

/// Type rule: `f32[..] -> f32[..]`; the factor is finite.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Scale { factor } = op else { return Err(bad(op, "is not scale")) };
    if !factor.get().is_finite() {
        return Err(bad(op, format!("factor={factor:?} is not finite")));
    }
    let args = Args::new(op, operands, &["x"])?;
    Ok(vec![args.f32(0)?.clone().into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::Scale { factor } = op else { return Err(bad(op, "is not scale")) };
    map(operands, |x| x * factor.get())
}

/// Bytes and flops.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    pointwise(op, operands, sizes, 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{f, infer, run};

    #[test]
    fn multiplies_by_a_constant() {
        assert_eq!(run("scale{factor=-0.5}", &[f(&[2], &[1., -3.])]), [-0.5, 1.5]);
        assert_eq!(infer("scale{factor=NaN}", &["f32[2]"]), "scale: factor=NaN is not finite");
    }
}
