//! Products with weights: plain, with prologue and epilogue, and joined Q, K and V.

use super::Selected;
use super::pointwise::vector;
use crate::block::Lowering;
use crate::buffers::{StepLimits, row_elem, row_elem_of, rows_of};
use crate::error::Result;
use crate::plan::Context;
use crate::weights::{PackLayout, Units, format_for};
use llmc_ir::ops::{Activation as IrActivation, Epilogue as IrStep, LinearSpec, Op, Prologue as IrPrologue};
use llmc_ir::{DType, Graph, NodeId, Value};
use llmc_kernels::WeightFormat;
use llmc_kernels::env::{Count, Place, RowElem, Rows};
use llmc_kernels::formats::quant::QuantLayout;
use llmc_kernels::layout::{ALIGN, PANEL, PROLOGUE_ROWS};
use llmc_kernels::ops::epilogue::{Activation, Epilogue, Sink, Step};
use llmc_kernels::ops::gpu::gemv::Gather;
use llmc_kernels::ops::kv::Part;
use llmc_kernels::ops::linear::{LinearKernel, Segment};
use llmc_kernels::ops::mac::Mac;
use llmc_kernels::ops::norm::Norm;
use llmc_kernels::ops::product::CodedWeights;
use llmc_kernels::ops::product::Product;
use llmc_kernels::ops::prologue::Prologue;
use llmc_kernels::ops::rope::Rotation;

/// The kernel's activation for the IR's.
pub fn activation(a: IrActivation) -> Activation {
    match a {
        IrActivation::Silu => Activation::Silu,
        IrActivation::Gelu => Activation::Gelu,
        IrActivation::GeluTanh => Activation::GeluTanh,
        IrActivation::Relu => Activation::Relu,
    }
}

/// Prologue and rounding of a product, whatever op it is.
fn prologue_of(op: &Op) -> (IrPrologue, Option<DType>) {
    match op {
        Op::Linear { prologue, round, .. } | Op::Qkv { prologue, round, .. } => (*prologue, *round),
        _ => (IrPrologue::None, None),
    }
}

/// How a product takes its rows.
#[derive(Clone, Copy)]
struct Input {
    mac: Mac,
    /// What the rows hold that meet the weights.
    elem: RowElem,
    /// Whether they have to be prepared first.
    prepared: bool,
    /// Which count they follow, and their width.
    rows: (Count, usize),
}

impl Input {
    /// That of a product; `None` for other nodes.
    fn of(cx: &Context<'_>, graph: &Graph, node: NodeId) -> Option<Input> {
        let op = graph.op(node);
        if !matches!(op, Op::MatMul {} | Op::Linear { .. } | Op::Qkv { .. }) {
            return None;
        }
        let (prologue, round) = prologue_of(op);
        let operands = graph.operands(node);
        let (x, w) = (graph.ty(operands[0]).ok()?, graph.ty(operands[prologue.operands()]).ok()?.tensor()?);
        let rows = rows_of(x)?;
        let stored = row_elem(x);
        let values = round.map_or(stored, row_elem_of);
        let of = if cx.is_gpu { Mac::of_groups } else { Mac::new };
        let (mac, elem) = of(format_for(w, rows.1), values)?;
        Some(Input { mac, elem, prepared: prologue != IrPrologue::None || elem != stored, rows })
    }
}

/// Bytes of shared scratch that a node's prologue needs: its input's rows, prepared.
pub fn prologue_bytes(cx: &Context<'_>, graph: &Graph, node: NodeId) -> usize {
    match Input::of(cx, graph, node) {
        Some(Input { elem, prepared: true, rows: (count, width), .. }) => cx.limits.of(count) * elem.stride(width),
        _ => 0,
    }
}

/// One weight (or pair) with its steps and operands.
struct SegmentParts<'v> {
    input: Input,
    weights: &'v [Value],
    steps: &'v [IrStep],
    operands: &'v [Value],
    counts: Vec<usize>,
    sink: Sink,
    head_dim: Option<usize>,
}

