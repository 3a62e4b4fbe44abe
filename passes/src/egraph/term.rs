//! One meaning of nodes, over any domain of values.
//!
//! [`interpret`] puts the pieces of fused ops together and applies ops of the table. Over types it
//! is type inference, over a graph it is extraction, over tensors it is the reference
//! interpreter: a node cannot mean different things to these three.

use super::lang::{ENode, Head};
use crate::error::{Error, Result};
use llmc_ir::ops::{Attr, Real};
use llmc_ir::{Epilogue, Op, Prologue};
use std::sync::Arc;

/// What a node denotes when values are `V`.
#[derive(Clone, Debug, PartialEq)]
pub enum Term<V> {
    /// A printed attribute.
    Attr(Arc<str>),
    /// One value.
    Value(V),
    /// The results of an op that has several.
    Results(Vec<V>),
    /// What is done to the rows of x, with its operands.
    Prologue(Prologue, Vec<V>),
    /// A pair of weights, gate and up.
    Weights(Vec<V>),
    /// Epilogue steps and their operands.
    Chain(Vec<Epilogue>, Vec<V>),
}

/// Where ops get a meaning.
pub trait Domain {
    /// What an operand is.
    type Value: Clone;

    /// The results of an op.
    ///
    /// # Errors
    /// If the op is not defined for these operands.
    fn apply(&mut self, op: Op, operands: &[Self::Value]) -> Result<Vec<Self::Value>>;
}

/// The meaning of `node` where its children mean `children`.
///
/// # Errors
/// [`Error::Term`] if a child has the wrong kind, or what [`Domain::apply`] says.
pub fn interpret<D: Domain>(domain: &mut D, node: &ENode, children: &[&Term<D::Value>]) -> Result<Term<D::Value>> {
    let args = Args { node, children };
    match &node.head {
        Head::Attr(text) => Ok(Term::Attr(text.clone())),
        Head::Op(name) => apply(domain, args.table_op(name)?, args.values(ENode::op_attrs(name).len())?),
        Head::Part("source") => apply(domain, args.source()?, vec![]),
        Head::Part("linear") => {
            let (op, operands) = args.linear()?;
            apply(domain, op, operands)
        }
        Head::Part("qkv") => {
            let (op, operands) = args.qkv()?;
            apply(domain, op, operands)
        }
        Head::Part(name) => args.part(name),
    }
}

fn apply<D: Domain>(domain: &mut D, op: Op, operands: Vec<D::Value>) -> Result<Term<D::Value>> {
    let mut results = domain.apply(op, &operands)?;
    Ok(match results.pop() {
        Some(only) if results.is_empty() => Term::Value(only),
        last => Term::Results(results.into_iter().chain(last).collect()),
    })
}

/// The op a node stands for and its operands; `None` for attributes, parts and projections.
///
/// # Errors
/// As [`interpret`].
pub fn op_of<V: Clone>(node: &ENode, children: &[&Term<V>]) -> Result<Option<(Op, Vec<V>)>> {
    let args = Args { node, children };
    match &node.head {
        Head::Op(name) => Ok(Some((args.table_op(name)?, args.values(ENode::op_attrs(name).len())?))),
        Head::Part("linear") => args.linear().map(Some),
        Head::Part("qkv") => args.qkv().map(Some),
        Head::Part(_) | Head::Attr(_) => Ok(None),
    }
}

/// Children of a node, read by position.
struct Args<'a, V> {
    node: &'a ENode,
    children: &'a [&'a Term<V>],
}

