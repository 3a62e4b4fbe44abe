//! The pass that rewrites each block through an e-graph of its own.

use crate::egraph::choices::{Choice, Pruned};
use crate::egraph::cost;
use crate::egraph::optimize::Saturated;
use crate::egraph::rules::{self, CompiledRule};
use crate::error::{Error, Result};
use crate::pass::{BlockReport, Ctx, Pass, PassReport, RuleReport};
use llmc_ir::{Block, BlockId, Graph, Module};

/// The pass.
pub struct Rewrite;

impl Pass for Rewrite {
    fn name(&self) -> &'static str {
        "rewrite"
    }

    fn run(&self, module: &mut Module, ctx: &Ctx) -> Result<PassReport> {
        let compiled = enabled_rules(&ctx.disabled_rules)?;
        let rules: Vec<&CompiledRule> = compiled.iter().collect();
        let mut report = PassReport::new(self.name(), 0);
        if ctx.fuel.get() == Some(0) {
            return Ok(report);
        }
        for index in 0..module.blocks.len() {
            let calls = module.calls.iter().filter(|c| c.block == BlockId(index as u32)).count();
            let block = &mut module.blocks[index];
            let pruned = ctx.pruned.get(index).copied().unwrap_or_default();
            let (graph, block_report) = rewrite(block, (calls, pruned), &rules, ctx)?;
            report.changed += block_report.rules.iter().map(|r| r.fired).sum::<usize>();
            report.blocks.push(block_report);
            block.graph = graph;
        }
        Ok(report)
    }
}

/// Every rule but those disabled, compiled.
fn enabled_rules(disabled: &[String]) -> Result<Vec<CompiledRule>> {
    let names: Vec<&str> = rules::all().map(|r| r.name).collect();
    if let Some(unknown) = disabled.iter().find(|d| !names.contains(&d.as_str())) {
        return Err(Error::UnknownRule(unknown.clone(), names.join(", ")));
    }
    Ok(rules::all().filter(|r| !disabled.iter().any(|d| d == r.name)).map(CompiledRule::new).collect())
}

fn rewrite(
    block: &Block,
    (calls, pruned): (usize, Pruned),
    rules: &[&CompiledRule],
    ctx: &Ctx,
) -> Result<(Graph, BlockReport)> {
    let graph = &block.graph;
    // What is left out needs no other forms.
    let rules = if pruned.whole { &[] } else { rules };
    let offers: Vec<Choice> = if ctx.choices.is_empty() { vec![Choice::default()] } else { ctx.choices.clone() };
    let mut fuel = ctx.fuel.get();
    let unlimited = fuel.is_none();
    let saturated = Saturated::new(block, rules, &ctx.target, &mut fuel, &offers);
    ctx.fuel.set(fuel);
    let assignment = saturated.cheapest(&offers, pruned)?;
    let (best, seconds) = saturated.extract(&assignment)?;
    if pruned.whole && !cost::kernel_nodes(&best).is_empty() {
        let message = format!("block {}: an output is no input of the same name, so it cannot be left out", block.name);
        return Err(Error::Pruning(message));
    }
    let mut fired = Vec::new();
    for (rule, count) in &saturated.saturation.fired {
        let saving = match ctx.savings && unlimited {
            true => {
                let without: Vec<&CompiledRule> = rules.iter().copied().filter(|r| r.name != *rule).collect();
                let other = Saturated::new(block, &without, &ctx.target, &mut None, &offers);
                other.extract(&assignment).ok().map(|(_, slower)| slower - seconds)
            }
            false => None,
        };
        fired.push(RuleReport { name: rule, fired: *count, saving });
    }
    let report = BlockReport {
        block: block.name.clone(),
        calls,
        seconds: (cost::graph_seconds(graph, &ctx.target)?, seconds),
        kernels: (cost::kernel_nodes(graph).len(), cost::kernel_nodes(&best).len()),
        rules: fired,
        units: saturated.choices.units.iter().cloned().zip(assignment.units).collect(),
        saturation: saturated.saturation,
    };
    Ok((best, report))
}
