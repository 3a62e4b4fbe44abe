//! Saturate, choose, rebuild: the e-graph's work on one graph.

use super::cost;
use super::extract::{Choice, Problem, solve};
use super::facts::EGraph;
use super::lang::ENode;
use super::rules::CompiledRule;
use super::saturate::{Fuel, Saturation, saturate};
use super::term::{Term, op_of};
use super::{convert, facts};
use crate::error::{Error, Result};
use crate::target::TargetFacts;
use egg::{Id, Language};
use llmc_ir::{Graph, Type};
use std::collections::BTreeMap;

/// Seconds that a node weighs beside its kernel: of two forms with the same kernels the one with
/// fewer nodes wins, and no cycle is free.
const NODE_SECONDS: f64 = 1e-15;

/// A better graph and how it came about.
pub struct Optimized {
    /// The graph chosen.
    pub graph: Graph,
    /// What happened in the e-graph.
    pub saturation: Saturation,
    /// Predicted seconds per token of the graph chosen.
    pub seconds: f64,
}

/// Which nodes may be chosen. Nodes that stand for a choice not taken are not admissible.
pub type Admissible<'a> = &'a dyn Fn(&ENode) -> bool;

/// Rewrites a graph with these rules and picks the cheapest form on the target.
///
/// # Errors
/// If the graph chosen does not build: a bug of a rule.
pub fn optimize(
    graph: &Graph,
    rules: &[&CompiledRule],
    target: &TargetFacts,
    fuel: &mut Fuel,
    admissible: Admissible<'_>,
) -> Result<Optimized> {
    let (mut egraph, roots) = convert::encode(graph);
    let saturation = saturate(&mut egraph, rules, fuel);
    let chosen = choose(&egraph, &roots, target, admissible)?;
    let graph = convert::decode(graph, &egraph, &chosen, &roots)?;
    let seconds = cost::graph_seconds(&graph, target)?;
    Ok(Optimized { graph, saturation, seconds })
}

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
        classes.iter().map(|id| egraph[*id].nodes.iter().filter(|n| admissible(n)).collect()).collect();
    let mut problem = Problem { classes: Vec::new(), roots: roots.iter().map(|r| dense[&egraph.find(*r)]).collect() };
    let mut kept: Vec<Vec<&ENode>> = Vec::new();
    for class in &nodes {
        let choices: Vec<(Choice, &ENode)> = class
            .iter()
            .map(|node| {
                let children = node.children.iter().map(|c| dense[&egraph.find(*c)]).collect();
                Ok((Choice { weight: weight(egraph, node, target)?, children: unique(children) }, *node))
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
