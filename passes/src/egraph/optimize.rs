//! Saturate, choose, rebuild: the e-graph's work on one graph.

use super::choices::{Assignment, Choice, Choices, Pruned};
use super::convert::Encoded;
use super::cost;
use super::extract::{Form, Problem, solve};
use super::facts::EGraph;
use super::lang::ENode;
use super::offers::Offers;
use super::rules::CompiledRule;
use super::saturate::{Fuel, Saturation, saturate};
use super::term::{Term, op_of};
use super::{convert, facts};
use crate::error::{Error, Result};
use crate::target::TargetFacts;
use egg::{Id, Language};
use llmc_ir::{Block, Graph, Type};
use std::collections::BTreeMap;

/// Seconds that a node weighs beside its kernel: of two forms with the same kernels the one with
/// fewer nodes wins, and no cycle is free.
const NODE_SECONDS: f64 = 1e-15;

/// A graph that has grown all the forms that rules and choices give it.
pub struct Saturated<'a> {
    graph: &'a Graph,
    egraph: EGraph,
    roots: Vec<Id>,
    target: &'a TargetFacts,
    /// The units that have a choice.
    pub choices: Choices,
    /// What happened in the e-graph.
    pub saturation: Saturation,
}

impl<'a> Saturated<'a> {
    /// Rewrites a block's graph with these rules; each of its units is offered these choices.
    pub fn new(
        block: &'a Block,
        rules: &[&CompiledRule],
        target: &'a TargetFacts,
        fuel: &mut Fuel,
        offers: &[Choice],
    ) -> Saturated<'a> {
        let graph = &block.graph;
        let Encoded { mut egraph, roots, ids } = convert::encode(graph);
        let choices = Offers::add(&mut egraph, block, &ids, offers);
        let saturation = saturate(&mut egraph, rules, fuel);
        let choices = choices.canonical(&egraph);
        Saturated { graph, egraph, roots, target, choices, saturation }
    }

    /// The cheapest form on the target under an assignment, and its predicted seconds per token.
    ///
    /// # Errors
    /// If no form is admissible, or the one chosen does not build: a bug of a rule.
    pub fn extract(&self, assignment: &Assignment) -> Result<(Graph, f64)> {
        let admissible = |class: Id, node: &ENode| self.choices.admits(&self.egraph, assignment, class, node);
        let chosen = choose(&self.egraph, &self.roots, self.target, &admissible)?;
        let graph = convert::decode(self.graph, &self.egraph, &chosen, &self.roots)?;
        let seconds = cost::graph_seconds(&graph, self.target)?;
        Ok((graph, seconds))
    }

    /// The cheapest of the assignments that leave out `pruned` and give each unit one of `offers`: units in
    /// order, each the best while the others stay, until nothing changes.
    ///
    /// # Errors
    /// As [`Saturated::extract`].
    pub fn cheapest(&self, offers: &[Choice], pruned: Pruned) -> Result<Assignment> {
        let first = offers.first().copied().unwrap_or_default();
        let mut best = Assignment { units: vec![first; self.choices.units.len()], pruned };
        if pruned.whole || offers.len() < 2 {
            return Ok(best);
        }
        let mut seconds = self.extract(&best)?.1;
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for unit in 0..best.units.len() {
                for choice in offers {
                    let before = std::mem::replace(&mut best.units[unit], *choice);
                    let found = self.extract(&best)?.1;
                    if found < seconds {
                        (seconds, changed) = (found, true);
                    } else {
                        best.units[unit] = before;
                    }
                }
            }
        }
        Ok(best)
    }
}

/// Which nodes may be chosen for a class. Nodes that stand for a choice not taken are not admissible.
type Admissible<'a> = &'a dyn Fn(Id, &ENode) -> bool;

/// One node for each class, so that the roots are cheapest.
fn choose(
    egraph: &EGraph,
    roots: &[Id],
    target: &TargetFacts,
    admissible: Admissible<'_>,
) -> Result<BTreeMap<Id, ENode>> {
    let classes = reachable(egraph, roots);
    let dense: BTreeMap<Id, usize> = classes.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    let nodes: Vec<Vec<&ENode>> =
        classes.iter().map(|id| egraph[*id].nodes.iter().filter(|n| admissible(*id, n)).collect()).collect();
    let mut problem = Problem { classes: Vec::new(), roots: roots.iter().map(|r| dense[&egraph.find(*r)]).collect() };
    let mut kept: Vec<Vec<&ENode>> = Vec::new();
    for class in &nodes {
        let choices: Vec<(Form, &ENode)> = class
            .iter()
            .map(|node| {
                let children = node.children.iter().map(|c| dense[&egraph.find(*c)]).collect();
                Ok((Form { weight: weight(egraph, node, target)?, children: unique(children) }, *node))
            })
            .collect::<Result<_>>()?;
        problem.classes.push(choices.iter().map(|(choice, _)| choice.clone()).collect());
        kept.push(choices.into_iter().map(|(_, node)| node).collect());
    }
    let unsolvable =
        || Error::Term { op: "extraction".into(), message: "no admissible form computes an output".into() };
    let solution = solve(problem).ok_or_else(unsolvable)?;
    let picked = solution.picks.iter().zip(&kept).zip(&classes);
    Ok(picked.filter_map(|((pick, nodes), id)| Some((*id, nodes[(*pick)?].clone()))).collect())
}

fn unique(mut children: Vec<usize>) -> Vec<usize> {
    children.sort_unstable();
    children.dedup();
    children
}

/// Classes that some form of the roots needs, in the order of their ids.
fn reachable(egraph: &EGraph, roots: &[Id]) -> Vec<Id> {
    let mut seen = BTreeMap::new();
    let mut stack: Vec<Id> = roots.iter().map(|r| egraph.find(*r)).collect();
    while let Some(id) = stack.pop() {
        if seen.insert(id, ()).is_none() {
            egraph[id].nodes.iter().for_each(|n| n.for_each(|c| stack.push(egraph.find(c))));
        }
    }
    seen.into_keys().collect()
}

/// Seconds of a node: its kernel, unless it is computed before a step runs.
fn weight(egraph: &EGraph, node: &ENode, target: &TargetFacts) -> Result<f64> {
    let children: Vec<&facts::Facts> = node.children.iter().map(|c| &egraph[*c].data).collect();
    if facts::infer(node, &children)?.static_value {
        return Ok(NODE_SECONDS);
    }
    let terms: Vec<&Term<Type>> = children.iter().map(|f| &f.term).collect();
    let kernel = op_of(node, &terms)?
        .map_or(0.0, |(op, operands)| cost::seconds(&op, &operands.iter().collect::<Vec<_>>(), target));
    Ok(NODE_SECONDS + kernel)
}
