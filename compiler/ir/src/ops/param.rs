//! A formal weight of the block.

use super::common::{Args, bad};
use super::{Cost, Op, Sizes};
use crate::error::{Error, Result};
use crate::interp::RtValue;
use crate::types::Type;

/// Type rule: the type it states.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Param { ty, .. } = op else { return Err(bad(op, "is not param")) };
    Args::new(op, operands, &[])?;
    Ok(vec![ty.clone()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, _operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    Err(Error::Interp(format!("param is given with the call, not computed: {op:?}")))
}

/// Bytes and flops: none, its users pay for reading it.
pub(crate) fn cost(_op: &Op, _operands: &[&Type], _sizes: Sizes) -> Cost {
    Cost::default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cost, infer};

    #[test]
    fn states_its_type_and_costs_nothing_itself() {
        assert_eq!(infer("param{index=1, ty=bf16[2,3]}", &[]), "bf16[2,3]");
        assert_eq!(cost("param{index=1, ty=bf16[2,3]}", &[]), (0.0, 0.0, 0.0));
    }
}
