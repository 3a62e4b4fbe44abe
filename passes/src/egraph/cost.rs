//! Seconds of an op on a target: the roofline over the bytes and flops that the op declares.
//!
//! A kernel takes the longer of its traffic (memory, then caches) and its arithmetic, and one
//! barrier. A prologue is paid as the runtime executes it: up to [`REDUNDANT_ROWS`] rows every
//! worker prepares all rows for itself, without a barrier; above that the workers share the rows
//! and meet at one more barrier. A norm of its own is split by rows only, so one row keeps one
//! worker busy. What depends on weights alone is computed when they are packed and costs nothing.

use crate::error::Result;
use crate::target::TargetFacts;
use llmc_ir::ops::{Cost, Sizes};
use llmc_ir::quant::Scheme;
use llmc_ir::{DType, Dim, Graph, NodeId, Op, Prologue, Sym, TensorType, Type};
use std::collections::BTreeSet;

/// Rows up to which each worker prepares all of them.
pub const REDUNDANT_ROWS: f64 = 8.0;

/// One token after a context that fills a small model's window.
pub const DECODE: Sizes = Sizes { tokens: 1, rows: 1, context: 512 };

/// One chunk of a prompt; a token attends to half of it on average.
pub const PREFILL: Sizes = Sizes { tokens: 512, rows: 1, context: 256 };

/// Tokens of prompt read for each token written. Costs are seconds per token written.
pub const PREFILL_SHARE: f64 = 4.0;

/// Seconds per token written that `op` costs.
pub fn seconds(op: &Op, operands: &[&Type], target: &TargetFacts) -> f64 {
    if is_free(op) {
        return 0.0;
    }
    let decode = kernel(op, operands, DECODE, target);
    let prefill = kernel(op, operands, PREFILL, target);
    decode + prefill * PREFILL_SHARE / PREFILL.tokens as f64
}

/// Seconds of a whole graph, without what depends on weights alone.
///
/// # Errors
/// If an operand of a node does not exist.
pub fn graph_seconds(graph: &Graph, target: &TargetFacts) -> Result<f64> {
    let mut sum = 0.0;
    for node in kernel_nodes(graph) {
        let operands = graph.operands(node);
        let types: Vec<&Type> = operands.iter().map(|v| graph.ty(*v)).collect::<llmc_ir::Result<_>>()?;
        sum += seconds(graph.op(node), &types, target);
    }
    Ok(sum)
}

/// Nodes that run in a step as kernels: no views, and nothing that depends on weights alone.
pub fn kernel_nodes(graph: &Graph) -> Vec<NodeId> {
    let mut packed = BTreeSet::new();
    let mut kernels = Vec::new();
    for node in graph.nodes() {
        let is_input = matches!(graph.op(node), Op::Input { .. });
        if !is_input && graph.operands(node).iter().all(|v| packed.contains(&v.node)) {
            packed.insert(node);
        } else if !is_free(graph.op(node)) {
            kernels.push(node);
        }
    }
    kernels
}

/// True for ops that are no kernel: values that are already there, and views.
pub fn is_free(op: &Op) -> bool {
    matches!(op, Op::Input { .. } | Op::Param { .. } | Op::Const { .. } | Op::Reshape { .. })
}

fn kernel(op: &Op, operands: &[&Type], sizes: Sizes, target: &TargetFacts) -> f64 {
    let barrier = target.barrier_seconds;
    match op {
        Op::Linear { prologue, round, epilogue } => {
            let bare = Op::Linear { prologue: Prologue::None, round: *round, epilogue: epilogue.clone() };
            matmul(&bare, *prologue, *round, operands, sizes, target) + barrier
        }
        Op::Qkv { prologue, round, head_dim, q, k, v } => {
            let (q, k, v) = (q.clone(), k.clone(), v.clone());
            let bare = Op::Qkv { prologue: Prologue::None, round: *round, head_dim: *head_dim, q, k, v };
            matmul(&bare, *prologue, *round, operands, sizes, target) + barrier
        }
        Op::RmsNorm { .. } | Op::LayerNorm { .. } => {
            let busy = (rows(operands[0], sizes) / target.workers as f64).min(1.0);
            roofline(op.cost(operands, sizes), target.peak_flops * busy, busy, target) + barrier
        }
        _ => roofline(op.cost(operands, sizes), target.peak_flops, 1.0, target) + barrier,
    }
}

