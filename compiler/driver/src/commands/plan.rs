//! `llmc plan`: sizes, memory and speed by the roofline, without making anything.

use super::{print, set_jobs};
use crate::cli::PlanArgs;
use crate::compile::{self, Front};
use crate::error::Result;
use crate::machine::Machine;
use crate::progress::Progress;
use llmc_abi::manifest::{KvInfo, PhaseInfo, Unit};
use llmc_lower::Plan;
use llmc_passes::TargetFacts;
use serde_json::{Value, json};
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

/// What a step reads and multiplies, and how fast that can be.
struct Speeds {
    /// A typical machine of the target.
    facts: TargetFacts,
    /// This machine, where it can run the first variant.
    machine: Option<Machine>,
    bytes_per_token: u64,
    flops_per_token: u64,
    /// Seconds that the target's units multiply for each token.
    seconds_per_token: f64,
}

impl Speeds {
    fn of(plan: &Plan, threads: usize) -> Result<Speeds> {
        let variant = &plan.variants[0];
        let facts = TargetFacts::named(&variant.target.name)?;
        let flops = |p: &PhaseInfo| p.flops_per_token + p.flops_per_row;
        let seconds = |p: &PhaseInfo| flops(p) as f64 / peak(&facts, p.unit);
        Ok(Speeds {
            machine: Machine::measure(variant, threads)?,
            bytes_per_token: plan.weight_bytes_per_token(),
            flops_per_token: variant.phases.iter().map(flops).sum(),
            seconds_per_token: variant.phases.iter().map(seconds).sum(),
            facts,
        })
    }

    /// Tokens per second decoding, at the bandwidth of the target's facts.
    fn decode(&self) -> f64 {
        self.facts.memory_bandwidth / self.bytes_per_token as f64
    }

    /// Tokens per second prefilling, at the peaks of the target's facts.
    fn prefill(&self) -> f64 {
        1.0 / self.seconds_per_token.max(f64::MIN_POSITIVE)
    }

    /// Operations per second at these peaks.
    fn flops(&self) -> f64 {
        self.flops_per_token as f64 * self.prefill()
    }

    fn machine_json(&self, plan: &Plan) -> Option<Value> {
        let (machine, variant) = (self.machine.as_ref()?, &plan.variants[0]);
        Some(json!({
            "read_gb_s": machine.read.mean_gb_s,
            "peaks": machine.peaks.json(),
            "decode_tok_s": machine.decode(variant, self.bytes_per_token),
            "prefill_tok_s": machine.prefill(variant),
        }))
    }

    fn lines(&self, plan: &Plan) -> String {
        let mut out = format!(
            "reads {:.1} MB of weights per token, {:.2} GFLOP per token\n",
            self.bytes_per_token as f64 / 1e6,
            self.flops_per_token as f64 / 1e9
        );
        let _ = writeln!(
            out,
            "roofline at {:.0} GB/s and {:.0} GFLOP/s: {:.1} tokens/s decoding, {:.0} tokens/s prefilling",
            self.facts.memory_bandwidth / 1e9,
            self.flops() / 1e9,
            self.decode(),
            self.prefill()
        );
        let variant = &plan.variants[0];
        let _ = match &self.machine {
            None => writeln!(out, "this machine cannot run {}: no prediction for it", variant.target.name),
            Some(machine) => writeln!(
                out,
                "this machine: {:.1} GB/s{}; expect about {:.1} tokens/s decoding{}",
                machine.read.mean_gb_s,
                machine.peaks.text().map_or_else(String::new, |peaks| format!(" and {peaks}")),
                machine.decode(variant, self.bytes_per_token),
                machine.prefill(variant).map_or_else(String::new, |p| format!(", {p:.0} tokens/s prefilling")),
            ),
        };
        out
    }
}

/// Operations per second of a target's products that are made with a unit.
fn peak(facts: &TargetFacts, unit: Option<Unit>) -> f64 {
    match unit {
        None | Some(Unit::F32) => facts.peak_flops,
        Some(Unit::Bf16 | Unit::Bf16Tiles) => facts.bf16_flops,
        Some(Unit::Int8 | Unit::SmallInt8 | Unit::Int8Tiles) => facts.int8_flops,
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
    let speeds = Speeds::of(&plan, threads)?;
    if args.json {
        let sizes: serde_json::Map<_, _> = memory.lines().iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let json = json!({
            "name": front.opened.name,
            "target": speeds.facts.name,
            "threads": threads,
            "memory_bytes": sizes,
            "weight_bytes_per_token": speeds.bytes_per_token,
            "flops_per_token": speeds.flops_per_token,
            "assumed_bandwidth_gb_s": speeds.facts.memory_bandwidth / 1e9,
            "assumed_gflop_s": speeds.flops() / 1e9,
            "decode_tok_s": speeds.decode(),
            "prefill_tok_s": speeds.prefill(),
            "machine": speeds.machine_json(&plan),
            "kernels": plan.variants[0].program.functions.len() - 1,
        });
        return print(&format!("{json:#}\n"));
    }
    let workers = if plan.variants[0].target.is_gpu() { String::new() } else { format!(" {threads} threads,") };
    let mut out = format!("{} for {},{workers} context {}\n", front.opened.name, speeds.facts.name, front.build.ctx);
    for (name, bytes) in memory.lines() {
        let _ = writeln!(out, "  {name:<10} {:>10.1} MB", bytes as f64 / 1e6);
    }
    out.push_str(&speeds.lines(&plan));
    print(&out)
}

/// Memory of the first variant with one sequence of the whole context; of a GPU's, whichever form of its step has most.
fn memory(front: &Front, plan: &Plan, threads: usize) -> Memory {
    let first = &plan.variants[0];
    let forms = plan.variants.iter().filter(|v| v.target.name == first.target.name);
    let arena = forms.map(|v| v.scratch.arena_bytes).max().unwrap_or(0);
    let workers = if first.target.is_gpu() { 0 } else { first.scratch.worker_bytes * threads };
    let kv = KvInfo { keep: front.build.keep, ..plan.kv.clone() };
    let pages = kv.held(front.build.ctx, plan.step.tokens).div_ceil(kv.page_positions) as u64;
    Memory {
        weights: plan.weights.bytes as u64,
        tokenizer: front.opened.tokenizer_json.as_ref().map_or(0, |t| t.len() as u64 / 2),
        arena: arena as u64,
        workers: workers as u64,
        kv: pages * kv.page_bytes as u64,
        logits: (plan.step.rows * front.opened.spec.vocab * 4) as u64,
    }
}
