//! The pass that rewrites each block through an e-graph of its own.

use crate::egraph::optimize::optimize;
use crate::egraph::rules::{self, CompiledRule};
use crate::egraph::{cost, optimize::Optimized};
use crate::error::{Error, Result};
use crate::pass::{BlockReport, Ctx, Pass, PassReport, RuleReport};
use llmc_ir::{BlockId, Graph, Module};

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
            let (graph, block_report) = rewrite(&block.graph, &block.name, calls, &rules, ctx)?;
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
    graph: &Graph,
    name: &str,
    calls: usize,
    rules: &[&CompiledRule],
    ctx: &Ctx,
) -> Result<(Graph, BlockReport)> {
    let mut fuel = ctx.fuel.get();
    let best = optimize(graph, rules, &ctx.target, &mut fuel, &|_| true)?;
    let unlimited = ctx.fuel.get().is_none();
    ctx.fuel.set(fuel);
    let mut fired = Vec::new();
    for (rule, count) in &best.saturation.fired {
        let saving = match ctx.savings && unlimited {
            true => Some(saving(graph, rule, rules, &best, ctx)?),
            false => None,
        };
        fired.push(RuleReport { name: rule, fired: *count, saving });
    }
    let report = BlockReport {
        block: name.into(),
        calls,
        seconds: (cost::graph_seconds(graph, &ctx.target)?, best.seconds),
        kernels: (cost::kernel_nodes(graph).len(), cost::kernel_nodes(&best.graph).len()),
        rules: fired,
        saturation: best.saturation,
    };
    Ok((best.graph, report))
}

/// Seconds by which the block is slower without one rule.
fn saving(graph: &Graph, rule: &str, rules: &[&CompiledRule], best: &Optimized, ctx: &Ctx) -> Result<f64> {
    let without: Vec<&CompiledRule> = rules.iter().copied().filter(|r| r.name != rule).collect();
    let found = optimize(graph, &without, &ctx.target, &mut None, &|_| true)?;
    Ok(found.seconds - best.seconds)
}
