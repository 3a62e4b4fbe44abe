//! Attention, and the store of keys and values.

use super::Selected;
use crate::block::Lowering;
use crate::error::Result;
use llmc_ir::ops::Op;
use llmc_ir::{NodeId, Value};
use llmc_kernels::ops::attention::AttentionKernel;
use llmc_kernels::ops::kv::KvAppendKernel;

/// The kernel of such a node.
///
/// # Errors
/// If an operand is not of the kind expected.
pub fn select(l: &mut Lowering<'_>, node: NodeId) -> Result<Selected> {
    let operands = l.block.graph.operands(node);
    let cache = l.cache(node)?;
    match l.block.graph.op(node).clone() {
        Op::Attention { scale, window, softcap } => {
            let q = l.rows(node, operands[0])?;
            Ok(Selected::Attention(AttentionKernel {
                cache,
                q,
                out: l.rows(node, Value { node, slot: 0 })?,
                heads: q.width / cache.layout.head_dim,
                scale: scale.get(),
                window,
                softcap: softcap.map(|c| c.get()),
                heads_in_flight: l.cx.schedule.attention_heads,
            }))
        }
        Op::KvAppend {} => {
            let (k, v) = (l.rows(node, operands[1])?, l.rows(node, operands[2])?);
            Ok(Selected::KvAppend(KvAppendKernel { cache, k, v }))
        }
        _ => Err(l.error(node, "does not touch the KV cache")),
    }
}