impl<V: Clone> Args<'_, V> {
    fn wrong<T>(&self, i: usize, expected: &str) -> Result<T> {
        let message = format!("child {i} is not {expected}");
        Err(Error::Term { op: self.node.to_string(), message })
    }

    fn text(&self, i: usize) -> Result<&str> {
        match self.children.get(i) {
            Some(Term::Attr(text)) => Ok(text),
            _ => self.wrong(i, "an attribute"),
        }
    }

    fn attr<A: Attr>(&self, i: usize) -> Result<A> {
        A::parse(self.text(i)?).map_or_else(|| self.wrong(i, "an attribute of the right type"), Ok)
    }

    fn value(&self, i: usize) -> Result<V> {
        match self.children.get(i) {
            Some(Term::Value(v)) => Ok(v.clone()),
            _ => self.wrong(i, "a value"),
        }
    }

    fn values(&self, from: usize) -> Result<Vec<V>> {
        (from..self.children.len()).map(|i| self.value(i)).collect()
    }

    fn prologue(&self, i: usize) -> Result<(Prologue, &[V])> {
        match self.children.get(i) {
            Some(Term::Prologue(prologue, operands)) => Ok((*prologue, operands)),
            _ => self.wrong(i, "a prologue"),
        }
    }

    fn weights(&self, i: usize) -> Result<Vec<V>> {
        match self.children.get(i) {
            Some(Term::Value(v)) => Ok(vec![v.clone()]),
            Some(Term::Weights(pair)) => Ok(pair.clone()),
            _ => self.wrong(i, "a weight"),
        }
    }

    fn chain(&self, i: usize) -> Result<(&[Epilogue], &[V])> {
        match self.children.get(i) {
            Some(Term::Chain(steps, operands)) => Ok((steps, operands)),
            _ => self.wrong(i, "a chain of steps"),
        }
    }

    fn table_op(&self, name: &str) -> Result<Op> {
        let names = ENode::op_attrs(name);
        let texts: Vec<(&str, &str)> =
            names.iter().enumerate().map(|(i, n)| Ok((*n, self.text(i)?))).collect::<Result<_>>()?;
        let message = || format!("the attributes {texts:?} do not parse");
        Op::from_text(name, &texts).ok_or_else(|| Error::Term { op: name.into(), message: message() })
    }

    /// A parameter: what `param` is in the table.
    fn source(&self) -> Result<Op> {
        let texts = [("index", self.text(0)?), ("ty", self.text(1)?)];
        let message = || format!("the attributes {texts:?} do not parse");
        Op::from_text("param", &texts).ok_or_else(|| Error::Term { op: "source".into(), message: message() })
    }

    fn linear(&self) -> Result<(Op, Vec<V>)> {
        let (prologue, x) = self.prologue(0)?;
        let (steps, step_operands) = self.chain(3)?;
        let operands = x.iter().cloned().chain(self.weights(2)?).chain(step_operands.iter().cloned()).collect();
        Ok((Op::Linear { prologue, round: self.attr(1)?, epilogue: steps.to_vec() }, operands))
    }

    fn qkv(&self) -> Result<(Op, Vec<V>)> {
        let (prologue, x) = self.prologue(0)?;
        let mut operands = x.to_vec();
        operands.extend((3..6).map(|i| self.value(i)).collect::<Result<Vec<V>>>()?);
        let mut chains = Vec::new();
        for i in 6..9 {
            let (steps, step_operands) = self.chain(i)?;
            chains.push(steps.to_vec());
            operands.extend_from_slice(step_operands);
        }
        operands.extend(self.values(9)?);
        let [q, k, v] = chains.try_into().expect("three chains were read");
        Ok((Op::Qkv { prologue, round: self.attr(1)?, head_dim: self.attr(2)?, q, k, v }, operands))
    }

    fn part(&self, name: &str) -> Result<Term<V>> {
        Ok(match name {
            "plain" => Term::Prologue(Prologue::None, self.values(0)?),
            "rms" => Term::Prologue(Prologue::RmsNorm(self.attr::<Real>(0)?), self.values(1)?),
            "ln" => Term::Prologue(Prologue::LayerNorm(self.attr::<Real>(0)?), self.values(1)?),
            "pair" => Term::Weights(self.values(0)?),
            "first" => self.result(0)?,
            "second" => self.result(1)?,
            "skipped" => Term::Value(self.value(0)?),
            "nil" => Term::Chain(Vec::new(), Vec::new()),
            step => self.step(step)?,
        })
    }

    fn result(&self, slot: usize) -> Result<Term<V>> {
        match self.children {
            [Term::Results(results)] if slot < results.len() => Ok(Term::Value(results[slot].clone())),
            _ => self.wrong(0, "an op with several results"),
        }
    }

    fn step(&self, name: &str) -> Result<Term<V>> {
        let (step, operands_from) = match name {
            "+bias" => (Epilogue::Bias, 1),
            "+act" => (Epilogue::Act(self.attr(1)?), 2),
            "+gated" => (Epilogue::Gated(self.attr(1)?), 2),
            "+residual" => (Epilogue::Residual, 1),
            "+mul" => (Epilogue::Mul, 1),
            "+scale" => (Epilogue::Scale(self.attr(1)?), 2),
            "+round" => (Epilogue::Round(self.attr(1)?), 2),
            "+head_norm" => (Epilogue::HeadNorm { eps: self.attr(1)?, head_dim: self.attr(2)? }, 3),
            "+rope" => {
                let (head_dim, rotary_dim) = (self.attr(1)?, self.attr(2)?);
                (Epilogue::Rope { head_dim, rotary_dim, interleaved: self.attr(3)? }, 4)
            }
            _ => return self.wrong(0, "a part that exists"),
        };
        let (steps, operands) = self.chain(0)?;
        let steps = steps.iter().copied().chain([step]).collect();
        let operands = operands.iter().cloned().chain(self.values(operands_from)?).collect();
        Ok(Term::Chain(steps, operands))
    }
}
