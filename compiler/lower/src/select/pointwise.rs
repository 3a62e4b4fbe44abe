//! Norms, rotations and pointwise ops that no product has taken in.

use super::Selected;
use super::linear::activation;
use crate::block::Lowering;
use crate::error::Result;
use crate::weights::{PackLayout, Units};
use llmc_ir::ops::Op;
use llmc_ir::{NodeId, Type, Value};
use llmc_kernels::env::Rows;
use llmc_kernels::layout::PANEL;
use llmc_kernels::ops::norm::{ConvertKernel, Norm, NormKernel};
use llmc_kernels::ops::pointwise::{Pointwise, PointwiseKernel};
use llmc_kernels::ops::rope::{RopeKernel, Rotation};
use llmc_kernels::ops::route::RouteKernel;

/// The kernel of such a node.
///
/// # Errors
/// If an operand is not of the kind expected.
pub fn select(l: &mut Lowering<'_>, node: NodeId) -> Result<Selected> {
    let operands = l.block.graph.operands(node);
    let (x, y) = (l.rows(node, operands[0])?, l.rows(node, Value { node, slot: 0 })?);
    let mut x_start = 0;
    let op = l.block.graph.op(node).clone();
    let f = match &op {
        Op::RmsNorm { .. } | Op::LayerNorm { .. } => return norm(l, node, &op, &operands, x, y),
        Op::Rope { rotary_dim, interleaved } => {
            let rotation = Rotation { rotary_dim: *rotary_dim, interleaved: *interleaved };
            let heads = groups(l, operands[0]);
            let table = l.rows(node, operands[1])?;
            return Ok(Selected::Rope(RopeKernel { x, y, heads, rotation, table }));
        }
        Op::Add {} => Pointwise::Add(l.rows(node, operands[1])?),
        Op::Mul {} => Pointwise::Mul(l.rows(node, operands[1])?),
        Op::Bias {} => Pointwise::Bias(vector(l, node, operands[1], x.width)?),
        Op::Scale { factor } => Pointwise::Scale(factor.get()),
        Op::Round { .. } => return Ok(Selected::Convert(ConvertKernel { count: l.count(node, operands[0])?, x, y })),
        Op::Act { kind } => Pointwise::Act(activation(*kind)),
        Op::Slice { start, .. } => {
            x_start = *start;
            Pointwise::Copy
        }
        _ => return Err(l.error(node, "is not pointwise")),
    };
    let count = l.count(node, operands[0])?;
    Ok(Selected::Pointwise(PointwiseKernel { count, x, x_start, y, f }, op.name()))
}

/// The kernel of a mixture's routing.
///
/// # Errors
/// If the node is something else.
pub fn route(l: &mut Lowering<'_>, node: NodeId) -> Result<Selected> {
    let Op::Route { top, sigmoid, normalize, scale } = *l.block.graph.op(node) else {
        return Err(l.error(node, "routes nothing"));
    };
    let logits = l.block.graph.operands(node)[0];
    let (x, y) = (l.rows(node, logits)?, l.rows(node, Value { node, slot: 0 })?);
    let count = l.count(node, logits)?;
    Ok(Selected::Route(RouteKernel { count, x, y, top, sigmoid, normalize, scale: scale.get() }))
}

/// Groups of elements (heads) in a row of a rank-3 activation; 1 for a rank-2 one.
fn groups(l: &Lowering<'_>, v: Value) -> usize {
    match l.block.graph.ty(v) {
        Ok(Type::Tensor(t)) if t.shape.len() == 3 => t.shape[1].constant().unwrap_or(1),
        _ => 1,
    }
}

/// Places a vector that is read element by element; its length must be `n`.
pub fn vector(l: &mut Lowering<'_>, node: NodeId, v: Value, n: usize) -> Result<usize> {
    let (expr, ty) = l.weight(node, v)?;
    if ty.elements() != Some(n) {
        return Err(l.error(node, format!("a vector of {n} elements expected, {ty} found")));
    }
    Ok(l.place(vec![expr], PackLayout::Vector { units: Units::vector(n) }))
}

fn norm(l: &mut Lowering<'_>, node: NodeId, op: &Op, operands: &[Value], x: Rows, y: Rows) -> Result<Selected> {
    let groups = groups(l, operands[0]);
    let n = x.width / groups;
    if groups > 1 && !n.is_multiple_of(PANEL) {
        return Err(l.error(node, format!("heads of {n} elements need rewriting: unfused, {PANEL} must divide them")));
    }
    let scale = vector(l, node, operands[1], n)?;
    let norm = match op {
        Op::RmsNorm { eps } => Norm::Rms { eps: eps.get(), scale },
        Op::LayerNorm { eps } => Norm::Layer { eps: eps.get(), scale, bias: vector(l, node, operands[2], n)? },
        _ => return Err(l.error(node, "is not a norm")),
    };
    Ok(Selected::Norm(NormKernel { count: l.count(node, operands[0])?, x, y, groups, norm }))
}
