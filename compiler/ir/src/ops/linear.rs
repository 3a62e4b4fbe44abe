//! A matmul with prologue and epilogue. Its types, meaning and cost are those of its expansion.

use super::expand;
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::Type;

/// Type rule: see [`expand::expand`].
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    expand::infer(op, operands)
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    expand::eval(op, operands)
}

/// Bytes and flops: weights and operands are read once, intermediate results never.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    expand::cost(op, operands, sizes)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cost, f, infer, run};

    const GATED: &str = "linear{prologue=none, round=none, epilogue=[bias,gated(relu),residual]}";

    #[test]
    fn gated_pair_with_biases_and_residual() {
        let (gate, up) = (f(&[1, 2], &[1., 0.]), f(&[1, 2], &[0., 1.]));
        let operands = [f(&[1, 2], &[1., 2.]), gate, up, f(&[1], &[1.]), f(&[1], &[-1.]), f(&[1, 1], &[10.])];
        assert_eq!(run(GATED, &operands), [12.0]);
    }

    #[test]
    fn prologue_then_rounding_then_steps_in_order() {
        let text = "linear{prologue=rms_norm(0.0), round=bf16, epilogue=[scale(2.0),bias,act(relu)]}";
        let operands = [f(&[1, 2], &[3., 4.]), f(&[2], &[1., 1.]), f(&[2, 2], &[1., 0., 0., -1.]), f(&[2], &[1., 2.])];
        // 3 and 4 over their root mean square, as bf16: 0.84765625 and 1.1328125.
        assert_eq!(run(text, &operands), [2.695_312_5, 0.0]);
    }

    #[test]
    fn types_and_cost() {
        let types = ["f32[T,4]", "bf16[3,4]", "bf16[3,4]", "bf16[3]", "bf16[3]", "f32[T,3]"];
        assert_eq!(infer(GATED, &types), "f32[T,3]");
        let (memory, activations, flops) = cost(GATED, &types);
        assert_eq!((memory, activations), (24.0 + 24.0 + 6.0 + 6.0, 32.0 + 24.0 + 24.0));
        assert_eq!(flops, 2.0 * 48.0 + 6.0 * (1.0 + 1.0 + 10.0 + 1.0 + 1.0));
    }

    #[test]
    fn wrong_operands_are_named() {
        let types = ["f32[T,4]", "bf16[3,4]", "f16[3,4]", "bf16[3]", "bf16[3]", "f32[T,3]"];
        assert!(infer(GATED, &types).contains("gate and up are bf16[3,4], f16[3,4], expected one type"));
        assert!(infer(GATED, &types[..1]).contains("1 operands given, expected more"));
        let plain = "linear{prologue=none, round=none, epilogue=[]}";
        assert!(infer(plain, &types[..3]).contains("3 operands given, 2 used"));
        let late = "linear{prologue=none, round=none, epilogue=[mul,gated(silu)]}";
        let types = ["f32[T,4]", "bf16[3,4]", "bf16[3,4]", "f32[T,3]"];
        assert!(infer(late, &types).contains("stands before gated"));
    }
}
