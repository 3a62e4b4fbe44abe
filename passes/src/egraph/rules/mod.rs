//! The rules, and how to write one.
//!
//! A rule is a line of a table: a name, a pattern, what it equals, and a condition on the match.
//! Both sides are terms of the e-graph's language (see [`super::lang`]); a side may state several
//! equations, `?a = (..), ?b = (..)`, when more than one value is concerned.
//!
//! 1. A rule is an equality, to the bit, under the reference interpreter. A step that loses
//!    something is a choice and not a rule. Removing a rounding is not an equality either.
//! 2. State rank and dimensions in the condition where the pattern alone would match other ranks.
//!    Type inference of the right side is checked before anything is added, so what is implied by
//!    the types need not be said again; it is no substitute for saying what the rule is about.
//! 3. Point towards the cheaper or the more regular form. No general commutativity or
//!    associativity: write the rule twice.
//! 4. A rule must not feed itself: an operand that may stand in its own class (`x = scale{1}(x)`)
//!    needs a condition.
//! 5. A condition may compute an attribute of the right side with [`Match::bind`].
//! 6. With the rule comes a file in `tests/filetests/rewrite` whose plan changes without it. That
//!    both sides are equal is tested for every rule by the crate's tests, on random tensors.

pub mod ffn;
pub mod matmul;
pub mod norm;
pub mod qkv;
pub mod rope;
pub mod scale;
pub mod select;
pub mod shape;

use super::facts::{EGraph, Facts, infer};
use super::lang::ENode;
use egg::{ENodeOrVar, Id, MultiPattern, Pattern, PatternAst, SearchMatches, Searcher, Subst, Var};
use llmc_ir::ops::Attr;
use llmc_ir::{DType, Dim, TensorType, Type};
use std::collections::BTreeMap;

/// A side condition; it may also bind attributes that the right side needs.
pub type When = fn(&mut Match<'_>) -> bool;

/// One rewrite rule.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Unique name, for reports and `--disable-rule`.
    pub name: &'static str,
    /// What to find.
    pub lhs: &'static str,
    /// What it equals.
    pub rhs: &'static str,
    /// When that holds.
    pub when: When,
}

/// A line of a table.
pub const fn rule(name: &'static str, lhs: &'static str, rhs: &'static str, when: When) -> Rule {
    Rule { name, lhs, rhs, when }
}

/// The condition of rules that always hold.
pub fn always(_: &mut Match<'_>) -> bool {
    true
}

/// Every rule, in the order in which they are tried.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    [matmul::RULES, norm::RULES, rope::RULES, qkv::RULES, ffn::RULES, shape::RULES, scale::RULES, select::RULES]
        .into_iter()
        .flatten()
}

/// Where a pattern was found: what its variables stand for.
pub struct Match<'a> {
    egraph: &'a mut EGraph,
    subst: Subst,
}

impl Match<'_> {
    fn facts(&self, var: &str) -> &Facts {
        &self.egraph[self.subst[variable(var)]].data
    }

    /// The tensor type of a variable.
    pub fn tensor(&self, var: &str) -> Option<&TensorType> {
        self.facts(var).ty().and_then(Type::tensor)
    }

    /// True for `f32[n,d]`.
    pub fn is_rows(&self, var: &str) -> bool {
        self.tensor(var).is_some_and(|t| t.dtype == DType::F32 && t.shape.len() == 2)
    }

    /// True for `[n,d]` of what a product takes.
    pub fn is_product_rows(&self, var: &str) -> bool {
        let product = |t: &TensorType| matches!(t.dtype, DType::F32 | DType::Bf16 | DType::I8) && t.shape.len() == 2;
        self.tensor(var).is_some_and(product)
    }

    /// True for `f32[n,heads,head_dim]`.
    pub fn is_heads(&self, var: &str) -> bool {
        self.tensor(var).is_some_and(|t| t.dtype == DType::F32 && t.shape.len() == 3)
    }

    /// The attribute a variable stands for.
    pub fn attr<A: Attr>(&self, var: &str) -> Option<A> {
        match &self.facts(var).term {
            super::term::Term::Attr(text) => A::parse(text),
            _ => None,
        }
    }

    /// Makes `var` stand for an attribute on the right side. Always true.
    pub fn bind(&mut self, var: &str, value: &impl Attr) -> bool {
        let id = self.egraph.add(ENode::attr(&value.print()));
        self.subst.insert(variable(var), id);
        true
    }

    /// True if the attribute `shape` is `[n,heads,head_dim]`; binds `head_dim`.
    pub fn splits_heads(&mut self, shape: &str, head_dim: &str) -> bool {
        match self.attr::<Vec<Dim>>(shape).as_deref() {
            Some([_, Dim::Const(_), Dim::Const(d)]) => self.bind(head_dim, d),
            _ => false,
        }
    }
}

fn variable(name: &str) -> Var {
    name.parse().expect("rules spell variables ?name")
}

/// What a match equates: a variable (or the class found) and a term.
pub type Equation = (Option<Var>, PatternAst<ENode>);

