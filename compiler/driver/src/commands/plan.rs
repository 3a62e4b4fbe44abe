//! `llmc plan`: sizes, memory and the roofline, without making anything.

use super::{print, set_jobs};
use crate::cli::PlanArgs;
use crate::compile::{self, Front};
use crate::error::Result;
use crate::progress::Progress;
use llmc_abi::manifest::KvInfo;
use llmc_lower::Plan;
use llmc_passes::TargetFacts;
use std::fmt::Write;

/// Bytes that a process of the runtime has beside weights, scratch, cache and logits: its code,
/// heap and stacks.
const PROCESS_BYTES: u64 = 4 << 20;

/// Memory of an artifact in use, in bytes.
struct Memory {
    weights: u64,
    tokenizer: u64,
    arena: u64,
    workers: u64,
    kv: u64,
    logits: u64,
}

impl Memory {
    fn total(&self) -> u64 {
        self.weights + self.tokenizer + self.arena + self.workers + self.kv + self.logits + PROCESS_BYTES
    }

    fn lines(&self) -> [(&'static str, u64); 8] {
        [
            ("weights", self.weights),
            ("tokenizer", self.tokenizer),
            ("arena", self.arena),
            ("workers", self.workers),
            ("kv_cache", self.kv),
            ("logits", self.logits),
            ("process", PROCESS_BYTES),
            ("total", self.total()),
        ]
    }
}

/// Runs the command.
pub(super) fn run(args: &PlanArgs) -> Result<()> {
    set_jobs(args.model.jobs)?;
    let options = args.model.options();
    let front = compile::front(&options, &Progress::new(args.model.quiet))?;
    let plan = compile::plan(&front, &options)?;
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let memory = memory(&front, &plan, threads);
    let facts = TargetFacts::named(&plan.variants[0].target.name)?;
    let bytes_per_token = plan.weight_bytes_per_token();
    let decode = facts.memory_bandwidth / bytes_per_token as f64;
    let flops: u64 = plan.variants[0].phases.iter().map(|p| p.flops_per_token + p.flops_per_row).sum();
    let prefill = facts.peak_flops / flops.max(1) as f64;
    if args.json {
        let sizes: serde_json::Map<_, _> = memory.lines().iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let json = serde_json::json!({
            "name": front.opened.name,
            "target": facts.name,
            "threads": threads,
            "memory_bytes": sizes,
            "weight_bytes_per_token": bytes_per_token,
            "flops_per_token": flops,
            "assumed_bandwidth_gb_s": facts.memory_bandwidth / 1e9,
            "assumed_gflop_s": facts.peak_flops / 1e9,
            "decode_tok_s": decode,
            "prefill_tok_s": prefill,
            "kernels": plan.variants[0].program.functions.len() - 1,
        });
        return print(&format!("{json:#}\n"));
    }
    let mut out = String::new();
    let _ = writeln!(out, "{} for {}, {threads} threads, context {}", front.opened.name, facts.name, front.build.ctx);
    for (name, bytes) in memory.lines() {
        let _ = writeln!(out, "  {name:<10} {:>10.1} MB", bytes as f64 / 1e6);
    }
    let _ = writeln!(
        out,
        "reads {:.1} MB of weights per token, {:.2} GFLOP per token",
        bytes_per_token as f64 / 1e6,
        flops as f64 / 1e9
    );
    let _ = writeln!(
        out,
        "roofline at {:.0} GB/s and {:.0} GFLOP/s: {decode:.1} tokens/s decoding, {prefill:.0} tokens/s prefilling",
        facts.memory_bandwidth / 1e9,
        facts.peak_flops / 1e9
    );
    print(&out)
}

/// Memory of the first variant with one sequence of the whole context.
fn memory(front: &Front, plan: &Plan, threads: usize) -> Memory {
    let scratch = plan.variants[0].scratch;
    let kv = KvInfo { keep: front.build.keep, ..plan.kv.clone() };
    let pages = kv.held(front.build.ctx, plan.step.tokens).div_ceil(kv.page_positions) as u64;
    Memory {
        weights: plan.weights.bytes as u64,
        tokenizer: front.opened.tokenizer_json.as_ref().map_or(0, |t| t.len() as u64 / 2),
        arena: scratch.arena_bytes as u64,
        workers: (scratch.worker_bytes * threads) as u64,
        kv: pages * kv.page_bytes as u64,
        logits: (plan.step.rows * front.opened.spec.vocab * 4) as u64,
    }
}
