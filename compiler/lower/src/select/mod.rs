//! Which kernel computes a node: one function per kind of op, dispatched by the table in [`select`].

pub mod attention;
pub mod index;
pub mod linear;
pub mod pointwise;

use crate::block::Lowering;
use crate::error::Result;
use crate::plan::Context;
use llmc_abi::manifest::Unit;
use llmc_ir::ops::Op;
use llmc_ir::{Graph, NodeId};
use llmc_kernels::env::Scratch;
use llmc_kernels::kir::Function;
use llmc_kernels::ops::attention::AttentionKernel;
use llmc_kernels::ops::embed::EmbedKernel;
use llmc_kernels::ops::gather::GatherKernel;
use llmc_kernels::ops::kv::KvAppendKernel;
use llmc_kernels::ops::linear::LinearKernel;
use llmc_kernels::ops::norm::{ConvertKernel, NormKernel};
use llmc_kernels::ops::pointwise::PointwiseKernel;
use llmc_kernels::ops::rope::{RopeKernel, RopeTableKernel};
use llmc_kernels::ops::route::RouteKernel;

/// A kernel with all its constants.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Selected {
    Linear(LinearKernel, &'static str),
    Attention(AttentionKernel),
    Embed(EmbedKernel),
    Gather(GatherKernel),
    KvAppend(KvAppendKernel),
    Norm(NormKernel),
    Convert(ConvertKernel),
    Pointwise(PointwiseKernel, &'static str),
    Rope(RopeKernel),
    RopeTable(RopeTableKernel),
    Route(RouteKernel),
}

/// Bytes of scratch shared by the workers that a node's kernel needs.
pub fn temp_bytes(cx: &Context<'_>, graph: &Graph, node: NodeId) -> usize {
    match (cx.is_gpu, graph.op(node)) {
        (false, _) => linear::prologue_bytes(cx, graph, node),
        (true, Op::Attention { .. } | Op::SinkAttention { .. }) => attention::chunk_bytes(cx, graph, node),
        (true, _) => linear::gather_bytes(graph, node, cx.limits).max(if cx.schedule.tiles {
            linear::prologue_bytes(cx, graph, node)
        } else {
            0
        }),
    }
}

/// The kernel of a node.
///
/// # Errors
/// [`crate::Error::Node`] if there is none for the form found.
pub fn select(l: &mut Lowering<'_>, node: NodeId) -> Result<Selected> {
    match l.block.graph.op(node).clone() {
        Op::MatMul {} | Op::Linear { .. } | Op::Qkv { .. } => linear::select(l, node),
        Op::Attention { .. } | Op::SinkAttention { .. } | Op::KvAppend {} => attention::select(l, node),
        Op::Embed {} | Op::Gather {} | Op::RopeTable { .. } => index::select(l, node),
        Op::RmsNorm { .. }
        | Op::LayerNorm { .. }
        | Op::Rope { .. }
        | Op::Add {}
        | Op::Mul {}
        | Op::Bias {}
        | Op::Scale { .. }
        | Op::Round { .. }
        | Op::Act { .. }
        | Op::Slice { .. } => pointwise::select(l, node),
        Op::Route { .. } => pointwise::route(l, node),
        Op::Input { .. }
        | Op::Param { .. }
        | Op::Const { .. }
        | Op::Transpose {}
        | Op::Concat {}
        | Op::SliceRows { .. }
        | Op::Quantize { .. }
        | Op::Reshape { .. } => Err(l.error(node, "works on weights only, and found an activation")),
        Op::Select { .. } | Op::Scatter { .. } => {
            Err(l.error(node, "is left over: pruned weights need the rewrite rules, all of them"))
        }
        Op::Dequantize { .. } => Err(l.error(node, "is left over: quantized weights need the rewrite rules")),
    }
}

impl Selected {
    /// What the kernel is called in symbols.
    pub fn name(&self) -> &'static str {
        match self {
            Selected::Linear(_, name) | Selected::Pointwise(_, name) => name,
            Selected::Attention(_) => "attention",
            Selected::Embed(_) => "embed",
            Selected::Gather(_) => "gather",
            Selected::KvAppend(_) => "kv_append",
            Selected::Norm(_) => "norm",
            Selected::Convert(_) => "round",
            Selected::Rope(_) => "rope",
            Selected::RopeTable(_) => "rope_table",
            Selected::Route(_) => "route",
        }
    }

    /// Whether the kernel has a barrier inside.
    pub fn meets_inside(&self, scratch: Scratch) -> bool {
        matches!(self, Selected::Linear(k, _) if k.meets_inside(scratch))
    }

    /// What multiplies weights, of a product.
    pub fn unit(&self) -> Option<Unit> {
        match self {
            Selected::Linear(k, _) => k.segments.first().map(|s| s.product.unit(&k.schedule)),
            _ => None,
        }
    }

    /// Bytes of packed weights that one token reads.
    pub fn weight_bytes(&self) -> u64 {
        match self {
            Selected::Linear(k, _) => k
                .segments
                .iter()
                .map(|s| (s.units * s.product.panels * s.product.format.panel_bytes(s.product.k)) as u64)
                .sum(),
            Selected::Embed(k) => (k.format.panel_bytes(k.out.width) / llmc_kernels::layout::PANEL) as u64,
            _ => 0,
        }
    }

    /// Whether the kernel multiplies by weights.
    pub fn is_product(&self) -> bool {
        matches!(self, Selected::Linear(..))
    }

    /// Emits the kernel that asks for what this one reads and is there before: weights or pages, where that pays.
    pub fn build_ask(&self, name: &str, scratch: Scratch) -> Option<Function> {
        match self {
            Selected::Linear(k, _) => k.build_ahead(name, scratch),
            Selected::Attention(k) => k.build_ahead(name, scratch),
            _ => None,
        }
    }

    /// Emits the kernel; `phase` is that of a barrier inside.
    pub fn build(mut self, name: &str, scratch: Scratch, phase: u32) -> Function {
        if let Selected::Linear(LinearKernel { prologue: Some(p), .. }, _) = &mut self {
            p.phase = phase;
        }
        match self {
            Selected::Linear(k, _) => k.build(name, scratch),
            Selected::Attention(k) => k.build(name, scratch),
            Selected::Embed(k) => k.build(name, scratch),
            Selected::Gather(k) => k.build(name, scratch),
            Selected::KvAppend(k) => k.build(name, scratch),
            Selected::Norm(k) => k.build(name, scratch),
            Selected::Convert(k) => k.build(name, scratch),
            Selected::Pointwise(k, _) => k.build(name, scratch),
            Selected::Rope(k) => k.build(name, scratch),
            Selected::RopeTable(k) => k.build(name, scratch),
            Selected::Route(k) => k.build(name, scratch),
        }
    }
}
