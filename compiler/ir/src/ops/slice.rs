//! A range of the last dimension, such as one part of a joined projection.

use super::common::{Args, bad, bytes, check_range, result};
use super::{Cost, Op, Sizes, tensor};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{Dim, Type};

/// Type rule: `[..,d] -> [..,len]`, of the same element type.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Slice { start, len } = op else { return Err(bad(op, "is not slice")) };
    let args = Args::new(op, operands, &["x"])?;
    let mut ty = args.float(0)?.clone();
    let size = ty.last().ok_or_else(|| args.wrong(0, "a constant last dimension"))?;
    check_range(op, *start, *len, size)?;
    if let Some(last) = ty.shape.last_mut() {
        *last = Dim::Const(*len);
    }
    Ok(vec![ty.into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::Slice { start, len } = op else { return Err(bad(op, "is not slice")) };
    let x = tensor(operands, 0)?;
    let mut shape = x.shape.clone();
    let size = shape.pop().ok_or_else(|| bad(op, "operand has no dimension"))?;
    shape.push(*len);
    let rows = x.as_f32()?.chunks_exact(size);
    result(&shape, rows.flat_map(|row| &row[*start..start + len]).copied().collect())
}

/// Bytes and flops: what is kept is copied; of a weight, once when it is packed.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    let results = op.infer(operands).unwrap_or_default();
    let read = |t: &crate::types::TensorType| if t.elements().is_some() { 0.0 } else { 2.0 * bytes(t, sizes) };
    Cost { activation_bytes: results.iter().filter_map(Type::tensor).map(read).sum(), ..Cost::default() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cost, f, infer, run};

    #[test]
    fn cuts_the_last_dimension() {
        assert_eq!(run("slice{start=1, len=2}", &[f(&[2, 3], &[1., 2., 3., 4., 5., 6.])]), [2., 3., 5., 6.]);
        assert_eq!(infer("slice{start=1, len=2}", &["f32[T,3]"]), "f32[T,2]");
        let error = "slice: start=2, len=2 is not a range of 3 elements";
        assert_eq!(infer("slice{start=2, len=2}", &["f32[T,3]"]), error);
        assert_eq!(cost("slice{start=1, len=2}", &["f32[T,3]"]), (0.0, 32.0, 0.0));
    }
}
