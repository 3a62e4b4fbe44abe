//! Applies rules until nothing new appears, or a limit is reached.
//!
//! Limits count nodes, iterations and applications, never seconds: the same input stops at the
//! same place on every machine.

use super::facts::EGraph;
use super::rules::CompiledRule;
use std::collections::BTreeMap;
use std::fmt;

/// Nodes of an e-graph at which rewriting stops. A block saturates at a few hundred.
pub const NODE_LIMIT: usize = 20_000;

/// Iterations after which rewriting stops: the longest chain of steps, with room.
pub const ITERATION_LIMIT: usize = 40;

/// Rule applications that are still allowed; `None` is no limit. Bisects a bad rewrite.
pub type Fuel = Option<u32>;

/// Why rewriting stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// No rule adds anything.
    Saturated,
    /// [`NODE_LIMIT`] was passed.
    NodeLimit,
    /// [`ITERATION_LIMIT`] was reached.
    IterationLimit,
    /// The fuel is spent.
    OutOfFuel,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StopReason::Saturated => "saturated",
            StopReason::NodeLimit => "node limit",
            StopReason::IterationLimit => "iteration limit",
            StopReason::OutOfFuel => "out of fuel",
        })
    }
}

/// What happened in one e-graph.
#[derive(Clone, Debug)]
pub struct Saturation {
    /// Applications of each rule that equated something new.
    pub fired: BTreeMap<&'static str, usize>,
    /// Nodes at the end.
    pub nodes: usize,
    /// Classes at the end.
    pub classes: usize,
    /// Iterations taken.
    pub iterations: usize,
    /// Why it ended.
    pub stop: StopReason,
}

/// Applies `rules` to the e-graph, each application taking one unit of fuel.
pub fn saturate(egraph: &mut EGraph, rules: &[&CompiledRule], fuel: &mut Fuel) -> Saturation {
    let mut fired = BTreeMap::new();
    let mut iterations = 0;
    let stop = loop {
        if iterations == ITERATION_LIMIT {
            break StopReason::IterationLimit;
        }
        iterations += 1;
        match iterate(egraph, rules, fuel, &mut fired) {
            Step::Grew => {}
            Step::Stop(reason) => break reason,
        }
    };
    egraph.rebuild();
    let (nodes, classes) = (egraph.total_number_of_nodes(), egraph.number_of_classes());
    Saturation { fired, nodes, classes, iterations, stop }
}

enum Step {
    Grew,
    Stop(StopReason),
}

/// Finds all matches of all rules, then applies them.
fn iterate(
    egraph: &mut EGraph,
    rules: &[&CompiledRule],
    fuel: &mut Fuel,
    fired: &mut BTreeMap<&'static str, usize>,
) -> Step {
    let found: Vec<_> = rules.iter().map(|rule| (rule, rule.search(egraph))).collect();
    let mut grew = false;
    for (rule, matches) in found {
        for (class, subst) in matches {
            if *fuel == Some(0) {
                return Step::Stop(StopReason::OutOfFuel);
            }
            if rule.apply(egraph, class, subst) {
                grew = true;
                *fired.entry(rule.name).or_insert(0) += 1;
                *fuel = fuel.map(|f| f - 1);
            }
            if egraph.total_size() > NODE_LIMIT {
                return Step::Stop(StopReason::NodeLimit);
            }
        }
    }
    egraph.rebuild();
    if grew { Step::Grew } else { Step::Stop(StopReason::Saturated) }
}
