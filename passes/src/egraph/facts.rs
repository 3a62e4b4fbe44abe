//! What is known of every class: its type, whether it is there before a step runs, and its value
//! where it is a small constant.
//!
//! Types merge by assertion: a rule that equates two types is a bug and stops the compiler.

use super::lang::{ENode, Head};
use super::term::{Domain, Term, interpret, op_of};
use crate::error::Result;
use crate::fold;
use egg::{Analysis, DidMerge, Id};
use llmc_ir::{Op, Tensor, Type};

/// An e-graph over the ops.
pub type EGraph = egg::EGraph<ENode, FactAnalysis>;

/// Facts about a class.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its meaning over types.
    pub term: Term<Type>,
    /// True where it depends on parameters and constants only: it is then computed when weights
    /// are packed and costs nothing in a step.
    pub static_value: bool,
    /// Its value, where it is a constant.
    pub constant: Option<Tensor>,
}

impl Facts {
    /// The type, if the class is a single value.
    pub fn ty(&self) -> Option<&Type> {
        match &self.term {
            Term::Value(ty) => Some(ty),
            _ => None,
        }
    }
}

/// Ops over types.
struct Types;

impl Domain for Types {
    type Value = Type;

    fn apply(&mut self, op: Op, operands: &[Type]) -> Result<Vec<Type>> {
        Ok(op.infer(&operands.iter().collect::<Vec<_>>())?)
    }
}

/// Facts of a node from those of its children.
///
/// # Errors
/// If the node is not well-typed. Rules ask before they add anything.
pub fn infer(node: &ENode, children: &[&Facts]) -> Result<Facts> {
    let terms: Vec<&Term<Type>> = children.iter().map(|f| &f.term).collect();
    let term = interpret(&mut Types, node, &terms)?;
    let static_value = node.head != Head::Op("input") && children.iter().all(|f| f.static_value);
    Ok(Facts { term, static_value, constant: constant(node, &terms, children) })
}

/// The value of a node whose operands are constants.
fn constant(node: &ENode, terms: &[&Term<Type>], children: &[&Facts]) -> Option<Tensor> {
    let Head::Op(name) = node.head else { return None };
    let (op, _) = op_of(node, terms).ok()??;
    let operands: Vec<&Tensor> =
        children[ENode::op_attrs(name).len()..].iter().map(|f| f.constant.as_ref()).collect::<Option<_>>()?;
    fold::evaluate(&op, &operands)
}

/// Keeps [`Facts`] of every class.
#[derive(Clone, Copy, Debug, Default)]
pub struct FactAnalysis;

impl Analysis<ENode> for FactAnalysis {
    type Data = Facts;

    fn make(egraph: &mut EGraph, node: &ENode, _id: Id) -> Facts {
        let children: Vec<&Facts> = node.children.iter().map(|c| &egraph[*c].data).collect();
        infer(node, &children).expect("graphs are verified and rules are checked before nodes are added")
    }

    fn merge(&mut self, a: &mut Facts, b: Facts) -> DidMerge {
        assert_eq!(a.term, b.term, "a rewrite rule equated two types");
        let to_a = (!a.static_value && b.static_value) || (a.constant.is_none() && b.constant.is_some());
        let to_b = (a.static_value && !b.static_value) || (a.constant.is_some() && b.constant.is_none());
        a.static_value |= b.static_value;
        if let (Some(x), Some(y)) = (&a.constant, &b.constant) {
            assert_eq!(x, y, "a rewrite rule equated two constants");
        }
        a.constant = a.constant.take().or(b.constant);
        DidMerge(to_a, to_b)
    }

    fn modify(egraph: &mut EGraph, id: Id) {
        let Some(op) = egraph[id].data.constant.as_ref().and_then(fold::constant_op) else { return };
        if egraph[id].nodes.iter().any(|n| n.head == Head::Op("const")) {
            return;
        }
        let children = op.attrs().iter().map(|(_, text)| egraph.add(ENode::attr(text))).collect();
        let literal = egraph.add(ENode { head: Head::Op("const"), children });
        egraph.union(id, literal);
    }
}
