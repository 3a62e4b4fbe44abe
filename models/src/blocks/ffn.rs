//! Feed-forward networks.

use super::BlockBuilder;
use crate::error::Result;
use crate::spec::{Ffn, FfnBias};
use llmc_ir::{Op, Value};

/// `f32[T, width] -> f32[T, width]`; `x` is rounded already.
pub fn ffn(b: &mut BlockBuilder, ffn: &Ffn, x: Value) -> Result<Value> {
    let (between, bias) = match *ffn {
        Ffn::Gated { act, bias, .. } => {
            let gate = b.project("ffn.gate", bias == FfnBias::All, x)?;
            let gate = b.push(Op::Act { kind: act }, &[gate])?;
            let up = b.project("ffn.up", bias == FfnBias::All, x)?;
            (b.push(Op::Mul {}, &[gate, up])?, bias)
        }
        Ffn::Dense { act, bias, .. } => {
            let up = b.project("ffn.up", bias == FfnBias::All, x)?;
            (b.push(Op::Act { kind: act }, &[up])?, bias)
        }
    };
    let between = b.round(between)?;
    b.project("ffn.down", bias == FfnBias::All, between)
}
