//! The first and the last block: ids to the residual stream, and the residual stream to logits.

use super::{BlockBuilder, Built, Weights, per_token, rope};
use crate::build::BuildOptions;
use crate::error::Result;
use crate::spec::{ArchSpec, Positions, RopeSpec};
use llmc_ir::{DType, Dim, Op, Sym, TensorType};

/// Block `embed`: `ids, positions -> hidden`, and a table of angles for each distinct rotary
/// embedding of the layers, under the names of [`rope::value_name`].
pub fn embed(spec: &ArchSpec, ropes: &[&RopeSpec], weights: &Weights, options: &BuildOptions) -> Result<Built> {
    let mut b = BlockBuilder::new("embed", "embed.", weights, options);
    let ids = b.token_input("ids")?;
    let tokens = b.weight("tokens")?;
    let mut hidden = b.push(Op::Embed {}, &[tokens, ids])?;
    match spec.embed.positions {
        Positions::None => {}
        Positions::Learned { .. } => {
            let (table, positions) = (b.weight("positions")?, b.token_input("positions")?);
            let learned = b.push(Op::Embed {}, &[table, positions])?;
            hidden = b.push(Op::Add {}, &[hidden, learned])?;
        }
    }
    b.output("hidden", hidden);
    for (i, rope) in ropes.iter().enumerate() {
        let table = rope::table(&mut b, rope)?;
        b.output(&rope::value_name(i), table);
    }
    Ok(b.finish())
}

/// Block `head`: `hidden, rows -> logits`. Only the wanted rows are normed and multiplied.
pub fn head(spec: &ArchSpec, weights: &Weights, options: &BuildOptions) -> Result<Built> {
    let mut b = BlockBuilder::new("head", "", weights, options);
    let hidden = b.input("hidden", per_token(&[spec.width]).into())?;
    let rows = b.input("rows", TensorType::new(DType::I32, [Dim::Sym(Sym::Rows)]).into())?;
    let wanted = b.push(Op::Gather {}, &[hidden, rows])?;
    let normed = b.norm(spec.final_norm, "final_norm", wanted)?;
    let x = b.round(normed)?;
    let logits = b.project("head", false, x)?;
    b.output("logits", logits);
    Ok(b.finish())
}
