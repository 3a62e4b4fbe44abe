//! The same elements in another shape.

use super::common::{Args, bad, result};
use super::{Cost, Op, Sizes, tensor};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{Dim, TensorType, Type};

/// Type rule: as many elements; a symbolic dimension is and stays the outermost.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Reshape { shape } = op else { return Err(bad(op, "is not reshape")) };
    let args = Args::new(op, operands, &["x"])?;
    let x = args.float(0)?;
    let to = split(shape).ok_or_else(|| bad(op, "only the outermost dimension may be symbolic"))?;
    if split(&x.shape) != Some(to) {
        return Err(args.wrong(0, format_args!("as many elements as {}", TensorType::new(x.dtype, shape.clone()))));
    }
    Ok(vec![TensorType::new(x.dtype, shape.clone()).into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::Reshape { shape } = op else { return Err(bad(op, "is not reshape")) };
    let x = tensor(operands, 0)?;
    let outermost = x.shape.first().copied().unwrap_or(1);
    let shape: Vec<usize> = shape.iter().map(|d| d.constant().unwrap_or(outermost)).collect();
    result(&shape, x.as_f32()?.to_vec())
}

/// Bytes and flops: none, the elements stay where they are.
pub(crate) fn cost(_op: &Op, _operands: &[&Type], _sizes: Sizes) -> Cost {
    Cost::default()
}

/// The symbolic outermost dimension, if any, and the number of elements under it.
fn split(shape: &[Dim]) -> Option<(Option<Dim>, usize)> {
    let (symbol, constants) = match shape.split_first() {
        Some((first @ Dim::Sym(_), rest)) => (Some(*first), rest),
        _ => (None, shape),
    };
    let elements = constants.iter().try_fold(1usize, |n, d| n.checked_mul(d.constant()?))?;
    Some((symbol, elements))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{f, infer, run};

    #[test]
    fn keeps_the_elements() {
        assert_eq!(run("reshape{shape=[2,1,2]}", &[f(&[2, 2], &[1., 2., 3., 4.])]), [1., 2., 3., 4.]);
        assert_eq!(infer("reshape{shape=[T,2,4]}", &["f32[T,8]"]), "f32[T,2,4]");
        let error = "reshape: operand 0 (x) is f32[T,8], expected as many elements as f32[T,2,3]";
        assert_eq!(infer("reshape{shape=[T,2,3]}", &["f32[T,8]"]), error);
        assert!(infer("reshape{shape=[R,8]}", &["f32[T,8]"]).contains("as many elements as f32[R,8]"));
        assert!(infer("reshape{shape=[8,T]}", &["f32[T,8]"]).contains("only the outermost"));
    }
}
