//! Instantiates both sides of every rule with random tensors and compares them under the
//! reference interpreter, bit for bit.
//!
//! Every match of a rule in the e-graphs of the rewrite filetests is an instance: its variables
//! become random values of the types found there, attributes and steps stay what they are.

mod support;

use egg::{ENodeOrVar, Id, PatternAst, Subst, Var};
use llmc_ir::Op;
use llmc_ir::interp::RtValue;
use llmc_passes::egraph::convert::{Encoded, encode};
use llmc_passes::egraph::facts::EGraph;
use llmc_passes::egraph::lang::ENode;
use llmc_passes::egraph::offers::Offers;
use llmc_passes::egraph::rules::{self, CompiledRule, Equation, Rule, always};
use llmc_passes::egraph::saturate::saturate;
use llmc_passes::egraph::term::{Domain, Term, interpret};
use std::collections::{BTreeMap, BTreeSet};
use support::FileTest;
use support::random::Random;

/// Ops over tensors.
struct Tensors;

impl Domain for Tensors {
    type Value = RtValue;

    fn apply(&mut self, op: Op, operands: &[RtValue]) -> llmc_passes::Result<Vec<RtValue>> {
        Ok(op.eval(&operands.iter().collect::<Vec<_>>())?)
    }
}

/// One match of a rule with values for its variables.
struct Instance<'a> {
    egraph: &'a EGraph,
    subst: Subst,
    seed: u64,
    known: BTreeMap<Var, Term<RtValue>>,
}

impl Instance<'_> {
    /// A class as a term over random values: the same class always gives the same value.
    fn class(&self, id: Id, name: &str) -> Term<RtValue> {
        let id = self.egraph.find(id);
        match self.egraph[id].data.ty() {
            Some(ty) => Term::Value(Random(self.seed ^ (usize::from(id) as u64) << 20).value(ty, name)),
            None => {
                let node = &self.egraph[id].nodes[0];
                let children: Vec<_> = node.children.iter().map(|c| self.class(*c, name)).collect();
                interpret(&mut Tensors, node, &children.iter().collect::<Vec<_>>()).expect("a typed node evaluates")
            }
        }
    }

    fn variable(&self, var: Var) -> Term<RtValue> {
        let random = || self.class(self.subst[var], &var.to_string());
        self.known.get(&var).cloned().unwrap_or_else(random)
    }

    fn evaluate(&self, ast: &PatternAst<ENode>) -> Term<RtValue> {
        let mut terms: Vec<Term<RtValue>> = Vec::new();
        for node in ast {
            terms.push(match node {
                ENodeOrVar::Var(v) => self.variable(*v),
                ENodeOrVar::ENode(n) => {
                    let children: Vec<_> = n.children.iter().map(|c| &terms[usize::from(*c)]).collect();
                    interpret(&mut Tensors, n, &children).expect("a checked rule evaluates")
                }
            });
        }
        terms.pop().expect("a pattern has a node")
    }

    /// Values of the left side: equations whose variables other equations define come after those.
    fn left(&mut self, equations: &[Equation]) -> Option<Term<RtValue>> {
        let mut found = None;
        let mut open: Vec<&Equation> = equations.iter().collect();
        while !open.is_empty() {
            let pending: BTreeSet<Var> = open.iter().filter_map(|(v, _)| *v).collect();
            let uses_pending = |ast: &PatternAst<ENode>| {
                ast.into_iter().any(|n| matches!(n, ENodeOrVar::Var(v) if pending.contains(v)))
            };
            let next = open.iter().position(|(_, ast)| !uses_pending(ast)).expect("equations are not circular");
            let (var, ast) = open.remove(next);
            let value = self.evaluate(ast);
            match var {
                Some(v) => _ = self.known.insert(*v, value),
                None => found = Some(value),
            }
        }
        found
    }

    /// Checks every equation of the right side.
    fn agrees(&mut self, rule: &CompiledRule) -> bool {
        let found = self.left(&rule.lhs);
        for (var, ast) in &rule.rhs {
            let value = self.evaluate(ast);
            let expected = var.map_or(found.clone(), |v| self.known.get(&v).cloned());
            match (expected, var) {
                (Some(expected), _) if expected != value => return false,
                (None, Some(v)) => _ = self.known.insert(*v, value),
                _ => {}
            }
        }
        true
    }
}

/// The saturated e-graph of each file.
fn corpus() -> Vec<EGraph> {
    let compiled: Vec<CompiledRule> = rules::all().map(CompiledRule::new).collect();
    let rules: Vec<&CompiledRule> = compiled.iter().collect();
    let saturated = |file: FileTest| {
        let block = file.block();
        let Encoded { mut egraph, ids, .. } = encode(&block.graph);
        Offers::add(&mut egraph, &block, &ids, &file.choices);
        saturate(&mut egraph, &rules, &mut None);
        egraph
    };
    FileTest::all().into_iter().map(saturated).collect()
}

/// Instances of a rule in the corpus, and how many of them hold.
fn try_rule(rule: &Rule, corpus: &mut [EGraph]) -> (usize, usize) {
    let compiled = CompiledRule::new(rule);
    let (mut instances, mut holding) = (0, 0);
    for egraph in corpus {
        for (class, subst) in compiled.search(egraph) {
            let Some(subst) = compiled.check(egraph, class, subst) else { continue };
            egraph.rebuild();
            let mut instance = Instance { egraph, subst, seed: 1 + instances as u64, known: BTreeMap::new() };
            instances += 1;
            holding += usize::from(instance.agrees(&compiled));
        }
    }
    (instances, holding)
}

#[test]
fn both_sides_of_every_rule_are_equal() {
    let mut corpus = corpus();
    for rule in rules::all() {
        let (instances, holding) = try_rule(rule, &mut corpus);
        assert!(instances > 0, "{} has no instance", rule.name);
        assert_eq!(instances, holding, "{} does not hold", rule.name);
    }
}

#[test]
fn a_false_rule_is_found() {
    let wrong = [
        ("(act ?a (linear ?p ?r ?w ?c))", "(linear ?p ?r ?w ?c)"),
        ("(matmul (round ?d ?x) ?w)", "(matmul ?x ?w)"),
        ("(scale ?f (scale ?g ?x))", "(scale ?g ?x)"),
        ("(linear (rms ?e ?x ?s) ?r ?w ?c)", "(linear (plain ?x) ?r ?w ?c)"),
    ];
    let mut corpus = corpus();
    for (lhs, rhs) in wrong {
        let (instances, holding) = try_rule(&Rule { name: "wrong", lhs, rhs, when: always }, &mut corpus);
        assert!(instances > holding, "{lhs} = {rhs} was accepted");
    }
}
