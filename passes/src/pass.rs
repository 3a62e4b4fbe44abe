//! What a pass is, and what it reports.

use crate::egraph::choices::{Choice, Pruned};
use crate::egraph::saturate::{Fuel, Saturation};
use crate::error::Result;
use crate::target::TargetFacts;
use llmc_ir::Module;
use std::cell::Cell;
use std::fmt;

/// A step of the pipeline: a module into a better one that computes the same.
pub trait Pass {
    /// Name, for reports and errors.
    fn name(&self) -> &'static str;

    /// Changes the module.
    ///
    /// # Errors
    /// If the module is not what the pass can work on; the module may then be half changed.
    fn run(&self, module: &mut Module, ctx: &Ctx) -> Result<PassReport>;
}

/// What every pass may know.
pub struct Ctx {
    /// Facts of the target, for costs.
    pub target: TargetFacts,
    /// Rule applications still allowed in this run.
    pub fuel: Cell<Fuel>,
    /// Rules that are not used.
    pub disabled_rules: Vec<String>,
    /// Whether to compute what each rule saves, by running without it.
    pub savings: bool,
    /// What each unit may be; with several, the cheapest is taken.
    pub choices: Vec<Choice>,
    /// What each block leaves out; nothing where there is no entry.
    pub pruned: Vec<Pruned>,
}

/// What a pass did.
#[derive(Clone, Debug)]
pub struct PassReport {
    /// The pass.
    pub pass: &'static str,
    /// Nodes changed or removed.
    pub changed: usize,
    /// The rewriting of each block, if the pass rewrites.
    pub blocks: Vec<BlockReport>,
}

impl PassReport {
    /// A report without blocks.
    pub fn new(pass: &'static str, changed: usize) -> PassReport {
        PassReport { pass, changed, blocks: Vec::new() }
    }
}

/// The rewriting of one block.
#[derive(Clone, Debug)]
pub struct BlockReport {
    /// The block.
    pub block: String,
    /// How often it is called in a step.
    pub calls: usize,
    /// Predicted seconds per token of one call, before and after.
    pub seconds: (f64, f64),
    /// Kernels before and after.
    pub kernels: (usize, usize),
    /// Rules that fired, in the order of their names.
    pub rules: Vec<RuleReport>,
    /// Each unit and what was decided for it.
    pub units: Vec<(String, Choice)>,
    /// Size of the e-graph and why it stopped growing.
    pub saturation: Saturation,
}

/// One rule in one block.
#[derive(Clone, Debug)]
pub struct RuleReport {
    /// The rule.
    pub name: &'static str,
    /// Applications that equated something new.
    pub fired: usize,
    /// Predicted seconds per token that one call would be slower without the rule; 0 where another
    /// rule leads to the same plan, `None` where it was not asked for.
    pub saving: Option<f64>,
}

impl fmt::Display for BlockReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micro = |s: f64| s * 1e6;
        let s = &self.saturation;
        writeln!(
            f,
            "block {} x{}: {} -> {} kernels, {:.1} -> {:.1} us per token predicted; e-graph {} nodes, {} classes, \
             {} iterations, {}",
            self.block,
            self.calls,
            self.kernels.0,
            self.kernels.1,
            micro(self.seconds.0),
            micro(self.seconds.1),
            s.nodes,
            s.classes,
            s.iterations,
            s.stop
        )?;
        for rule in &self.rules {
            write!(f, "  {:<16} fired {:>3}", rule.name, rule.fired)?;
            match rule.saving {
                Some(saving) => writeln!(f, "   saves {:.2} us", micro(saving))?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}
