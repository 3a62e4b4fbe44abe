//! What `--emit` can show: every stage of the pipeline as text, or the object files.

use crate::compile::{front, plan, unoptimized};
use crate::error::Result;
use crate::options::Options;
use crate::progress::Progress;
use std::fmt::Write;

/// A product of the pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Emit {
    /// The executable.
    #[default]
    Exe,
    /// Relocatable object files, in a folder.
    Object,
    /// The architecture as read from the configuration.
    Spec,
    /// The graph as built.
    Graph,
    /// The graph after the passes.
    Opt,
    /// Kernels, buffers and weights.
    Plan,
    /// The kernels in the kernel IR.
    Kir,
    /// The code generator's own IR.
    LlvmIr,
    /// Assembly.
    Asm,
    /// Assembly of the GPU targets.
    Ptx,
}

/// The text of a stage.
///
/// # Errors
/// Whatever the stages before it meet.
pub fn text(emit: Emit, options: &Options, progress: &Progress) -> Result<String> {
    match emit {
        Emit::Spec => return Ok(format!("{}\n", llmc_models::open(&options.model)?.spec)),
        Emit::Graph => return Ok(unoptimized(options)?.to_string()),
        _ => {}
    }
    let front = front(options, progress)?;
    if emit == Emit::Opt {
        return Ok(front.module.to_string());
    }
    let plan = plan(&front, options)?;
    let mut out = String::new();
    if emit == Emit::Plan {
        return Ok(plan_text(&plan, &front.module));
    }
    for variant in plan.variants.iter().filter(|v| emit != Emit::Ptx || v.target.is_gpu()) {
        let text = match emit {
            Emit::Kir => variant.program.to_string(),
            Emit::LlvmIr => options.backend()?.ir_text(&variant.program, &variant.target)?,
            _ => options.backend()?.asm_text(&variant.program, &variant.target)?,
        };
        out.push_str(&text);
    }
    Ok(out)
}

/// The plan as aligned text.
fn plan_text(plan: &llmc_lower::Plan, module: &llmc_ir::Module) -> String {
    let mut out = String::new();
    for v in &plan.variants {
        let _ = writeln!(
            out,
            "target {}: {} kernels, arena {} bytes, {} bytes for each worker",
            v.target.name,
            v.program.functions.len() - 1,
            v.scratch.arena_bytes,
            v.scratch.worker_bytes
        );
        for (i, p) in v.phases.iter().enumerate() {
            let kernels = p.kernels.join(" ");
            let _ = writeln!(out, "  phase {i:>3} x{:<3} {:>12} weight bytes  {kernels}", p.count, p.weight_bytes);
        }
    }
    let _ = writeln!(
        out,
        "kv {}: {} positions and {} bytes per page",
        plan.kv.dtype, plan.kv.page_positions, plan.kv.page_bytes
    );
    let _ = writeln!(out, "weights: {} bytes", plan.weights.bytes);
    for t in plan.tensors(module) {
        let _ = writeln!(out, "  {:>12} {:>12} {:<5} {:?} {}", t.offset, t.bytes, t.scheme, t.shape, t.name);
    }
    out
}