/// A rule with its patterns parsed.
pub struct CompiledRule {
    /// As in the table.
    pub name: &'static str,
    /// Left side, for the test that instantiates rules.
    pub lhs: Vec<Equation>,
    /// Right side.
    pub rhs: Vec<Equation>,
    searcher: Box<dyn Searcher<ENode, super::facts::FactAnalysis> + Send + Sync>,
    when: When,
}

impl CompiledRule {
    /// Parses a rule.
    ///
    /// # Panics
    /// If a side is not a term: rules are part of the compiler and a test compiles each.
    pub fn new(rule: &Rule) -> CompiledRule {
        let lhs = equations(rule.lhs);
        let searcher: Box<dyn Searcher<_, _> + Send + Sync> = match lhs.as_slice() {
            [(None, pattern)] => Box::new(Pattern::new(pattern.clone())),
            _ => {
                let named = |(var, ast): &Equation| (var.expect("several equations are all named"), ast.clone());
                Box::new(MultiPattern::new(lhs.iter().map(named).collect()))
            }
        };
        CompiledRule { name: rule.name, lhs, rhs: equations(rule.rhs), searcher, when: rule.when }
    }

    /// Matches: the class found and what the variables stand for.
    pub fn search(&self, egraph: &EGraph) -> Vec<(Id, Subst)> {
        let matches: Vec<SearchMatches<'_, ENode>> = self.searcher.search(egraph);
        matches.into_iter().flat_map(|m| m.substs.into_iter().map(move |s| (m.eclass, s))).collect()
    }

    /// What the variables of the right side stand for in a match; `None` if the condition does not
    /// hold or the right side has no type.
    pub fn check(&self, egraph: &mut EGraph, class: Id, subst: Subst) -> Option<Subst> {
        let mut found = Match { egraph, subst };
        let subst = (self.when)(&mut found).then_some(found.subst)?;
        self.is_typed(egraph, class, &subst).then_some(subst)
    }

    /// Adds the right side of a match. True if that equated something new; false also where
    /// [`CompiledRule::check`] finds that the rule does not apply.
    pub fn apply(&self, egraph: &mut EGraph, class: Id, subst: Subst) -> bool {
        let Some(mut subst) = self.check(egraph, class, subst) else { return false };
        let mut changed = false;
        for (var, ast) in &self.rhs {
            let id = instantiate(egraph, ast, &subst);
            match var.map_or(Some(class), |v| subst.get(v).copied()) {
                Some(known) => changed |= egraph.union(known, id),
                None => _ = var.map(|v| subst.insert(v, id)),
            }
        }
        changed
    }

    /// Infers the types of the right side without adding it, and compares.
    fn is_typed(&self, egraph: &EGraph, class: Id, subst: &Subst) -> bool {
        let mut new: BTreeMap<Var, Facts> = BTreeMap::new();
        for (var, ast) in &self.rhs {
            let Some(facts) = infer_pattern(egraph, ast, subst, &new) else { return false };
            match var.map_or(Some(class), |v| subst.get(v).copied()) {
                Some(known) if egraph[known].data.term != facts.term => return false,
                Some(_) => {}
                None => _ = var.map(|v| new.insert(v, facts)),
            }
        }
        true
    }
}

fn instantiate(egraph: &mut EGraph, ast: &PatternAst<ENode>, subst: &Subst) -> Id {
    let mut ids: Vec<Id> = Vec::with_capacity(ast.len());
    for node in ast {
        ids.push(match node {
            ENodeOrVar::Var(v) => subst[*v],
            ENodeOrVar::ENode(n) => {
                let children = n.children.iter().map(|c| ids[usize::from(*c)]).collect();
                egraph.add(ENode { head: n.head.clone(), children })
            }
        });
    }
    *ids.last().expect("a pattern has a node")
}

fn infer_pattern(egraph: &EGraph, ast: &PatternAst<ENode>, subst: &Subst, new: &BTreeMap<Var, Facts>) -> Option<Facts> {
    let mut facts: Vec<Facts> = Vec::with_capacity(ast.len());
    for node in ast {
        facts.push(match node {
            ENodeOrVar::Var(v) => match subst.get(*v) {
                Some(id) => egraph[*id].data.clone(),
                None => new.get(v)?.clone(),
            },
            ENodeOrVar::ENode(n) => {
                infer(n, &n.children.iter().map(|c| &facts[usize::from(*c)]).collect::<Vec<_>>()).ok()?
            }
        });
    }
    facts.pop()
}

/// `term`, or `?a = term, ?b = term`.
fn equations(text: &str) -> Vec<Equation> {
    let term = |t: &str| t.trim().parse::<PatternAst<ENode>>().unwrap_or_else(|e| panic!("rule side {t}: {e}"));
    if !text.contains('=') {
        return vec![(None, term(text))];
    }
    let equation = |part: &str| {
        let (var, ast) = part.split_once('=').expect("each part is an equation");
        (Some(variable(var.trim())), term(ast))
    };
    text.split(',').map(equation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_rule_compiles_and_names_are_unique() {
        let mut names = BTreeSet::new();
        for rule in all() {
            CompiledRule::new(rule);
            assert!(names.insert(rule.name), "{} appears twice", rule.name);
        }
    }
}
