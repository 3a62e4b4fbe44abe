//! Rows or columns of a matrix, or elements of a vector, that an index lists.
//!
//! The index is ascending and names each place at most once: what stays of a dimension when the rest
//! is pruned. Of weights it is taken when they are packed.

use super::common::{Args, bad, elements, ints, result, traffic};
use super::{Cost, Op, Sizes, tensor};
use crate::error::{Error, Result};
use crate::interp::RtValue;
use crate::types::{TensorType, Type};

/// Type rule: dimension `axis` of `x` becomes as long as the index: `(x [a,b], keep i32[m])` is `[m,b]` for
/// axis 0 and `[a,m]` for axis 1; a vector has axis 0 alone.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Select { axis } = op else { return Err(bad(op, "is not select")) };
    let args = Args::new(op, operands, &["x", "keep"])?;
    let ty = args.float(0)?;
    if !ty.dtype.is_stored_float() {
        return Err(args.wrong(0, "f32, f16 or bf16: other types share scales between places"));
    }
    let mut shape = ty.shape.clone();
    let Some(size) = shape.get(*axis).filter(|_| shape.len() <= 2).and_then(|d| d.constant()) else {
        return Err(args.wrong(0, format_args!("a vector or matrix whose dimension {axis} is constant")));
    };
    let kept = args.index(1)?;
    if kept.constant().is_none_or(|m| m == 0 || m > size) {
        return Err(args.wrong(1, format_args!("i32[m] with m in 1..={size}")));
    }
    shape[*axis] = kept;
    Ok(vec![TensorType { dtype: ty.dtype, shape }.into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::Select { axis } = op else { return Err(bad(op, "is not select")) };
    let x = tensor(operands, 0)?;
    let places = places(ints(operands, 1)?, x.shape[*axis])?;
    let mut shape = x.shape.clone();
    shape[*axis] = places.len();
    let inner: usize = x.shape[axis + 1..].iter().product();
    let block = x.shape[*axis] * inner;
    let mut out = Vec::with_capacity(shape.iter().product());
    for outer in x.as_f32()?.chunks_exact(block.max(1)) {
        places.iter().for_each(|p| out.extend_from_slice(&outer[p * inner..(p + 1) * inner]));
    }
    result(&shape, out)
}

/// Bytes and flops: none for weights, a copy for what a step computes.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    let results = op.infer(operands).unwrap_or_default();
    match results.first().and_then(Type::tensor) {
        Some(t) if t.elements().is_none() => Cost { flops: elements(t, sizes), ..traffic(operands, &results, sizes) },
        _ => Cost::default(),
    }
}

/// An index as places in a dimension of `size`.
///
/// # Errors
/// If it does not ascend or leaves the dimension.
pub fn places(index: &[i32], size: usize) -> Result<Vec<usize>> {
    let mut last = -1;
    for i in index {
        if *i <= last || *i as usize >= size {
            let message = format!("place {i} after {last} in an index of kept places: they ascend below {size}");
            return Err(Error::Interp(message));
        }
        last = *i;
    }
    Ok(index.iter().map(|i| *i as usize).collect())
}


#[cfg(test)]
mod tests {
    use super::super::testing::{f, failure, i, infer, run};

    #[test]
    fn takes_rows_columns_and_elements() {
        let w = || f(&[3, 2], &[1., 2., 3., 4., 5., 6.]);
        assert_eq!(run("select{axis=0}", &[w(), i(&[0, 2])]), [1., 2., 5., 6.]);
        assert_eq!(run("select{axis=1}", &[w(), i(&[1])]), [2., 4., 6.]);
        assert_eq!(run("select{axis=0}", &[f(&[3], &[1., 2., 3.]), i(&[2])]), [3.]);
    }

    #[test]
    fn an_index_ascends_inside_its_dimension() {
        let w = || f(&[3, 2], &[1., 2., 3., 4., 5., 6.]);
        assert!(failure("select{axis=0}", &[w(), i(&[1, 1])]).contains("place 1 after 1"));
        assert!(failure("select{axis=1}", &[w(), i(&[2])]).contains("ascend below 2"));
        assert!(failure("select{axis=1}", &[w(), i(&[-1])]).contains("place -1"));
    }

    #[test]
    fn types() {
        assert_eq!(infer("select{axis=0}", &["bf16[8,4]", "i32[6]"]), "bf16[6,4]");
        assert_eq!(infer("select{axis=1}", &["f32[T,4]", "i32[3]"]), "f32[T,3]");
        assert!(infer("select{axis=0}", &["f32[T,4]", "i32[3]"]).contains("dimension 0 is constant"));
        assert!(infer("select{axis=1}", &["f32[8,4]", "i32[5]"]).contains("m in 1..=4"));
        assert!(infer("select{axis=0}", &["w4[8,64]", "i32[4]"]).contains("share scales"));
        assert!(infer("select{axis=1}", &["f32[8,4]", "i32[T]"]).contains("m in 1..=4"));
    }
}