/// A fused op: `bare` is the op without its prologue, which is costed apart.
fn matmul(
    bare: &Op,
    prologue: Prologue,
    round: Option<DType>,
    operands: &[&Type],
    sizes: Sizes,
    target: &TargetFacts,
) -> f64 {
    let n = prologue.operands();
    let rest: Vec<&Type> = operands[..1].iter().chain(&operands[n..]).copied().collect();
    let rows = round.or(operands[0].tensor().map(|t| t.dtype));
    let peak = match rows {
        Some(DType::Bf16) => target.bf16_flops,
        Some(DType::I8) => target.int8_flops,
        _ => target.peak_flops,
    };
    let body = roofline(bare.cost(&rest, sizes), peak, 1.0, target).max(unpack(&rest, target));
    if prologue == Prologue::None && round.is_none() {
        return body;
    }
    body + prepare(&operands[..n], round, sizes, target)
}

/// Vector instructions that turn a packed weight into what products read, in hundredths for each
/// element. Every step does that once, whatever the number of its tokens.
const UNPACK: &[(u32, f64)] = &[(2, 4.0), (3, 7.0), (4, 4.0), (5, 8.0), (6, 7.0), (8, 1.0)];
/// The same where values are looked up in a table of their own for few elements.
const UNPACK_TABLE: f64 = 17.0;
/// The same of codes that stand for floats, which are multiplied with their scales too.
const UNPACK_FLOATS: f64 = 20.0;
/// Operations of a vector instruction that multiplies and adds f32.
const VECTOR_OPERATIONS: f64 = 32.0;

/// Seconds in which all workers unpack the weights among the operands.
fn unpack(operands: &[&Type], target: &TargetFacts) -> f64 {
    let instructions = |t: &TensorType| match t.dtype {
        DType::Quant(Scheme::W4) => UNPACK_TABLE,
        DType::Quant(s) if s.is_float() => UNPACK_FLOATS,
        DType::Quant(s) => UNPACK.iter().find(|(bits, _)| *bits == s.code_bits()).map_or(0.0, |(_, n)| *n),
        _ => 0.0,
    };
    let weights = operands.iter().filter_map(|t| t.tensor());
    let all: f64 = weights.map(|t| t.elements().unwrap_or(0) as f64 * instructions(t) / 100.0).sum();
    all / (target.peak_flops / VECTOR_OPERATIONS)
}

/// Reads the rows of x and the vectors of a norm, and writes the rows that meet the weights.
fn prepare(operands: &[&Type], round: Option<DType>, sizes: Sizes, target: &TargetFacts) -> f64 {
    let read: f64 = operands.iter().map(|t| bytes(t, sizes)).sum();
    let written = elements(operands[0], sizes) * round.map_or(4, DType::size) as f64;
    let one_worker = (read + written) / target.cache_bandwidth * target.workers as f64;
    match rows(operands[0], sizes) {
        n if n <= REDUNDANT_ROWS => one_worker,
        _ => one_worker / target.workers as f64 + target.barrier_seconds,
    }
}

/// The longer of traffic and arithmetic; `busy` is the share of workers that have something to do.
fn roofline(cost: Cost, peak_flops: f64, busy: f64, target: &TargetFacts) -> f64 {
    let traffic = cost.memory_bytes / target.memory_bandwidth + cost.activation_bytes / (target.cache_bandwidth * busy);
    traffic.max(cost.flops / peak_flops)
}

fn rows(ty: &Type, sizes: Sizes) -> f64 {
    ty.tensor().and_then(|t| t.shape.first()).map_or(1.0, |d| size(*d, sizes))
}

fn elements(ty: &Type, sizes: Sizes) -> f64 {
    ty.tensor().map_or(0.0, |t| t.shape.iter().map(|d| size(*d, sizes)).product())
}

fn bytes(ty: &Type, sizes: Sizes) -> f64 {
    elements(ty, sizes) * ty.tensor().map_or(0, |t| t.dtype.size()) as f64
}

fn size(dim: Dim, sizes: Sizes) -> f64 {
    match dim {
        Dim::Const(n) => n as f64,
        Dim::Sym(Sym::Tokens) => sizes.tokens as f64,
        Dim::Sym(Sym::Rows) => sizes.rows as f64,
    }
}
