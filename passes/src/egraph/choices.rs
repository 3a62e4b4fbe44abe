//! Choices: what is decided for a graph and its units, and which nodes that admits.
//!
//! A choice may lose something, so it is never an equality that rules could carry on. It enters as a
//! leaf: the class of a weight gets `dequantize(quantize(w))` beside the weight as stored, or
//! `scatter(select(w))`, whose other columns are zeros; the class of the rows it meets gets
//! `dequantize(round(x))`; the class of an output gets `skipped(input)`. Each of them is exact in itself.
//! Under an assignment such a class *is* one of its forms, and only that form's nodes are admissible.
//! Rules grow from all forms alike, so fusion, precision, pruning and layout are settled in one
//! extraction.
//!
//! A unit is what must decide together: all products of the same rows (Q, K and V; gate and up).
//! [`super::offers`] adds the forms.

use super::facts::EGraph;
use super::lang::{ENode, Head};
use egg::Id;
use llmc_ir::DType;
use llmc_ir::ops::Attr;
use llmc_ir::quant::Scheme;
use std::collections::BTreeMap;

/// What is decided for a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Choice {
    /// Storage of the weights; `None` is as the checkpoint has them.
    pub weights: Option<Scheme>,
    /// Type of the rows that meet them; `None` is as the graph was built.
    pub rows: Option<DType>,
}

impl Choice {
    /// Weights in a scheme, and rows of what its codes are multiplied with: 8-bit integers, or floats as
    /// built where codes stand for floats.
    pub fn of(scheme: Scheme) -> Choice {
        Choice { weights: Some(scheme), rows: (!scheme.is_float()).then_some(DType::I8) }
    }
}

/// What is left out of a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pruned {
    /// All of it: an output is the input of the same name.
    pub whole: bool,
    /// Columns of weights that a parameter `NAME.keep` does not list, and all that computes what
    /// would meet them.
    pub columns: bool,
}

/// What is decided for a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// A choice for each unit.
    pub units: Vec<Choice>,
    /// What is left out.
    pub pruned: Pruned,
}

/// What a class is under an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Weights of a unit: as stored, or a dequantized form.
    Weights(usize),
    /// Weights of a unit of which some columns may be pruned.
    Prunable(usize),
    /// Rows of a unit: as built, or a dequantized form.
    Rows(usize),
    /// Weights of a unit in this scheme.
    In(usize, Scheme),
    /// Rows of a unit in this type.
    Of(usize, DType),
    /// An output: computed, or skipped.
    Output,
}

impl Role {
    /// The unit, of what belongs to one.
    fn unit(self) -> Option<usize> {
        match self {
            Role::Weights(unit) | Role::Prunable(unit) | Role::Rows(unit) => Some(unit),
            Role::In(unit, _) | Role::Of(unit, _) => Some(unit),
            Role::Output => None,
        }
    }

    /// Whether a class with this role may be `node`.
    fn admits(self, node: &ENode, assignment: &Assignment) -> bool {
        let widened = node.head == Head::Op("dequantize");
        let scattered = node.head == Head::Op("scatter");
        match self {
            Role::Weights(unit) => widened != assignment.units[unit].weights.is_none(),
            Role::Prunable(_) if assignment.pruned.columns => scattered,
            Role::Prunable(unit) => !scattered && widened != assignment.units[unit].weights.is_none(),
            Role::Rows(unit) => widened != assignment.units[unit].rows.is_none(),
            Role::In(unit, scheme) => assignment.units[unit].weights == Some(scheme),
            Role::Of(unit, dtype) => assignment.units[unit].rows == Some(dtype),
            Role::Output => (node.head == Head::Part("skipped")) == assignment.pruned.whole,
        }
    }
}

/// The units of one graph and the classes that depend on what is decided.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// Name of each unit: what its weights are called in the graph.
    pub units: Vec<String>,
    pub(super) roles: BTreeMap<Id, Role>,
}

impl Choices {
    /// The same after classes have merged.
    pub fn canonical(&self, egraph: &EGraph) -> Choices {
        let roles = self.roles.iter().map(|(id, role)| (egraph.find(*id), *role)).collect();
        Choices { units: self.units.clone(), roles }
    }

    /// Whether `node` may be taken for its class under an assignment.
    pub fn admits(&self, egraph: &EGraph, assignment: &Assignment, class: Id, node: &ENode) -> bool {
        let by_class = self.roles.get(&class).is_none_or(|role| role.admits(node, assignment));
        by_class && self.admits_rounding(egraph, assignment, node)
    }

    /// A product that rounds its rows itself must round as its weights' unit decided.
    fn admits_rounding(&self, egraph: &EGraph, assignment: &Assignment, node: &ENode) -> bool {
        let weights = match node.head {
            Head::Part("linear") => 2,
            Head::Part("qkv") => 3,
            _ => return true,
        };
        let Some(unit) = self.unit_of(egraph, egraph.find(node.children[weights])) else { return true };
        let round = attribute(egraph, node.children[1]).and_then(|text| <Option<DType>>::parse(&text)).flatten();
        match (round, assignment.units[unit].rows) {
            (Some(round), Some(rows)) => round == rows,
            (Some(round), None) => round != DType::I8,
            (None, _) => true,
        }
    }

    /// The unit of a class of weights, or of a pair of them.
    fn unit_of(&self, egraph: &EGraph, class: Id) -> Option<usize> {
        if let Some(found) = self.roles.get(&class) {
            return found.unit();
        }
        let pair = egraph[class].nodes.iter().find(|n| n.head == Head::Part("pair"))?;
        self.roles.get(&egraph.find(pair.children[0])).and_then(|role| role.unit())
    }
}

/// The printed attribute that a class is.
fn attribute(egraph: &EGraph, class: Id) -> Option<String> {
    egraph[class].nodes.iter().find_map(|n| match &n.head {
        Head::Attr(text) => Some(text.to_string()),
        _ => None,
    })
}