/// The kernel of such a node.
///
/// # Errors
/// If an operand is not of the kind expected.
pub fn select(l: &mut Lowering<'_>, node: NodeId) -> Result<Selected> {
    let op = l.block.graph.op(node).clone();
    let operands = l.block.graph.operands(node);
    let (prologue, round) = prologue_of(&op);
    let (before, rest) = operands.split_at(prologue.operands());
    let input = Input::of(l.cx, &l.block.graph, node)
        .ok_or_else(|| l.error(node, "multiplies rows and weights for which there is no kernel"))?;
    let x = l.rows(node, before[0])?;
    let out = Value { node, slot: 0 };
    let (segments, name) = match &op {
        Op::MatMul {} => {
            let sink = Sink::Rows(l.rows(node, out)?);
            let part =
                SegmentParts { input, weights: rest, steps: &[], operands: &[], counts: vec![], sink, head_dim: None };
            (vec![segment(l, node, &part)?], "matmul")
        }
        Op::Linear { epilogue, .. } => {
            let spec = LinearSpec { prologue, round, epilogue: epilogue.clone() };
            let (weights, operands) = rest.split_at(if spec.is_gated() { 2 } else { 1 });
            let counts = spec.epilogue_operands();
            let sink = Sink::Rows(l.rows(node, out)?);
            let head_dim = head_dim(epilogue);
            let part = SegmentParts { input, weights, steps: epilogue, operands, counts, sink, head_dim };
            (vec![segment(l, node, &part)?], "linear")
        }
        Op::Qkv { head_dim, q, k, v, .. } => {
            let cache = l.cache(node)?;
            let sinks = [Sink::Rows(l.rows(node, out)?), Sink::Kv(cache, Part::Keys), Sink::Kv(cache, Part::Values)];
            let (weights, mut operands) = rest.split_at(3);
            let mut segments = Vec::new();
            for ((steps, sink), i) in [q, k, v].into_iter().zip(sinks).zip(0..) {
                let counts: Vec<usize> = steps.iter().map(|s| s.operands(false)).collect();
                let (own, after) = operands.split_at(counts.iter().sum());
                operands = after;
                let weights = &weights[i..=i];
                let part =
                    SegmentParts { input, weights, steps, operands: own, counts, sink, head_dim: Some(*head_dim) };
                segments.push(segment(l, node, &part)?);
            }
            (segments, "qkv")
        }
        _ => return Err(l.error(node, "is not a product")),
    };
    let prologue = prologue_plan(l, node, input, before, &x)?;
    let raw = raw_scratch(l, input, &segments);
    let count = l.count(node, before[0])?;
    let gather = gather(l, node, &segments)?;
    let schedule = l.cx.schedule;
    let ahead = l.cx.is_gpu && !schedule.tiles;
    let single = l.cx.is_gpu && l.cx.limits.of(count) == 1;
    Ok(Selected::Linear(LinearKernel { count, x, prologue, segments, raw, schedule, gather, ahead, single }, name))
}

/// Where a group's units wait, if some have to.
fn gather(l: &mut Lowering<'_>, node: NodeId, segments: &[Segment]) -> Result<Option<Gather>> {
    let in_halves = !l.cx.schedule.tiles && segments.iter().all(|s| s.epilogue.is_in_halves());
    if !l.cx.is_gpu || in_halves || segments.iter().all(|s| s.epilogue.is_pointwise()) {
        return Ok(None);
    }
    let (offset, _) = l.buffers.temp(node).ok_or_else(|| l.error(node, "its heads have no place to wait"))?;
    let counters = l.take_counters(segments.iter().map(|s| s.units).sum());
    Ok(Some(Gather { rows: Place::Arena(offset), counters }))
}

/// Bytes in which units of a product wait on a GPU: all its results, whole panels.
pub fn gather_bytes(graph: &Graph, node: NodeId, limits: StepLimits) -> usize {
    let op = graph.op(node);
    let heads = match op {
        Op::Linear { epilogue, .. } => head_dim(epilogue),
        Op::Qkv { head_dim, .. } => Some(*head_dim),
        _ => None,
    };
    let Some(head_dim) = heads else { return 0 };
    let rows = |v: &Value| match graph.ty(*v).ok().and_then(|t| t.tensor())?.shape.as_slice() {
        [n, _] => n.constant(),
        _ => None,
    };
    let operands = graph.operands(node);
    let weights = if matches!(op, Op::Qkv { .. }) { 3 } else { 1 };
    let first = prologue_of(op).0.operands();
    let units: usize = operands[first..first + weights].iter().filter_map(rows).map(|n| n.div_ceil(head_dim)).sum();
    limits.tokens.max(limits.rows) * units * head_dim.next_multiple_of(PANEL) * 4
}

/// The head size that steps on whole heads ask for.
fn head_dim(steps: &[IrStep]) -> Option<usize> {
    steps.iter().find_map(|s| match s {
        IrStep::HeadNorm { head_dim, .. } | IrStep::Rope { head_dim, .. } => Some(*head_dim),
        _ => None,
    })
}

fn segment(l: &mut Lowering<'_>, node: NodeId, part: &SegmentParts<'_>) -> Result<Segment> {
    let weights: Vec<_> = part.weights.iter().map(|w| l.weight(node, *w)).collect::<Result<_>>()?;
    let ty = weights[0].1.clone();
    let (n, k) = match ty.shape.as_slice() {
        [n, k] => (n.constant().unwrap_or(0), k.constant().unwrap_or(0)),
        _ => return Err(l.error(node, format!("a weight [N,K] expected, {ty} found"))),
    };
    if weights.iter().any(|(_, t)| *t != ty) {
        return Err(l.error(node, "gate and up differ in type"));
    }
    let units = match part.head_dim {
        Some(head_dim) => Units::heads(n, head_dim),
        None => Units::plain(n, weights.len()),
    };
    let format = format_for(&ty, k);
    let sources = weights.into_iter().map(|(e, _)| e).collect();
    let weight = l.place(sources, PackLayout::Panels { format, k, units });
    let epilogue = Epilogue {
        steps: steps(l, node, part, units)?,
        sink: part.sink.clone(),
        unit_rows: units.rows,
        panels: units.panels,
    };
    let Input { mac, elem, .. } = part.input;
    let coded = coded_weights(l, part.input, format);
    let product = Product { format, mac, k, panels: units.panels, x_stride: elem.stride(k), coded };
    Ok(Segment { weight, product, units: units.count(), epilogue })
}

