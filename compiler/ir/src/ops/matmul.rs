//! Product with a weight stored by output row, as in `torch.nn.functional.linear`.

use super::common::{Args, dot, elements, result, traffic};
use super::{Cost, Op, Sizes, tensor};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{DType, Dim, TensorType, Type};

/// Type rule: `(x f32[n,K], w [N,K]) -> f32[n,N]`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let args = Args::new(op, operands, &["x", "w"])?;
    let (rows, inner) = args.matrix(0)?;
    let (_, outer, stored) = args.weight2(1)?;
    if stored != inner {
        return Err(args.wrong(1, format_args!("[N,{inner}] as x is {}", operands[0])));
    }
    Ok(vec![TensorType::new(DType::F32, [rows, Dim::Const(outer)]).into()])
}

/// Reference meaning.
pub(crate) fn eval(_op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let (x, w) = (tensor(operands, 0)?, tensor(operands, 1)?);
    let (rows, inner, outer) = (x.shape[0], x.shape[1], w.shape[0]);
    let (xs, ws) = (x.as_f32()?, w.as_f32()?);
    let mut out = vec![0f32; rows * outer];
    for n in 0..outer {
        let weights = &ws[n * inner..(n + 1) * inner];
        for t in 0..rows {
            out[t * outer + n] = dot(&xs[t * inner..(t + 1) * inner], weights) as f32;
        }
    }
    result(&[rows, outer], out)
}

/// Bytes and flops.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    let results = op.infer(operands).unwrap_or_default();
    let (Some(y), Some(inner)) = (results.first().and_then(Type::tensor), operands[0].tensor().and_then(|x| x.last()))
    else {
        return Cost::default();
    };
    Cost { flops: 2.0 * elements(y, sizes) * inner as f64, ..traffic(operands, &results, sizes) }
}
