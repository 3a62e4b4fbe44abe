//! Product with a weight stored by output row, as in `torch.nn.functional.linear`.

use super::common::{Args, dot, elements, result, traffic};
use super::{Cost, Op, Sizes, tensor};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{DType, Dim, TensorType, Type};

/// Type rule: `(x [n,K] of f32, bf16 or i8, w [N,K]) -> f32[n,N]`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let args = Args::new(op, operands, &["x", "w"])?;
    let (rows, inner) = args.product_rows(0)?;
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

#[cfg(test)]
mod tests {
    use super::super::testing::{cost, f, infer, run};

    #[test]
    fn multiplies_rows_by_rows() {
        let x = f(&[2, 3], &[1., 2., 3., 4., 5., 6.]);
        let w = f(&[2, 3], &[1., 0., -1., 2., 1., 0.]);
        assert_eq!(run("matmul", &[x, w]), [-2., 4., -2., 13.]);
    }

    #[test]
    fn sums_in_f64() {
        let x = f(&[1, 9], &[1e8, 1., 1., 1., 1., 1., 1., 1., -1e8]);
        assert_eq!(run("matmul", &[x, f(&[1, 9], &[1.; 9])]), [7.0]);
    }

    #[test]
    fn types_and_cost() {
        assert_eq!(infer("matmul", &["f32[T,4]", "bf16[3,4]"]), "f32[T,3]");
        let error = "matmul: operand 1 (w) is bf16[4,3], expected [N,4] as x is f32[T,4]";
        assert_eq!(infer("matmul", &["f32[T,4]", "bf16[4,3]"]), error);
        assert_eq!(infer("matmul", &["bf16[T,4]", "bf16[3,4]"]), "f32[T,3]");
        let error = "matmul: operand 0 (x) is f16[T,4], expected [n,d] of f32, bf16 or i8 with a constant d";
        assert_eq!(infer("matmul", &["f16[T,4]", "bf16[3,4]"]), error);
        assert_eq!(infer("matmul", &["f32[T,4]"]), "matmul: 1 operands given, expected 2: x, w");
        assert_eq!(cost("matmul", &["f32[T,4]", "bf16[3,4]"]), (24.0, 32.0 + 24.0, 48.0));
    }
}
