//! Graphs into the e-graph and back.
//!
//! Equal computations meet when they go in, by hash-consing. Coming back, inputs and parameters
//! keep their order and the rest follows in the order in which the outputs need it.

use super::facts::EGraph;
use super::lang::{ENode, Head};
use super::term::{Domain, Term, interpret};
use crate::error::{Error, Result};
use egg::Id;
use llmc_ir::ops::Attr;
use llmc_ir::{Epilogue, Graph, LinearSpec, Op, Prologue, Value};
use std::collections::BTreeMap;

/// A graph in an e-graph.
pub struct Encoded {
    /// The e-graph.
    pub egraph: EGraph,
    /// The classes of the graph's outputs.
    pub roots: Vec<Id>,
    /// The class of each value.
    pub ids: BTreeMap<Value, Id>,
}

/// The e-graph of a graph.
pub fn encode(graph: &Graph) -> Encoded {
    let mut egraph = EGraph::default();
    let mut ids: BTreeMap<Value, Id> = BTreeMap::new();
    for node in graph.nodes() {
        let operands: Vec<Id> = graph.operands(node).iter().map(|v| ids[v]).collect();
        let id = encode_op(&mut egraph, graph.op(node), &operands);
        match graph.types(node).len() {
            1 => _ = ids.insert(Value { node, slot: 0 }, id),
            _ => {
                for (slot, name) in [(0, "first"), (1, "second")] {
                    let projection = egraph.add(part(name, vec![id]));
                    ids.insert(Value { node, slot }, projection);
                }
            }
        }
    }
    egraph.rebuild();
    let roots = graph.outputs().iter().map(|v| ids[v]).collect();
    Encoded { egraph, roots, ids }
}

fn part(name: &'static str, children: Vec<Id>) -> ENode {
    ENode { head: Head::Part(name), children }
}

fn attr(egraph: &mut EGraph, value: &impl Attr) -> Id {
    egraph.add(ENode::attr(&value.print()))
}

fn encode_op(egraph: &mut EGraph, op: &Op, operands: &[Id]) -> Id {
    match op {
        Op::Linear { prologue, round, epilogue } => {
            let spec = LinearSpec { prologue: *prologue, round: *round, epilogue: epilogue.clone() };
            encode_linear(egraph, &spec, operands)
        }
        Op::Qkv { .. } => encode_qkv(egraph, op, operands),
        _ => {
            let attrs: Vec<Id> = op.attrs().iter().map(|(_, text)| egraph.add(ENode::attr(text))).collect();
            egraph.add(ENode { head: Head::Op(op.name()), children: [&attrs, operands].concat() })
        }
    }
}

fn encode_linear(egraph: &mut EGraph, spec: &LinearSpec, operands: &[Id]) -> Id {
    let (prologue, mut rest) = encode_prologue(egraph, spec.prologue, operands);
    let round = attr(egraph, &spec.round);
    let weights = match spec.is_gated() {
        true => egraph.add(part("pair", take(&mut rest, 2))),
        false => take(&mut rest, 1)[0],
    };
    let chain = encode_chain(egraph, &spec.epilogue, &spec.epilogue_operands(), &mut rest);
    egraph.add(part("linear", vec![prologue, round, weights, chain]))
}

fn encode_qkv(egraph: &mut EGraph, op: &Op, operands: &[Id]) -> Id {
    let Op::Qkv { prologue, round, head_dim, q, k, v } = op else { unreachable!("called for qkv only") };
    let (prologue, mut rest) = encode_prologue(egraph, *prologue, operands);
    let mut children = vec![prologue, attr(egraph, round), attr(egraph, head_dim)];
    children.extend(take(&mut rest, 3));
    for steps in [q, k, v] {
        let counts: Vec<usize> = steps.iter().map(|s| s.operands(false)).collect();
        children.push(encode_chain(egraph, steps, &counts, &mut rest));
    }
    children.extend_from_slice(rest);
    egraph.add(part("qkv", children))
}

fn encode_prologue<'a>(egraph: &mut EGraph, prologue: Prologue, operands: &'a [Id]) -> (Id, &'a [Id]) {
    let mut rest = operands;
    let taken = take(&mut rest, prologue.operands());
    let (name, eps) = match prologue {
        Prologue::None => ("plain", None),
        Prologue::RmsNorm(eps) => ("rms", Some(eps)),
        Prologue::LayerNorm(eps) => ("ln", Some(eps)),
    };
    let children = eps.map(|eps| attr(egraph, &eps)).into_iter().chain(taken).collect();
    (egraph.add(part(name, children)), rest)
}

