//! The units of a graph: which products must decide together, and where they come from.

use llmc_ir::{Graph, NodeId, Op, Value};

/// Rows with all weights that they meet, in the order of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The rows; none for a lookup.
    pub rows: Option<Value>,
    /// The weights.
    pub weights: Vec<Value>,
}

/// The units of a graph.
pub fn units(graph: &Graph) -> Vec<Unit> {
    let mut found: Vec<Unit> = Vec::new();
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
        match found.iter_mut().find(|u| rows.is_some() && u.rows == rows) {
            Some(unit) => unit.weights.push(w),
            None => found.push(Unit { rows, weights: vec![w] }),
        }
    }
    found
}

/// Whether a lookup is by token: tables of positions are small and stay as they are.
fn is_by_token(graph: &Graph, node: NodeId) -> bool {
    matches!(graph.op(graph.operands(node)[1].node), Op::Input { index: 0, .. })
}

/// Whether a node depends on parameters alone.
pub fn is_weight(graph: &Graph, node: NodeId) -> bool {
    match graph.op(node) {
        Op::Param { .. } => true,
        Op::Transpose {} | Op::SliceRows { .. } => graph.operands(node).iter().all(|v| is_weight(graph, v.node)),
        _ => false,
    }
}

/// The weights of the products that `rows` are computed from channel by channel: each element of a row
/// depends on one row of each of these weights. Empty where anything else goes in than the rules of
/// [`super::rules::select`] move a selection through.
pub fn hidden_weights(graph: &Graph, rows: Value) -> Vec<Value> {
    let mut found = Vec::new();
    match collect_hidden(graph, rows, &mut found) {
        true => found,
        false => Vec::new(),
    }
}

fn collect_hidden(graph: &Graph, v: Value, found: &mut Vec<Value>) -> bool {
    let operands = graph.operands(v.node);
    match graph.op(v.node) {
        Op::Round { .. } | Op::Act { .. } => collect_hidden(graph, operands[0], found),
        Op::Mul {} => collect_hidden(graph, operands[0], found) && collect_hidden(graph, operands[1], found),
        Op::Bias {} => is_weight(graph, operands[1].node) && collect_hidden(graph, operands[0], found),
        Op::MatMul {} if is_weight(graph, operands[1].node) => {
            found.push(operands[1]);
            true
        }
        _ => false,
    }
}
