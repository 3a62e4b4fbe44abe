//! A value that the step or an earlier block provides.

use super::common::{Args, bad};
use super::{Cost, Op, Sizes};
use crate::error::{Error, Result};
use crate::interp::RtValue;
use crate::types::Type;

/// Type rule: the type it states.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Input { ty, .. } = op else { return Err(bad(op, "is not input")) };
    Args::new(op, operands, &[])?;
    Ok(vec![ty.clone()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, _operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    Err(Error::Interp(format!("input is given to the block, not computed: {op:?}")))
}

/// Bytes and flops: none, its users pay for reading it.
pub(crate) fn cost(_op: &Op, _operands: &[&Type], _sizes: Sizes) -> Cost {
    Cost::default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{failure, infer};

    #[test]
    fn states_its_type_and_is_never_evaluated() {
        assert_eq!(infer("input{index=0, ty=f32[T,4]}", &[]), "f32[T,4]");
        assert_eq!(infer("input{index=0, ty=i32[T]}", &["i32[T]"]), "input: 1 operands given, expected none");
        assert!(failure("input{index=0, ty=i32[T]}", &[]).contains("not computed"));
    }
}
