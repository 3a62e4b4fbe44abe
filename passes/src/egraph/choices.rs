//! Choices: what is decided for a unit, and which nodes that admits.
//!
//! A choice may lose something, so it is never an equality. It enters as a leaf: the class of a
//! weight gets `dequantize(quantize(w))` beside the weight as stored, and the class of the rows it
//! meets gets `dequantize(round(x))`, both exact in themselves. Under an assignment of choices a class
//! of a weight or of rows *is* one of its forms, and only that form's nodes are admissible. Rules grow
//! from all forms alike, so fusion, precision and layout are settled in one extraction.
//!
//! A unit is what must decide together: all products of the same rows (Q, K and V; gate and up).

use super::facts::EGraph;
use super::lang::{ENode, Head};
use egg::Id;
use llmc_ir::ops::Attr;
use llmc_ir::quant::Scheme;
use llmc_ir::{DType, Graph, NodeId, Op, Type, Value};
use std::collections::BTreeMap;

/// What is decided for a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Choice {
    /// Storage of the weights; `None` is as the checkpoint has them.
    pub weights: Option<Scheme>,
    /// Type of the rows that meet them; `None` is as the graph was built.
    pub rows: Option<DType>,
}

/// What a class is under an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Weights of a unit: as stored, or a dequantized form.
    Weights,
    /// Rows of a unit: as built, or a dequantized form.
    Rows,
    /// Weights in this scheme.
    In(Scheme),
    /// Rows of this type.
    Of(DType),
}

/// The units of one graph and the classes that depend on them.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// Name of each unit: what its weights are called in the graph.
    pub units: Vec<String>,
    roles: BTreeMap<Id, (usize, Role)>,
}

/// A choice for each unit.
pub type Assignment = Vec<Choice>;

impl Choices {
    /// Finds the units of a graph that was encoded with `ids`, and offers each of them these choices.
    pub fn offer(
        egraph: &mut EGraph,
        graph: &Graph,
        ids: &BTreeMap<Value, Id>,
        names: &[String],
        offers: &[Choice],
    ) -> Choices {
        let mut choices = Choices::default();
        for (rows, weights) in units(graph) {
            let unit = choices.units.len();
            choices.units.push(name(graph, &weights, names));
            for choice in offers {
                for w in &weights {
                    choices.offer_weights(egraph, (ids[w], graph), (*w, unit), choice.weights);
                }
                if let (Some(rows), Some(dtype)) = (rows, choice.rows) {
                    choices.offer_rows(egraph, ids, graph, (rows, unit), dtype);
                }
            }
        }
        egraph.rebuild();
        choices
    }

    /// Adds the weight in a scheme to its class.
    fn offer_weights(
        &mut self,
        egraph: &mut EGraph,
        (class, graph): (Id, &Graph),
        (w, unit): (Value, usize),
        scheme: Option<Scheme>,
    ) {
        let (Some(scheme), Some(dtype)) = (scheme, dtype_of(graph, w)) else { return };
        let stored = source(egraph, graph, w);
        let quantized = op(egraph, "quantize", &scheme.print(), stored);
        let values = op(egraph, "dequantize", &dtype.print(), quantized);
        egraph.union(class, values);
        self.roles.insert(class, (unit, Role::Weights));
        self.roles.insert(quantized, (unit, Role::In(scheme)));
    }

    /// Adds rows of another type to their class, which is that of a rounding.
    fn offer_rows(
        &mut self,
        egraph: &mut EGraph,
        ids: &BTreeMap<Value, Id>,
        graph: &Graph,
        (rows, unit): (Value, usize),
        dtype: DType,
    ) {
        let (Op::Round { .. }, Some(built)) = (graph.op(rows.node), dtype_of(graph, rows)) else { return };
        let x = ids[&graph.operands(rows.node)[0]];
        let narrow = op(egraph, "round", &dtype.print(), x);
        let values = op(egraph, "dequantize", &built.print(), narrow);
        egraph.union(ids[&rows], values);
        self.roles.insert(ids[&rows], (unit, Role::Rows));
        self.roles.insert(narrow, (unit, Role::Of(dtype)));
    }

    /// The same after classes have merged.
    pub fn canonical(&self, egraph: &EGraph) -> Choices {
        let roles = self.roles.iter().map(|(id, role)| (egraph.find(*id), *role)).collect();
        Choices { units: self.units.clone(), roles }
    }

    /// Whether `node` may be taken for its class under an assignment.
    pub fn admits(&self, egraph: &EGraph, assignment: &[Choice], class: Id, node: &ENode) -> bool {
        let widened = node.head == Head::Op("dequantize");
        let by_class = self.roles.get(&class).is_none_or(|(unit, role)| match role {
            Role::Weights => widened != assignment[*unit].weights.is_none(),
            Role::Rows => widened != assignment[*unit].rows.is_none(),
            Role::In(scheme) => assignment[*unit].weights == Some(*scheme),
            Role::Of(dtype) => assignment[*unit].rows == Some(*dtype),
        });
        by_class && self.admits_rounding(egraph, assignment, node)
    }

