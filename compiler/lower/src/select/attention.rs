//! Attention, and the store of keys and values.

use super::Selected;
use super::pointwise::vector;
use crate::block::Lowering;
use crate::buffers::rows_of;
use crate::error::Result;
use crate::plan::Context;
use llmc_ir::ops::Op;
use llmc_ir::{Graph, NodeId, Type, Value};
use llmc_kernels::env::Place;
use llmc_kernels::layout::PAGE;
use llmc_kernels::ops::attention::{AttentionKernel, Sinks};
use llmc_kernels::ops::attention_counts::{Counts, log_bytes};
use llmc_kernels::ops::gpu::{self, attention::Chunks};
use llmc_kernels::ops::kv::{KvAppendKernel, KvCache};
use llmc_kernels::ops::rope::Rotation;

/// Most tokens of a step whose pages a GPU cuts into chunks: with more there is work for all.
const CHUNKED_TOKENS: usize = 16;

/// Bytes for the results of chunks.
pub fn chunk_bytes(cx: &Context<'_>, graph: &Graph, node: NodeId) -> usize {
    let operands = graph.operands(node);
    let width = graph.ty(operands[0]).ok().and_then(rows_of).map_or(0, |(_, width)| width);
    let head_dim = operands.iter().find_map(|v| match graph.ty(*v) {
        Ok(Type::Kv(kv)) => Some(kv.head_dim),
        _ => None,
    });
    let tokens = cx.limits.tokens.min(CHUNKED_TOKENS);
    head_dim.map_or(0, |head_dim| gpu::attention::chunk_bytes(tokens, width / head_dim, head_dim))
}

/// The kernel of such a node.
///
/// # Errors
/// If an operand is not of the kind expected.
pub fn select(l: &mut Lowering<'_>, node: NodeId) -> Result<Selected> {
    let operands = l.block.graph.operands(node);
    let cache = l.cache(node)?;
    match l.block.graph.op(node).clone() {
        Op::Attention { scale, window, softcap } => {
            let seen =
                Seen { scale: scale.get(), softcap: softcap.map(|c| c.get()), window, sinks: None, counted: false };
            attend(l, node, cache, seen)
        }
        Op::SinkAttention {
            scale,
            softcap,
            reach,
            page,
            sinks: first,
            window: last,
            rotary_dim,
            interleaved,
            counted,
        } => {
            if l.cx.is_gpu && counted || page != PAGE {
                return Err(l.error(node, format!("sees some pages of {page} positions, for which there is no kernel")));
            }
            let turns = vector(l, node, operands[4], (first + last) * rotary_dim)?;
            let sinks = Sinks { first, last, turns, rotation: Rotation { rotary_dim, interleaved } };
            let softcap = softcap.map(|c| c.get());
            attend(l, node, cache, Seen { scale: scale.get(), softcap, window: reach, sinks: Some(sinks), counted })
        }
        Op::KvAppend {} => {
            let (k, v) = (l.rows(node, operands[1])?, l.rows(node, operands[2])?);
            Ok(Selected::KvAppend(KvAppendKernel { cache, k, v }))
        }
        _ => Err(l.error(node, "does not touch the KV cache")),
    }
}

/// What kinds of attention differ in.
struct Seen {
    scale: f32,
    softcap: Option<f32>,
    window: Option<usize>,
    sinks: Option<Sinks>,
    counted: bool,
}

fn attend(l: &mut Lowering<'_>, node: NodeId, cache: KvCache, seen: Seen) -> Result<Selected> {
    let operands = l.block.graph.operands(node);
    let q = l.rows(node, operands[0])?;
    let chunks = match l.buffers.temp(node) {
        Some((offset, _)) if l.cx.is_gpu => {
            let tokens = l.cx.limits.tokens.min(CHUNKED_TOKENS);
            let counters = l.take_counters(tokens * cache.layout.heads);
            let most = l.cx.limits.tokens;
            Some(Chunks { rows: Place::Arena(offset), counters, tokens, most })
        }
        _ => None,
    };
    let heads = q.width / cache.layout.head_dim;
    let counts = seen.counted.then(|| counts(l, heads / cache.layout.heads, seen.sinks));
    Ok(Selected::Attention(AttentionKernel {
        cache,
        q,
        out: l.rows(node, Value { node, slot: 0 })?,
        heads,
        scale: seen.scale,
        window: seen.window,
        sinks: seen.sinks,
        softcap: seen.softcap,
        heads_in_flight: l.cx.schedule.attention_heads,
        values_in_flight: l.cx.schedule.attention_values,
        rows_in_flight: l.cx.schedule.attention_rows,
        chunks,
        counts,
    }))
}

/// A place for what the positions of all pages weigh for the query heads of a key head.
fn counts(l: &mut Lowering<'_>, heads: usize, pages: Option<Sinks>) -> Counts {
    let pages = pages.map_or(0, |sinks| sinks.first + sinks.last);
    l.worker_bytes = l.worker_bytes.max(pages * log_bytes(heads));
    Counts { log: Place::Worker(0) }
}
