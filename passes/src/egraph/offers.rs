//! What is offered: the forms that choices add to an e-graph, before any rule.

use super::choices::{Choice, Choices, Role};
use super::facts::EGraph;
use super::lang::{ENode, Head};
use super::units::{Unit, hidden_weights, units};
use egg::Id;
use llmc_ir::ops::Attr;
use llmc_ir::quant::Scheme;
use llmc_ir::{Block, DType, Graph, Op, Type, Value};
use std::collections::BTreeMap;

/// Name of the parameter that lists the columns of weight `NAME` which stay: `NAME.keep`.
pub const KEEP: &str = ".keep";

/// A block whose graph was encoded with `ids`, while its choices are added.
pub struct Offers<'a> {
    block: &'a Block,
    ids: &'a BTreeMap<Value, Id>,
    egraph: &'a mut EGraph,
    choices: Choices,
}

impl<'a> Offers<'a> {
    /// Finds the units of a block, offers each of them `choices`, offers to prune what a parameter
    /// `NAME.keep` is there for, and to skip the block.
    pub fn add(egraph: &'a mut EGraph, block: &'a Block, ids: &'a BTreeMap<Value, Id>, choices: &[Choice]) -> Choices {
        let mut offers = Offers { block, ids, egraph, choices: Choices::default() };
        let units = units(&block.graph);
        for (number, unit) in units.iter().enumerate() {
            offers.choices.units.push(name(block, &unit.weights));
            offers.unit(number, unit, choices);
        }
        offers.prunings(&units, choices);
        offers.skipping();
        offers.egraph.rebuild();
        offers.choices
    }

