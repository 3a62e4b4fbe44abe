//! A block's dataflow graph: a newtype over petgraph's stable graph.
//!
//! Nodes hold an [`Op`] and the types of its results; an edge runs from producer to consumer and
//! carries the operand's position and the producer's result slot. Only this file sees petgraph.

use crate::error::{Error, Result};
use crate::ops::Op;
use crate::types::Type;
use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

/// Names a node of one graph; printed as the number after `%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// One result of a node. Most ops have one result, at slot 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// Producing node.
    pub node: NodeId,
    /// Which of its results.
    pub slot: u32,
}

#[derive(Clone, Debug)]
struct Node {
    op: Op,
    types: Vec<Type>,
}

#[derive(Clone, Copy, Debug)]
struct Use {
    operand: u32,
    slot: u32,
}

/// A directed acyclic graph of ops with an ordered list of results.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    inner: StableDiGraph<Node, Use>,
    outputs: Vec<Value>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// Adds a node; its result types follow from the op and its operands.
    ///
    /// # Errors
    /// [`Error::Op`] if the op is not defined for these operands.
    pub fn add(&mut self, op: Op, operands: &[Value]) -> Result<NodeId> {
        let types = {
            let operand_types: Vec<&Type> = operands.iter().map(|v| self.ty(*v)).collect::<Result<_>>()?;
            op.infer(&operand_types)?
        };
        let node = self.inner.add_node(Node { op, types });
        for (operand, v) in operands.iter().enumerate() {
            let edge = Use { operand: operand as u32, slot: v.slot };
            self.inner.add_edge(NodeIndex::new(v.node.0 as usize), node, edge);
        }
        Ok(NodeId(node.index() as u32))
    }

    /// Adds a node with exactly one result and names that result.
    ///
    /// # Errors
    /// As [`Graph::add`].
    pub fn push(&mut self, op: Op, operands: &[Value]) -> Result<Value> {
        Ok(Value { node: self.add(op, operands)?, slot: 0 })
    }

    /// The op of a node.
    pub fn op(&self, node: NodeId) -> &Op {
        &self.inner[NodeIndex::new(node.0 as usize)].op
    }

    /// The result types of a node.
    pub fn types(&self, node: NodeId) -> &[Type] {
        &self.inner[NodeIndex::new(node.0 as usize)].types
    }

    /// The type of a value.
    ///
    /// # Errors
    /// [`Error::Op`] if the node or slot does not exist.
    pub fn ty(&self, v: Value) -> Result<&Type> {
        self.inner
            .node_weight(NodeIndex::new(v.node.0 as usize))
            .and_then(|n| n.types.get(v.slot as usize))
            .ok_or_else(|| Error::Op { op: "value", message: format!("%{}.{} does not exist", v.node.0, v.slot) })
    }

    /// Operands of a node, in order.
    pub fn operands(&self, node: NodeId) -> Vec<Value> {
        let index = NodeIndex::new(node.0 as usize);
        let mut uses: Vec<(u32, Value)> = self
            .inner
            .edges_directed(index, Direction::Incoming)
            .map(|e| (e.weight().operand, Value { node: NodeId(e.source().index() as u32), slot: e.weight().slot }))
            .collect();
        uses.sort_unstable();
        uses.into_iter().map(|(_, v)| v).collect()
    }

    /// Operand positions of a node as stored on its edges, sorted; dense in a valid graph.
    pub fn operand_slots(&self, node: NodeId) -> Vec<u32> {
        let index = NodeIndex::new(node.0 as usize);
        let mut slots: Vec<u32> =
            self.inner.edges_directed(index, Direction::Incoming).map(|e| e.weight().operand).collect();
        slots.sort_unstable();
        slots
    }

    /// Nodes that use any result of `node`, each with the operand position, in a fixed order.
    pub fn users(&self, node: NodeId) -> Vec<(NodeId, u32)> {
        let index = NodeIndex::new(node.0 as usize);
        let mut users: Vec<(NodeId, u32)> = self
            .inner
            .edges_directed(index, Direction::Outgoing)
            .map(|e| (NodeId(e.target().index() as u32), e.weight().operand))
            .collect();
        users.sort_unstable();
        users
    }

    /// Nodes with producers before consumers. `add` takes existing operands only, so the order of
    /// creation is such an order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.inner.node_indices().map(|i| NodeId(i.index() as u32))
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.inner.node_count()
    }

    /// True when there is no node.
    pub fn is_empty(&self) -> bool {
        self.inner.node_count() == 0
    }

    /// The graph's results, in order.
    pub fn outputs(&self) -> &[Value] {
        &self.outputs
    }

    /// Sets the graph's results.
    pub fn set_outputs(&mut self, outputs: Vec<Value>) {
        self.outputs = outputs;
    }

    /// The same graph without nodes that no output depends on, renumbered from 0. Inputs stay.
    pub fn compact(&self) -> Graph {
        let mut live = vec![false; self.inner.node_indices().map(|i| i.index() + 1).max().unwrap_or(0)];
        let mut stack: Vec<NodeId> = self.outputs.iter().map(|v| v.node).collect();
        stack.extend(self.nodes().filter(|n| matches!(self.op(*n), Op::Input { .. } | Op::Param { .. })));
        while let Some(n) = stack.pop() {
            if !std::mem::replace(&mut live[n.0 as usize], true) {
                stack.extend(self.operands(n).iter().map(|v| v.node));
            }
        }
        let mut out = Graph::new();
        let mut renamed = vec![NodeId(u32::MAX); live.len()];
        for n in self.nodes().filter(|n| live[n.0 as usize]) {
            let node = Node { op: self.op(n).clone(), types: self.types(n).to_vec() };
            let index = out.inner.add_node(node);
            renamed[n.0 as usize] = NodeId(index.index() as u32);
            for (operand, v) in self.operands(n).iter().enumerate() {
                let edge = Use { operand: operand as u32, slot: v.slot };
                out.inner.add_edge(NodeIndex::new(renamed[v.node.0 as usize].0 as usize), index, edge);
            }
        }
        out.outputs = self.outputs.iter().map(|v| Value { node: renamed[v.node.0 as usize], slot: v.slot }).collect();
        out
    }
}
