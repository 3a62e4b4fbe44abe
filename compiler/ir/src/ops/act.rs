//! Pointwise nonlinearities, computed in f64 and rounded once.

use super::common::{Args, bad, map, pointwise};
use super::{Activation, Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::Type;

/// Type rule: `f32[..] -> f32[..]`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let args = Args::new(op, operands, &["x"])?;
    Ok(vec![args.f32(0)?.clone().into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::Act { kind } = op else { return Err(bad(op, "is not act")) };
    map(operands, |x| apply(*kind, f64::from(x)) as f32)
}

/// Bytes and flops: an exponential counts as about ten operations.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    pointwise(op, operands, sizes, 10.0)
}

/// The nonlinearity at one point. GELU after Hendrycks and Gimpel (arXiv 1606.08415), its tanh
/// form with the constants of that paper.
pub fn apply(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::Silu => x / (1.0 + libm::exp(-x)),
        Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + libm::tanh(inner))
        }
        Activation::Relu => x.max(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, f, run};

    #[test]
    fn values_at_one_and_minus_two() {
        let cases = [
            ("silu", [0.731_058_6, -0.238_405_84]),
            ("gelu", [0.841_344_8, -0.045_500_264]),
            ("gelu_tanh", [0.841_192, -0.045_402_306]),
            ("relu", [1.0, 0.0]),
        ];
        for (name, expected) in cases {
            close(&run(&format!("act{{kind={name}}}"), &[f(&[2], &[1.0, -2.0])]), &expected);
        }
    }

    #[test]
    fn saturates_without_nan() {
        for name in ["silu", "gelu", "gelu_tanh", "relu"] {
            assert_eq!(run(&format!("act{{kind={name}}}"), &[f(&[2], &[1e4, -1e4])]), [1e4, 0.0], "{name}");
        }
    }
}
