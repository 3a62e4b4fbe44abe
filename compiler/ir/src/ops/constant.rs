//! A small constant tensor, such as the inverse frequencies of a rotary embedding.

use super::common::{Args, bad, result};
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{DType, Dim, TensorType, Type};

/// Type rule: as many finite elements as the shape says.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Const { shape, data } = op else { return Err(bad(op, "is not const")) };
    Args::new(op, operands, &[])?;
    let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    if elements != Some(data.len()) {
        return Err(bad(op, format!("{} elements given for shape {shape:?}", data.len())));
    }
    if let Some(v) = data.iter().find(|v| !v.get().is_finite()) {
        return Err(bad(op, format!("element {v:?} is not finite")));
    }
    Ok(vec![TensorType::new(DType::F32, shape.iter().map(|d| Dim::Const(*d))).into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, _operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::Const { shape, data } = op else { return Err(bad(op, "is not const")) };
    result(shape, data.iter().map(|v| v.get()).collect())
}

/// Bytes and flops: none, its users pay for reading it.
pub(crate) fn cost(_op: &Op, _operands: &[&Type], _sizes: Sizes) -> Cost {
    Cost::default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{infer, run};

    #[test]
    fn gives_its_elements() {
        assert_eq!(run("const{shape=[1,2], data=[0.5,-3]}", &[]), [0.5, -3.0]);
        assert_eq!(infer("const{shape=[3], data=[1]}", &[]), "const: 1 elements given for shape [3]");
        assert_eq!(infer("const{shape=[1], data=[inf]}", &[]), "const: element inf is not finite");
    }
}
