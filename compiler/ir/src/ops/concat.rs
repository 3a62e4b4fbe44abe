//! Joins weights along dimension 0.

use super::common::{Args, bad, floats, result};
use super::{Cost, Op, Sizes, tensor};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{Dim, Type};

/// Type rule: `[a,K], [b,K], .. -> [a+b+..,K]`, all of one element type; vectors likewise.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let names = vec!["part"; operands.len()];
    let args = Args::new(op, operands, &names)?;
    if operands.is_empty() {
        return Err(bad(op, "0 operands given, expected at least 1"));
    }
    let mut joined = args.weight(0)?.clone();
    let mut rows = 0usize;
    for i in 0..operands.len() {
        let part = args.weight(i)?;
        if part.dtype != joined.dtype || part.shape[1..] != joined.shape[1..] {
            return Err(args.wrong(i, format_args!("to differ from {} in dimension 0 only", operands[0])));
        }
        let more = part.shape[0].constant().and_then(|n| rows.checked_add(n));
        rows = more.ok_or_else(|| bad(op, "the joined dimension is too large"))?;
    }
    joined.shape[0] = Dim::Const(rows);
    Ok(vec![joined.into()])
}

/// Reference meaning.
pub(crate) fn eval(_op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let mut shape = tensor(operands, 0)?.shape.clone();
    let mut out = Vec::new();
    shape[0] = 0;
    for i in 0..operands.len() {
        shape[0] += tensor(operands, i)?.shape[0];
        out.extend_from_slice(floats(operands, i)?);
    }
    result(&shape, out)
}

/// Bytes and flops: none in a step, weights are joined when they are packed.
pub(crate) fn cost(_op: &Op, _operands: &[&Type], _sizes: Sizes) -> Cost {
    Cost::default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{f, infer, run};

    #[test]
    fn joins_rows() {
        assert_eq!(run("concat", &[f(&[1, 2], &[1., 2.]), f(&[2, 2], &[3., 4., 5., 6.])]), [1., 2., 3., 4., 5., 6.]);
        assert_eq!(infer("concat", &["f16[1,2]", "f16[5,2]", "f16[1,2]"]), "f16[7,2]");
        assert_eq!(infer("concat", &["f16[3]", "f16[4]"]), "f16[7]");
        let error = "concat: operand 1 (part) is f32[1,2], expected to differ from f16[1,2] in dimension 0 only";
        assert_eq!(infer("concat", &["f16[1,2]", "f32[1,2]"]), error);
        assert_eq!(infer("concat", &[]), "concat: 0 operands given, expected at least 1");
    }
}