fn encode_chain(egraph: &mut EGraph, steps: &[Epilogue], counts: &[usize], rest: &mut &[Id]) -> Id {
    let mut chain = egraph.add(part("nil", Vec::new()));
    for (step, count) in steps.iter().zip(counts) {
        let (name, attrs) = match step {
            Epilogue::Bias => ("+bias", vec![]),
            Epilogue::Act(kind) => ("+act", vec![kind.print()]),
            Epilogue::Gated(kind) => ("+gated", vec![kind.print()]),
            Epilogue::Residual => ("+residual", vec![]),
            Epilogue::Mul => ("+mul", vec![]),
            Epilogue::Scale(factor) => ("+scale", vec![factor.print()]),
            Epilogue::Round(dtype) => ("+round", vec![dtype.print()]),
            Epilogue::HeadNorm { eps, head_dim } => ("+head_norm", vec![eps.print(), head_dim.print()]),
            Epilogue::Rope { head_dim, rotary_dim, interleaved } => {
                ("+rope", vec![head_dim.print(), rotary_dim.print(), interleaved.print()])
            }
        };
        let mut children = vec![chain];
        children.extend(attrs.iter().map(|text| egraph.add(ENode::attr(text))));
        children.extend(take(rest, *count));
        chain = egraph.add(part(name, children));
    }
    chain
}

fn take(ids: &mut &[Id], n: usize) -> Vec<Id> {
    let (taken, rest) = ids.split_at(n);
    *ids = rest;
    taken.to_vec()
}

/// The graph that computes `roots` with one chosen node for each class. `original` says which
/// inputs and parameters there are.
///
/// # Errors
/// [`Error::Term`] if a class that is needed has no chosen node.
pub fn decode(original: &Graph, egraph: &EGraph, chosen: &BTreeMap<Id, ENode>, roots: &[Id]) -> Result<Graph> {
    let mut builder = Builder { graph: Graph::new(), leaves: BTreeMap::new() };
    for node in original.nodes() {
        let op = original.op(node);
        if matches!(op, Op::Input { .. } | Op::Param { .. }) && !builder.leaves.contains_key(op) {
            let value = builder.graph.push(op.clone(), &[])?;
            builder.leaves.insert(op.clone(), value);
        }
    }
    let mut terms = BTreeMap::new();
    let mut outputs = Vec::with_capacity(roots.len());
    for root in roots {
        match build(&mut builder, egraph, chosen, egraph.find(*root), &mut terms)? {
            Term::Value(v) => outputs.push(v),
            _ => return Err(Error::Term { op: "output".into(), message: "is not a single value".into() }),
        }
    }
    builder.graph.set_outputs(outputs);
    Ok(builder.graph)
}

/// Ops over a graph: applying one adds a node.
struct Builder {
    graph: Graph,
    leaves: BTreeMap<Op, Value>,
}

impl Domain for Builder {
    type Value = Value;

    fn apply(&mut self, op: Op, operands: &[Value]) -> Result<Vec<Value>> {
        if let Some(value) = self.leaves.get(&op) {
            return Ok(vec![*value]);
        }
        let node = self.graph.add(op, operands)?;
        Ok((0..self.graph.types(node).len() as u32).map(|slot| Value { node, slot }).collect())
    }
}

fn build(
    builder: &mut Builder,
    egraph: &EGraph,
    chosen: &BTreeMap<Id, ENode>,
    class: Id,
    terms: &mut BTreeMap<Id, Term<Value>>,
) -> Result<Term<Value>> {
    if let Some(term) = terms.get(&class) {
        return Ok(term.clone());
    }
    let missing = || Error::Term { op: "extraction".into(), message: format!("class {class} has no choice") };
    let node = chosen.get(&class).ok_or_else(missing)?;
    let mut children = Vec::with_capacity(node.children.len());
    for child in &node.children {
        children.push(build(builder, egraph, chosen, egraph.find(*child), terms)?);
    }
    let term = interpret(builder, node, &children.iter().collect::<Vec<_>>())?;
    terms.insert(class, term.clone());
    Ok(term)
}
