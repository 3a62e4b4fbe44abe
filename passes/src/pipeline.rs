//! The passes, in order.

use crate::dce::Dce;
use crate::egraph::choices::{Choice, Pruned};
use crate::error::{Error, Result};
use crate::fold::Fold;
use crate::pass::{BlockReport, Ctx, Pass, PassReport};
use crate::prune::{self, Pruning};
use crate::rewrite::Rewrite;
use crate::target::TargetFacts;
use llmc_ir::{Block, Module};
use std::cell::Cell;

/// What a run of the passes is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Facts of the target.
    pub target: TargetFacts,
    /// Rule applications allowed, over all blocks; 0 turns rewriting off, `None` is no limit.
    pub fuel: Option<u32>,
    /// Rules that are not used, by name.
    pub disabled_rules: Vec<String>,
    /// Whether to compute what each rule saves. Rewrites each block once more per rule.
    pub savings: bool,
    /// What each unit of products may be; with several, the cheapest is taken. Empty: as built.
    pub choices: Vec<Choice>,
    /// What the module leaves out.
    pub pruning: Pruning,
}

impl Options {
    /// Everything on, for a target.
    pub fn new(target: TargetFacts) -> Options {
        Options {
            target,
            fuel: None,
            disabled_rules: Vec::new(),
            savings: false,
            choices: Vec::new(),
            pruning: Pruning::default(),
        }
    }
}

/// What a run of the passes did.
#[derive(Clone, Debug)]
pub struct Report {
    /// One for each pass, in order.
    pub passes: Vec<PassReport>,
}

impl Report {
    /// The rewriting of each block.
    pub fn blocks(&self) -> impl Iterator<Item = &BlockReport> {
        self.passes.iter().flat_map(|p| &p.blocks)
    }
}

/// The passes in the order in which they run.
fn passes() -> [Box<dyn Pass>; 3] {
    [Box::new(Fold), Box::new(Rewrite), Box::new(Dce)]
}

/// Runs every pass and verifies the module before the first and after each.
///
/// Afterwards the operands of `linear` and `qkv` that stand for weights, biases and norm vectors
/// are parameters, or expressions over parameters and constants alone, for the packer to evaluate.
///
/// # Errors
/// If the module is not valid, an option names nothing, or a pass broke the module.
pub fn run(module: &mut Module, options: &Options) -> Result<Report> {
    llmc_ir::verify(module)?;
    let pruned = prune::specialize(module, &options.pruning)?;
    let check = |module: &Module, pass| match llmc_ir::verify(module) {
        Ok(_) => Ok(()),
        Err(source) => Err(Error::Broken { pass, source }),
    };
    let report = run_passes(module, options, &pruned, &check)?;
    prune::remove_skipped(module, &pruned);
    check(module, "pruning")?;
    Ok(report)
}

/// Runs every pass on one block, outside of a module; only its own graph is checked. What it leaves out is
/// `pruned`: columns where it has a parameter for them.
///
/// # Errors
/// As [`run`].
pub fn run_block(block: Block, options: &Options, pruned: Pruned) -> Result<(Block, Report)> {
    let mut module = Module { blocks: vec![block], ..Module::default() };
    let report = run_passes(&mut module, options, &[pruned], &|_, _| Ok(()))?;
    Ok((module.blocks.remove(0), report))
}

fn run_passes(module: &mut Module, options: &Options, pruned: &[Pruned], check: Check<'_>) -> Result<Report> {
    let ctx = Ctx {
        target: options.target.clone(),
        fuel: Cell::new(options.fuel),
        disabled_rules: options.disabled_rules.clone(),
        savings: options.savings,
        choices: options.choices.clone(),
        pruned: pruned.to_vec(),
    };
    let mut report = Report { passes: Vec::new() };
    for pass in passes() {
        report.passes.push(pass.run(module, &ctx)?);
        check(module, pass.name())?;
    }
    Ok(report)
}

/// What is asked of a module after each pass.
type Check<'a> = &'a dyn Fn(&Module, &'static str) -> Result<()>;
