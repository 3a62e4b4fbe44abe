//! Stores a weight in few bits. Its values are those that the codes stand for.

use super::common::{Args, bad, result};
use super::{Cost, Op, Sizes, tensor};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{DType, TensorType, Type};

/// Rows that a scheme encodes together at most: see [`crate::quant::Scheme::encode`].
const ROWS: usize = 4;

/// Type rule: `[N,K] -> scheme[N,K]` for a weight in a type that checkpoints hold.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Quantize { scheme } = op else { return Err(bad(op, "is not quantize")) };
    let args = Args::new(op, operands, &["w"])?;
    let (dtype, ..) = args.weight2(0)?;
    if !dtype.is_stored_float() {
        return Err(args.wrong(0, "a weight of f32, f16 or bf16"));
    }
    let shape = args.weight(0)?.shape.clone();
    Ok(vec![TensorType { dtype: DType::Quant(*scheme), shape }.into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::Quantize { scheme } = op else { return Err(bad(op, "is not quantize")) };
    let w = tensor(operands, 0)?;
    let (rows, k) = (w.shape[0], w.shape[1]);
    let mut data = w.as_f32()?.to_vec();
    data.resize(rows.next_multiple_of(ROWS) * k, 0.0);
    let mut values = scheme.encode(&data, k).decode();
    values.truncate(rows * k);
    result(&w.shape, values)
}

/// Bytes and flops: none, weights are stored once.
pub(crate) fn cost(_op: &Op, _operands: &[&Type], _sizes: Sizes) -> Cost {
    Cost::default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{f, infer, run};

    #[test]
    fn values_are_those_of_the_codes() {
        let w = [127.0, -3.2, 0.4, 60.6];
        let values = run("quantize{scheme=w8a8}", &[f(&[1, 4], &w)]);
        let step = values[1].abs() / 3.0;
        let is_integer = |v: f32| (v / step - (v / step).round()).abs() < 1e-3;
        assert!(values.iter().zip(w).all(|(v, w)| (v - w).abs() <= 0.6 && is_integer(*v)), "{values:?}");
        assert_eq!(infer("quantize{scheme=w4}", &["bf16[8,64]"]), "w4[8,64]");
        assert_eq!(infer("quantize{scheme=w8(64)}", &["f32[8,64]"]), "w8(64)[8,64]");
        assert!(infer("quantize{scheme=w4}", &["w8(64)[8,64]"]).contains("expected a weight of f32, f16 or bf16"));
    }
}