    /// A product that rounds its rows itself must round as its weights' unit decided.
    fn admits_rounding(&self, egraph: &EGraph, assignment: &[Choice], node: &ENode) -> bool {
        let weights = match node.head {
            Head::Part("linear") => 2,
            Head::Part("qkv") => 3,
            _ => return true,
        };
        let Some((unit, _)) = self.unit_of(egraph, egraph.find(node.children[weights])) else { return true };
        let round = attribute(egraph, node.children[1]).and_then(|text| <Option<DType>>::parse(&text)).flatten();
        match (round, assignment[unit].rows) {
            (Some(round), Some(rows)) => round == rows,
            (Some(round), None) => round != DType::I8,
            (None, _) => true,
        }
    }

    /// The unit of a class of weights, or of a pair of them.
    fn unit_of(&self, egraph: &EGraph, class: Id) -> Option<(usize, Role)> {
        if let Some(found) = self.roles.get(&class) {
            return Some(*found);
        }
        let pair = egraph[class].nodes.iter().find(|n| n.head == Head::Part("pair"))?;
        self.roles.get(&egraph.find(pair.children[0])).copied()
    }
}

/// The printed attribute that a class is.
fn attribute(egraph: &EGraph, class: Id) -> Option<String> {
    egraph[class].nodes.iter().find_map(|n| match &n.head {
        Head::Attr(text) => Some(text.to_string()),
        _ => None,
    })
}

fn op(egraph: &mut EGraph, name: &'static str, attr: &str, operand: Id) -> Id {
    let attr = egraph.add(ENode::attr(attr));
    egraph.add(ENode { head: Head::Op(name), children: vec![attr, operand] })
}

/// A weight as stored in classes of its own, out of reach of what its class may become.
fn source(egraph: &mut EGraph, graph: &Graph, w: Value) -> Id {
    let operands: Vec<Id> = graph.operands(w.node).iter().map(|v| source(egraph, graph, *v)).collect();
    let attrs: Vec<Id> = graph.op(w.node).attrs().iter().map(|(_, text)| egraph.add(ENode::attr(text))).collect();
    let head = match graph.op(w.node) {
        Op::Param { .. } => Head::Part("source"),
        other => Head::Op(other.name()),
    };
    egraph.add(ENode { head, children: [attrs, operands].concat() })
}

/// Rows (none for a lookup) with all weights that they meet, in the order of the graph.
fn units(graph: &Graph) -> Vec<(Option<Value>, Vec<Value>)> {
    let mut found: Vec<(Option<Value>, Vec<Value>)> = Vec::new();
    for node in graph.nodes() {
        let operands = graph.operands(node);
        let (rows, w) = match graph.op(node) {
            Op::MatMul {} => (Some(operands[0]), operands[1]),
            Op::Embed {} if is_by_token(graph, node) => (None, operands[0]),
            _ => continue,
        };
        if !is_weight(graph, w.node) {
            continue;
        }
        match found.iter_mut().find(|(r, _)| rows.is_some() && *r == rows) {
            Some((_, weights)) => weights.push(w),
            None => found.push((rows, vec![w])),
        }
    }
    found
}

/// Whether a lookup is by token: tables of positions are small and stay as they are.
fn is_by_token(graph: &Graph, node: NodeId) -> bool {
    matches!(graph.op(graph.operands(node)[1].node), Op::Input { index: 0, .. })
}

/// Whether a node depends on parameters alone.
fn is_weight(graph: &Graph, node: NodeId) -> bool {
    match graph.op(node) {
        Op::Param { .. } => true,
        Op::Transpose {} | Op::SliceRows { .. } => graph.operands(node).iter().all(|v| is_weight(graph, v.node)),
        _ => false,
    }
}

fn dtype_of(graph: &Graph, v: Value) -> Option<DType> {
    graph.ty(v).ok().and_then(Type::tensor).map(|t| t.dtype)
}

/// Names of the parameters of some weights.
fn name(graph: &Graph, weights: &[Value], names: &[String]) -> String {
    let mut found: Vec<&str> = Vec::new();
    let mut stack: Vec<Value> = weights.iter().rev().copied().collect();
    while let Some(v) = stack.pop() {
        if let Op::Param { index, .. } = graph.op(v.node) {
            found.push(names.get(*index as usize).map_or("?", String::as_str));
        }
        stack.extend(graph.operands(v.node));
    }
    found.dedup();
    found.join("+")
}
