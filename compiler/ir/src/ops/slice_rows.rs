//! A range of dimension 0 of a weight or vector.

use super::common::{Args, bad, check_range, result};
use super::{Cost, Op, Sizes, tensor};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{Dim, Type};

/// Type rule: `[n,..] -> [len,..]`, of the same element type.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::SliceRows { start, len } = op else { return Err(bad(op, "is not slice_rows")) };
    let args = Args::new(op, operands, &["w"])?;
    let mut ty = args.weight(0)?.clone();
    check_range(op, *start, *len, ty.shape[0].constant().unwrap_or(0))?;
    ty.shape[0] = Dim::Const(*len);
    Ok(vec![ty.into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::SliceRows { start, len } = op else { return Err(bad(op, "is not slice_rows")) };
    let w = tensor(operands, 0)?;
    let width: usize = w.shape[1..].iter().product();
    let mut shape = w.shape.clone();
    shape[0] = *len;
    result(&shape, w.as_f32()?[start * width..(start + len) * width].to_vec())
}

/// Bytes and flops: none in a step, weights are cut when they are packed.
pub(crate) fn cost(_op: &Op, _operands: &[&Type], _sizes: Sizes) -> Cost {
    Cost::default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{f, infer, run};

    #[test]
    fn cuts_dimension_0() {
        assert_eq!(run("slice_rows{start=1, len=1}", &[f(&[2, 2], &[1., 2., 3., 4.])]), [3., 4.]);
        assert_eq!(infer("slice_rows{start=1, len=2}", &["bf16[3]"]), "bf16[2]");
        assert!(infer("slice_rows{start=18446744073709551615, len=1}", &["f32[3,3]"]).contains("not a range"));
    }
}
