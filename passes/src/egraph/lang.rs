//! The language of the e-graph.
//!
//! An op of the table is a node under its own name: its attributes, printed, are leaves and come
//! first, its operands follow: `(rms_norm 1e-5 ?x ?scale)`. The two fused ops are taken apart, so
//! that a rule can grow them one step at a time; [`PARTS`] lists the pieces.

use egg::{FromOp, FromOpError, Id, Language};
use llmc_ir::Op;
use std::fmt;
use std::sync::Arc;

/// Pieces of fused ops: name and the possible numbers of children.
///
/// Prologues hold what happens to the rows of x. A chain lists epilogue steps, the last step
/// outermost: `(+act (+bias nil ?b) silu)` adds a bias, then applies an activation. A `+bias`
/// with two vectors stands before a `+gated`. `qkv` has two results, taken by `first` and
/// `second`.
#[rustfmt::skip]
pub const PARTS: &[(&str, &[usize])] = &[
    ("plain",      &[1]),     // x
    ("rms",        &[3]),     // eps x scale
    ("ln",         &[4]),     // eps x scale bias
    ("pair",       &[2]),     // gate up
    ("nil",        &[0]),
    ("+bias",      &[2, 3]),  // chain vector [vector]
    ("+act",       &[2]),     // chain kind
    ("+gated",     &[2]),     // chain kind
    ("+residual",  &[2]),     // chain tensor
    ("+mul",       &[2]),     // chain tensor
    ("+scale",     &[2]),     // chain factor
    ("+round",     &[2]),     // chain dtype
    ("+head_norm", &[4]),     // chain eps head_dim scale
    ("+rope",      &[5]),     // chain head_dim rotary_dim interleaved table
    ("linear",     &[4]),     // prologue round weights chain
    ("qkv",        &[12]),    // prologue round head_dim wq wk wv chain_q chain_k chain_v kv positions seqs
    ("source",     &[2]),     // index type: a parameter as stored, see choices
    ("skipped",    &[1]),     // value: what an output is when its block is left out, see choices
    ("first",      &[1]),
    ("second",     &[1]),
];

/// What a node is, apart from its children.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Head {
    /// An op of the table, by name.
    Op(&'static str),
    /// A piece of a fused op, by its name in [`PARTS`].
    Part(&'static str),
    /// A printed attribute.
    Attr(Arc<str>),
}

/// A node of the e-graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ENode {
    /// Operator.
    pub head: Head,
    /// Attributes, then operands.
    pub children: Vec<Id>,
}

impl ENode {
    /// The leaf that holds a printed attribute.
    pub fn attr(text: &str) -> ENode {
        ENode { head: Head::Attr(text.into()), children: Vec::new() }
    }

    /// Number of leading children that are attributes of an op of the table.
    pub fn op_attrs(name: &str) -> &'static [&'static str] {
        Op::TABLE.iter().find(|(n, _)| *n == name).map_or(&[], |(_, attrs)| attrs)
    }
}

impl Language for ENode {
    type Discriminant = Head;

    fn discriminant(&self) -> Head {
        self.head.clone()
    }

    fn matches(&self, other: &ENode) -> bool {
        self.head == other.head && self.children.len() == other.children.len()
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

impl fmt::Display for ENode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.head {
            Head::Op(name) | Head::Part(name) => f.write_str(name),
            Head::Attr(text) => f.write_str(text),
        }
    }
}

impl FromOp for ENode {
    type Error = FromOpError;

    /// A word without children that names no part is an attribute.
    fn from_op(name: &str, children: Vec<Id>) -> Result<ENode, FromOpError> {
        let head = match PARTS.iter().find(|(n, _)| *n == name) {
            Some((part, arities)) if arities.contains(&children.len()) => Head::Part(part),
            Some(_) => return Err(FromOpError::new(name, children)),
            None if children.is_empty() => Head::Attr(name.into()),
            None => match Op::TABLE.iter().find(|(n, a)| *n == name && a.len() <= children.len()) {
                Some((op, _)) => Head::Op(op),
                None => return Err(FromOpError::new(name, children)),
            },
        };
        Ok(ENode { head, children })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egg::RecExpr;

    #[test]
    fn terms_print_as_they_parse() {
        let text = "(+act (+bias nil b) silu)";
        let term: RecExpr<ENode> = text.parse().expect("is a term");
        assert_eq!(term.to_string(), text);
    }

    #[test]
    fn unknown_operators_and_wrong_arities_are_rejected() {
        for text in ["(frobnicate x)", "(plain x y)", "(+rope nil 1)"] {
            assert!(text.parse::<RecExpr<ENode>>().is_err(), "{text}");
        }
    }
}
