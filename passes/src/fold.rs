//! Folds ops over constants.
//!
//! The e-graph uses the same evaluation for constants that only appear through a rule.

use crate::error::Result;
use crate::pass::{Ctx, Pass, PassReport};
use llmc_ir::interp::RtValue;
use llmc_ir::ops::Real;
use llmc_ir::{Graph, Module, Op, Tensor, Value};
use std::collections::BTreeMap;

/// Largest number of elements of a folded constant; larger ones would only grow the module.
const LIMIT: usize = 4096;

/// The value of an op over constant operands, where it is a small finite f32 tensor.
pub fn evaluate(op: &Op, operands: &[&Tensor]) -> Option<Tensor> {
    if let Op::Const { shape, data } = op {
        return Some(Tensor::f32(shape, data.iter().map(|r| r.get()).collect()));
    }
    if operands.is_empty() || op.is_fused() {
        return None;
    }
    let values: Vec<RtValue> = operands.iter().map(|t| RtValue::Tensor((*t).clone())).collect();
    let results = op.eval(&values.iter().collect::<Vec<_>>()).ok()?;
    match results.as_slice() {
        [RtValue::Tensor(t)] if constant_op(t).is_some() => Some(t.clone()),
        _ => None,
    }
}

/// The constant with this value, if it is small, f32 and finite.
pub fn constant_op(t: &Tensor) -> Option<Op> {
    let data = t.f32s().filter(|d| d.len() <= LIMIT && d.iter().all(|v| v.is_finite()))?;
    Some(Op::Const { shape: t.shape.clone(), data: data.iter().map(|v| Real::new(*v)).collect() })
}

/// The pass: one sweep, producers first.
pub struct Fold;

impl Pass for Fold {
    fn name(&self) -> &'static str {
        "fold"
    }

    fn run(&self, module: &mut Module, _ctx: &Ctx) -> Result<PassReport> {
        let mut changed = 0;
        for block in &mut module.blocks {
            let (graph, folded) = fold(&block.graph)?;
            block.graph = graph;
            changed += folded;
        }
        Ok(PassReport::new(self.name(), changed))
    }
}

/// The graph with every op over constants replaced by its value, and how many there were.
fn fold(graph: &Graph) -> Result<(Graph, usize)> {
    let mut out = Graph::new();
    let mut renamed: BTreeMap<Value, Value> = BTreeMap::new();
    let mut constants: BTreeMap<Value, Tensor> = BTreeMap::new();
    let mut folded = 0;
    for node in graph.nodes() {
        let operands: Vec<Value> = graph.operands(node).iter().map(|v| renamed[v]).collect();
        let known: Option<Vec<&Tensor>> = operands.iter().map(|v| constants.get(v)).collect();
        let value = known.and_then(|known| evaluate(graph.op(node), &known));
        let literal = value.as_ref().and_then(constant_op).filter(|_| !operands.is_empty());
        folded += usize::from(literal.is_some());
        let added = match literal {
            Some(op) => out.add(op, &[])?,
            None => out.add(graph.op(node).clone(), &operands)?,
        };
        constants.extend(value.map(|t| (Value { node: added, slot: 0 }, t)));
        let slots = 0..graph.types(node).len() as u32;
        renamed.extend(slots.map(|slot| (Value { node, slot }, Value { node: added, slot })));
    }
    out.set_outputs(graph.outputs().iter().map(|v| renamed[v]).collect());
    Ok((out, folded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_of_constants_becomes_a_constant() {
        let mut g = Graph::new();
        let c = Op::Const { shape: vec![2], data: vec![Real::new(2.0), Real::new(3.0)] };
        let c = g.push(c, &[]).expect("a constant");
        let square = g.push(Op::Mul {}, &[c, c]).expect("a product");
        g.set_outputs(vec![square]);
        let (folded, n) = fold(&g).expect("folds");
        assert_eq!(n, 1);
        let expected = Op::Const { shape: vec![2], data: vec![Real::new(4.0), Real::new(9.0)] };
        assert_eq!(folded.op(folded.outputs()[0].node), &expected);
    }
}