    fn graph(&self) -> &'a Graph {
        &self.block.graph
    }

    fn op(&mut self, name: &'static str, attr: &str, operands: &[Id]) -> Id {
        let attr = self.egraph.add(ENode::attr(attr));
        self.egraph.add(ENode { head: Head::Op(name), children: [&[attr], operands].concat() })
    }

    fn unit(&mut self, number: usize, unit: &Unit, choices: &[Choice]) {
        for choice in choices {
            for w in &unit.weights {
                let stored = choice.weights.map(|_| self.source(*w));
                self.weights(number, (self.ids[w], *w), stored, choice.weights);
            }
            if let (Some(rows), Some(dtype)) = (unit.rows, choice.rows) {
                self.rows(number, rows, dtype);
            }
        }
    }

    /// Adds a weight in a scheme to its class; `stored` is what is encoded.
    fn weights(&mut self, unit: usize, (class, w): (Id, Value), stored: Option<Id>, scheme: Option<Scheme>) {
        let (Some(scheme), Some(stored), Some(dtype)) = (scheme, stored, dtype_of(self.graph(), w)) else { return };
        let quantized = self.op("quantize", &scheme.print(), &[stored]);
        let values = self.op("dequantize", &dtype.print(), &[quantized]);
        self.egraph.union(class, values);
        self.choices.roles.insert(class, Role::Weights(unit));
        self.choices.roles.insert(quantized, Role::In(unit, scheme));
    }

    /// Adds rows of another type to their class, which is that of a rounding.
    fn rows(&mut self, unit: usize, rows: Value, dtype: DType) {
        let (Op::Round { .. }, Some(built)) = (self.graph().op(rows.node), dtype_of(self.graph(), rows)) else {
            return;
        };
        let x = self.ids[&self.graph().operands(rows.node)[0]];
        self.narrow_rows(unit, (self.ids[&rows], x), (built, dtype));
    }

    /// Adds to the class of a rounding of `x` the rounding to another type.
    fn narrow_rows(&mut self, unit: usize, (class, x): (Id, Id), (built, dtype): (DType, DType)) {
        let narrow = self.op("round", &dtype.print(), &[x]);
        let values = self.op("dequantize", &built.print(), &[narrow]);
        self.egraph.union(class, values);
        self.choices.roles.insert(class, Role::Rows(unit));
        self.choices.roles.insert(narrow, Role::Of(unit, dtype));
    }

    /// A weight as stored in classes of its own, out of reach of what its class may become.
    fn source(&mut self, w: Value) -> Id {
        let operands: Vec<Id> = self.graph().operands(w.node).iter().map(|v| self.source(*v)).collect();
        let op = self.graph().op(w.node);
        let attrs: Vec<Id> = op.attrs().iter().map(|(_, text)| self.egraph.add(ENode::attr(text))).collect();
        let head = match op {
            Op::Param { .. } => Head::Part("source"),
            other => Head::Op(other.name()),
        };
        self.egraph.add(ENode { head, children: [attrs, operands].concat() })
    }

    /// What a weight may be without some of its columns, for each parameter that says which stay.
    fn prunings(&mut self, units: &[Unit], choices: &[Choice]) {
        for keep in self.graph().nodes() {
            let Op::Param { index, .. } = self.graph().op(keep) else { continue };
            let Some(pruned) = self.block.params[*index as usize].name.strip_suffix(KEEP) else { continue };
            let keep = Value { node: keep, slot: 0 };
            for (number, unit) in units.iter().enumerate() {
                for w in unit.weights.iter().filter(|w| name(self.block, &[**w]) == pruned) {
                    self.columns(number, *w, keep, choices);
                    self.hidden(unit, keep, units, choices);
                    self.kept_rows(number, unit, keep, choices);
                }
            }
        }
    }

    /// The weight as the columns that stay, among zeros.
    fn columns(&mut self, unit: usize, w: Value, keep: Value, choices: &[Choice]) {
        let Some(size) = self.graph().ty(w).ok().and_then(Type::tensor).and_then(|t| t.last()) else { return };
        let (source, copy) = (self.source(w), self.source(keep));
        let kept = self.op("select", "1", &[source, self.ids[&keep]]);
        let stored = self.op("select", "1", &[source, copy]);
        for choice in choices {
            self.weights(unit, (kept, w), Some(stored), choice.weights);
        }
        let scattered = self.op("scatter", &size.print(), &[kept, self.ids[&keep]]);
        self.egraph.union(self.ids[&w], scattered);
        self.choices.roles.insert(self.ids[&w], Role::Prunable(unit));
    }

    /// The rows that stay of the weights that compute what meets the columns, in each scheme.
    fn hidden(&mut self, unit: &Unit, keep: Value, units: &[Unit], choices: &[Choice]) {
        for w in unit.rows.map(|rows| hidden_weights(self.graph(), rows)).unwrap_or_default() {
            let Some(number) = units.iter().position(|u| u.weights.contains(&w)) else { continue };
            let kept = self.op("select", "0", &[self.ids[&w], self.ids[&keep]]);
            let source = self.source(w);
            let stored = self.op("select", "0", &[source, self.ids[&keep]]);
            for choice in choices {
                self.weights(number, (kept, w), Some(stored), choice.weights);
            }
        }
    }

    /// The types that rows may have which meet the columns that stay.
    fn kept_rows(&mut self, number: usize, unit: &Unit, keep: Value, choices: &[Choice]) {
        let Some(rows) = unit.rows else { return };
        let (Op::Round { .. }, Some(built)) = (self.graph().op(rows.node), dtype_of(self.graph(), rows)) else {
            return;
        };
        let x = self.ids[&self.graph().operands(rows.node)[0]];
        let kept = self.op("select", "1", &[x, self.ids[&keep]]);
        let class = self.op("round", &built.print(), &[kept]);
        for dtype in choices.iter().filter_map(|c| c.rows) {
            self.narrow_rows(number, (class, kept), (built, dtype));
        }
    }

    /// Each output as the input of the same name, where there is one.
    fn skipping(&mut self) {
        let inputs = |index: &u32| self.block.inputs.get(*index as usize);
        let mut found = Vec::new();
        for (output, name) in self.graph().outputs().iter().zip(&self.block.outputs) {
            let input = self
                .graph()
                .nodes()
                .find(|n| matches!(self.graph().op(*n), Op::Input { index, .. } if inputs(index) == Some(name)));
            let input = input.map(|node| Value { node, slot: 0 });
            let same = |i: &Value| matches!((self.graph().ty(*i), self.graph().ty(*output)), (Ok(a), Ok(b)) if a == b);
            found.extend(input.filter(same).map(|i| (*output, i)));
        }
        for (output, input) in found {
            let skipped = ENode { head: Head::Part("skipped"), children: vec![self.ids[&input]] };
            let skipped = self.egraph.add(skipped);
            self.egraph.union(self.ids[&output], skipped);
            self.choices.roles.insert(self.ids[&output], Role::Output);
        }
    }
}

fn dtype_of(graph: &Graph, v: Value) -> Option<DType> {
    graph.ty(v).ok().and_then(Type::tensor).map(|t| t.dtype)
}

/// Names of the parameters of some weights.
fn name(block: &Block, weights: &[Value]) -> String {
    let mut found: Vec<&str> = Vec::new();
    let mut stack: Vec<Value> = weights.iter().rev().copied().collect();
    while let Some(v) = stack.pop() {
        if let Op::Param { index, .. } = block.graph.op(v.node) {
            found.push(block.params.get(*index as usize).map_or("?", |p| p.name.as_str()));
        }
        stack.extend(block.graph.operands(v.node));
    }
    found.dedup();
    found.join("+")
}
