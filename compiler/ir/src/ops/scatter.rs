//! Columns of a weight at their places among zeros: what [`super::select`] took, put back.

use super::common::{Args, bad, ints, result};
use super::select::places;
use super::{Cost, Op, Sizes, tensor};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{Dim, TensorType, Type};

/// Type rule: `(w [N,m], keep i32[m]) -> [N,size]`, of the same element type.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Scatter { size } = op else { return Err(bad(op, "is not scatter")) };
    let args = Args::new(op, operands, &["w", "keep"])?;
    let (dtype, rows, columns) = args.weight2(0)?;
    if args.index(1)? != Dim::Const(columns) || columns > *size {
        return Err(args.wrong(1, format_args!("i32[{columns}] as w is {}, at most {size}", operands[0])));
    }
    Ok(vec![TensorType::new(dtype, [Dim::Const(rows), Dim::Const(*size)]).into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::Scatter { size } = op else { return Err(bad(op, "is not scatter")) };
    let w = tensor(operands, 0)?;
    let places = places(ints(operands, 1)?, *size)?;
    let mut out = vec![0f32; w.shape[0] * size];
    for (row, kept) in out.chunks_exact_mut(*size).zip(w.as_f32()?.chunks_exact(places.len())) {
        places.iter().zip(kept).for_each(|(p, v)| row[*p] = *v);
    }
    result(&[w.shape[0], *size], out)
}

/// Bytes and flops: none in a step. A weight like this stands for a choice, and is never stored.
pub(crate) fn cost(_op: &Op, _operands: &[&Type], _sizes: Sizes) -> Cost {
    Cost::default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{f, failure, i, infer, run};

    #[test]
    fn puts_columns_among_zeros() {
        let w = f(&[2, 2], &[1., 2., 3., 4.]);
        assert_eq!(run("scatter{size=3}", &[w, i(&[0, 2])]), [1., 0., 2., 3., 0., 4.]);
        assert!(failure("scatter{size=3}", &[f(&[1, 1], &[1.]), i(&[3])]).contains("ascend below 3"));
    }

    #[test]
    fn types() {
        assert_eq!(infer("scatter{size=8}", &["bf16[4,6]", "i32[6]"]), "bf16[4,8]");
        assert!(infer("scatter{size=8}", &["bf16[4,6]", "i32[5]"]).contains("i32[6]"));
        assert!(infer("scatter{size=4}", &["bf16[4,6]", "i32[6]"]).contains("at most 4"));
    }
}