fn steps(l: &mut Lowering<'_>, node: NodeId, part: &SegmentParts<'_>, units: Units) -> Result<Vec<Step>> {
    let mut out = Vec::new();
    let mut rest = part.operands;
    for (i, (step, count)) in part.steps.iter().zip(&part.counts).enumerate() {
        let (own, after) = rest.split_at(*count);
        rest = after;
        out.push(match step {
            // The rows that the result goes to hold what it is rounded to.
            IrStep::Round(_) if i + 1 == part.steps.len() => continue,
            IrStep::Round(t) => return Err(l.error(node, format!("rounds to {t} before its last step"))),
            IrStep::Bias => {
                let sources = own.iter().map(|v| Ok(l.weight(node, *v)?.0)).collect::<Result<Vec<_>>>()?;
                if sources.len() != units.sources {
                    return Err(l.error(node, "a bias after a gated pair has no kernel"));
                }
                Step::Bias(l.place(sources, PackLayout::Vector { units }))
            }
            IrStep::Act(a) => Step::Act(activation(*a)),
            IrStep::Gated(a) => Step::Gated(activation(*a)),
            IrStep::Residual => Step::Residual(l.rows(node, own[0])?),
            IrStep::Mul => Step::Mul(l.rows(node, own[0])?),
            IrStep::Scale(s) => Step::Scale(s.get()),
            IrStep::HeadNorm { eps, head_dim } => {
                Step::HeadNorm { eps: eps.get(), scale: vector(l, node, own[0], *head_dim)? }
            }
            IrStep::Rope { rotary_dim, interleaved, .. } => Step::Rope {
                rotation: Rotation { rotary_dim: *rotary_dim, interleaved: *interleaved },
                table: l.rows(node, own[0])?,
            },
        });
    }
    Ok(out)
}

fn prologue_plan(
    l: &mut Lowering<'_>,
    node: NodeId,
    input: Input,
    before: &[Value],
    x: &Rows,
) -> Result<Option<Prologue>> {
    if !input.prepared {
        return Ok(None);
    }
    let norm = match prologue_of(l.block.graph.op(node)).0 {
        IrPrologue::None => None,
        IrPrologue::RmsNorm(eps) => Some(Norm::Rms { eps: eps.get(), scale: vector(l, node, before[1], x.width)? }),
        IrPrologue::LayerNorm(eps) => Some(Norm::Layer {
            eps: eps.get(),
            scale: vector(l, node, before[1], x.width)?,
            bias: vector(l, node, before[2], x.width)?,
        }),
    };
    let shared = match l.buffers.temp(node) {
        Some((offset, _)) => Place::Arena(offset),
        // A group prepares rows in shared memory.
        None if l.cx.is_gpu => Place::Arena(0),
        None => return Err(l.error(node, "its prologue has no scratch")),
    };
    Ok(Some(Prologue { norm, elem: input.elem, shared, own: Place::Worker(0), phase: 0 }))
}

/// Where a product of weights in few bits finds its value table, and its place for what it decodes: before
/// the raw products.
fn coded_weights(l: &mut Lowering<'_>, input: Input, format: WeightFormat) -> Option<CodedWeights> {
    let WeightFormat::Quant(scheme) = format else { return None };
    let table = QuantLayout::table_bytes(scheme).map(|_| l.place(vec![], PackLayout::Table(scheme)));
    Some(CodedWeights { table, codes: Place::Worker(own_rows(input)) })
}

/// Bytes of the rows that each worker prepares for itself in a short step.
fn own_rows(input: Input) -> usize {
    let rows = if input.prepared { PROLOGUE_ROWS * input.elem.stride(input.rows.1) } else { 0 };
    rows.next_multiple_of(ALIGN)
}

/// Scratch of each worker: prepared rows of a short step first, then decoded codes, then raw products.
fn raw_scratch(l: &mut Lowering<'_>, input: Input, segments: &[Segment]) -> Place {
    if l.cx.is_gpu {
        return Place::Worker(0);
    }
    let count = input.rows.0;
    let codes = segments.iter().map(|s| s.product.code_bytes(&l.cx.schedule)).max().unwrap_or(0);
    let own = own_rows(input) + codes.next_multiple_of(ALIGN);
    let widest = segments.iter().map(|s| s.product.raw_bytes()).max().unwrap_or(0);
    l.worker_bytes = l.worker_bytes.max(own + l.cx.limits.of(count) * widest);
    Place::Worker(own)
}
