//! Rows of an embedding table.

use super::common::{Args, bytes, elements, ints, result};
use super::{Cost, Op, Sizes, tensor};
use crate::error::{Error, Result};
use crate::interp::RtValue;
use crate::types::{DType, Dim, TensorType, Type};

/// Type rule: `(table [V,d], ids i32[n]) -> f32[n,d]`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let args = Args::new(op, operands, &["table", "ids"])?;
    let (_, _, width) = args.weight2(0)?;
    let rows = args.index(1)?;
    Ok(vec![TensorType::new(DType::F32, [rows, Dim::Const(width)]).into()])
}

/// Reference meaning.
pub(crate) fn eval(_op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let (x, indices) = (tensor(operands, 0)?, ints(operands, 1)?);
    let (count, width) = (x.shape[0], x.shape[1]);
    let data = x.as_f32()?;
    let mut out = Vec::with_capacity(indices.len() * width);
    for i in indices {
        let row = usize::try_from(*i).ok().filter(|r| *r < count);
        let row = row.ok_or_else(|| Error::Interp(format!("id {i} is outside the table of {count} rows")))?;
        out.extend_from_slice(&data[row * width..(row + 1) * width]);
    }
    result(&[indices.len(), width], out)
}

/// Bytes and flops: only the rows looked up are read.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    let results = op.infer(operands).unwrap_or_default();
    let Some(y) = results.first().and_then(Type::tensor) else { return Cost::default() };
    let stored = operands[0].tensor().map_or(4, |t| t.dtype.size()) as f64;
    Cost { memory_bytes: elements(y, sizes) * stored, activation_bytes: bytes(y, sizes), flops: 0.0 }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cost, f, failure, i, infer, run};

    #[test]
    fn looks_rows_up() {
        let table = f(&[3, 2], &[0., 1., 10., 11., 20., 21.]);
        assert_eq!(run("embed", &[table.clone(), i(&[2, 0, 2])]), [20., 21., 0., 1., 20., 21.]);
        assert_eq!(failure("embed", &[table, i(&[3])]), "interpreter: id 3 is outside the table of 3 rows");
    }

    #[test]
    fn types_and_cost() {
        assert_eq!(infer("embed", &["f16[9,4]", "i32[T]"]), "f32[T,4]");
        assert_eq!(infer("embed", &["f16[9,4]", "f32[T]"]), "embed: operand 1 (ids) is f32[T], expected i32[n]");
        assert_eq!(cost("embed", &["f16[9,4]", "i32[T]"]), (16.0, 32.0, 0.0));
    }
}
