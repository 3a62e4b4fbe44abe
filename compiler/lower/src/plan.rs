//! The plan: everything a step will do, for each target, and where everything lies.

use crate::block::{BlockPlan, lower_block};
use crate::buffers::{Globals, StepLimits};
use crate::error::{Error, Result};
use crate::phases::Phases;
use crate::runs::{CallRun, calls_per_block, group};
use crate::weights::{BoundItem, Item, PackLayout, WeightsPlan, describe, params_of};
use llmc_abi::manifest::{GroupInfo, KvInfo, KvPlaces, PhaseInfo, StepInfo, TensorInfo};
use llmc_abi::step::{SYNC_PHASES, kernel_symbol, step_symbol};
use llmc_ir::{DType, Module, ModuleInfo, Op};
use llmc_kernels::env::Scratch;
use llmc_kernels::kir::{Function, Program};
use llmc_kernels::layout::{ALIGN, KvLayout, PAGE};
use llmc_kernels::ops::step::{self, Run};
use llmc_kernels::{Schedule, Target};

/// Limits of a step.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most tokens of a step.
    pub tokens: usize,
    /// Most rows whose logits a step gives.
    pub rows: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { tokens: 512, rows: 64 }
    }
}

/// One target's code.
#[derive(Clone, Debug)]
pub struct VariantPlan {
    /// The target.
    pub target: Target,
    /// Kernels and the step, which is the last function.
    pub program: Program,
    /// The same for GPUs of one generation, and the target that these are.
    pub tuned: Option<(Target, Program)>,
    /// Symbol of the step.
    pub symbol: String,
    /// Scratch memory.
    pub scratch: Scratch,
    /// Phases of a step.
    pub phases: Vec<PhaseInfo>,
    /// Where a worker is a group of threads.
    pub group: Option<GroupInfo>,
}

impl VariantPlan {
    /// The programs with their targets: the plain one first.
    pub fn programs(&self) -> impl Iterator<Item = (&Target, &Program)> {
        let tuned = self.tuned.as_ref().map(|(target, program)| (target, program));
        [(&self.target, &self.program)].into_iter().chain(tuned)
    }
}

/// Everything an artifact will do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Code for each target, in the order asked for.
    pub variants: Vec<VariantPlan>,
    /// Where packed weights lie; the same for all targets.
    pub weights: WeightsPlan,
    /// Layout of the KV cache.
    pub kv: KvInfo,
    /// Limits of a step.
    pub step: StepInfo,
}

/// Lowers a module for each target; `max_vector_bytes` is the widest vector of the back end.
///
/// # Errors
/// If an op has no kernel in the form found, or sizes do not fit.
pub fn plan(
    module: &Module,
    _info: &ModuleInfo,
    targets: &[Target],
    max_vector_bytes: usize,
    options: Options,
) -> Result<Plan> {
    let kv = kv_layouts(module)?;
    let mut weights = None;
    let mut variants = Vec::new();
    for target in targets {
        for (schedule, tokens) in forms(target, max_vector_bytes, options) {
            let limits = Options { tokens, rows: options.rows.min(tokens) };
            let name = target.name.as_str();
            let target = &Target { unrolls: schedule.tiles || !target.is_gpu(), ..target.clone() };
            let (mut all, packed) = variant(module, (target, name), schedule, &kv, limits)?;
            if let Some(target) = target.tuned() {
                let program = variant(module, (&target, name), schedule, &kv, limits)?.0.program;
                all.tuned = Some((target, program));
            }
            variants.push(all);
            weights.get_or_insert(packed);
        }
    }
    let weights = weights.ok_or_else(|| Error::Limit("a plan needs at least one target".into()))?;
    let dtype = module.kv.first().map_or(DType::F16, |k| k.dtype);
    let [places, counts] = kv.places();
    let (dtype, page_bytes) = (dtype.to_string(), kv.page_bytes);
    let kv = KvInfo { dtype, page_positions: PAGE, page_bytes, keep: None, places, counts };
    Ok(Plan { variants, weights, kv, step: StepInfo { tokens: options.tokens, rows: options.rows } })
}

/// Name of a packed tensor that no parameter goes into.
pub const CONSTANT: &str = "constant";

/// Most tokens of a step of a GPU that multiplies rows one by one, of one that multiplies by tiles, and of one that
/// decodes a single sequence.
const GPU_TOKENS: [usize; 3] = [8, 2048, 1];

/// The forms that a target's step has: tiling, and most tokens.
fn forms(target: &Target, max_vector_bytes: usize, options: Options) -> Vec<(Schedule, usize)> {
    let schedule = Schedule::new(target, max_vector_bytes);
    match target.is_gpu() {
        false => vec![(schedule, options.tokens)],
        true => GPU_TOKENS.map(|tokens| (Schedule { tiles: tokens > GPU_TOKENS[0], ..schedule }, tokens)).to_vec(),
    }
}

/// Layouts of the layers' caches in a page.
#[derive(Clone, Debug)]
pub struct KvLayouts {
    /// Layout and byte offset of each layer.
    pub layers: Vec<(KvLayout, usize)>,
    /// Bytes of a page.
    pub page_bytes: usize,
}

impl KvLayouts {
    /// Where keys and values of a position lie in a page, where attention is counted, and where it is counted.
    fn places(&self) -> [Vec<KvPlaces>; 2] {
        let counted = || self.layers.iter().filter(|(layout, _)| layout.counted);
        let places = counted().flat_map(|(layout, offset)| layout.places(*offset)).collect();
        [places, counted().filter_map(|(layout, offset)| layout.counts(*offset)).collect()]
    }
}

fn kv_layouts(module: &Module) -> Result<KvLayouts> {
    let mut ops = module.blocks.iter().flat_map(|b| b.graph.nodes().map(|n| b.graph.op(n)));
    let counted = ops.any(|op| matches!(op, Op::SinkAttention { counted: true, .. }));
    let mut layers = Vec::new();
    let mut page_bytes = 0;
    for (i, kv) in module.kv.iter().enumerate() {
        let elem_bytes = match kv.dtype {
            DType::F16 | DType::F32 | DType::I8 | DType::E4m3 => kv.dtype.size(),
            other => {
                return Err(Error::Limit(format!("KV cache {i} of type {other}; choose --kv f16, f32, int8 or fp8")));
            }
        };
        let is_e4m3 = kv.dtype == DType::E4m3;
        let layout = KvLayout { heads: kv.heads, head_dim: kv.head_dim, elem_bytes, is_e4m3, counted };
        layers.push((layout, page_bytes));
        page_bytes += layout.layer_bytes();
    }
    Ok(KvLayouts { layers, page_bytes: page_bytes.max(ALIGN) })
}

/// What lowering of blocks needs to know.
pub struct Context<'a> {
    /// The module.
    pub module: &'a Module,
    /// Whether workers are groups of threads.
    pub is_gpu: bool,
    /// Prefix of kernel symbols.
    pub prefix: String,
    /// Register tiling.
    pub schedule: Schedule,
    /// Limits of a step.
    pub limits: StepLimits,
    /// Scratch memory of the whole step.
    pub scratch: Scratch,
    /// Places of named values.
    pub globals: Globals,
    /// Bytes of a KV page.
    pub kv: &'a KvLayouts,
}

/// A variant whose symbols are of the target called `name`.
fn variant(
    module: &Module,
    (target, name): (&Target, &str),
    schedule: Schedule,
    kv: &KvLayouts,
    options: Options,
) -> Result<(VariantPlan, WeightsPlan)> {
    let limits = StepLimits { tokens: options.tokens, rows: options.rows };
    let form = match options.tokens {
        1 if target.is_gpu() => "_one",
        _ if schedule.tiles => "_tiles",
        _ => "",
    };
    let symbol = step_symbol(name) + form;
    let mut cx = Context {
        module,
        is_gpu: target.is_gpu(),
        prefix: name.replace(['-', ':'], "_"),
        schedule,
        limits,
        scratch: Scratch {
            shared: target.shared_bytes(),
            engine: target.has_copy_engine(),
            wgmma: target.has_wgmma(),
            ..Scratch::of_threads(target.threads)
        },
        globals: Globals::place(&module.blocks, limits),
        kv,
    };
    // Kernels hold the arena's size as a constant, which is known when all blocks are laid out:
    // the first round measures, the second one emits.
    let mut phases = Phases::default();
    let measured = lower_blocks(&cx, &mut Vec::new(), &mut phases)?;
    cx.scratch = Scratch {
        arena_bytes: measured.iter().map(|b| b.arena_bytes).max().unwrap_or(0).next_multiple_of(ALIGN),
        worker_bytes: measured.iter().map(|b| b.worker_bytes).max().unwrap_or(0).next_multiple_of(ALIGN),
        between: measured.iter().map(|b| b.between).max().unwrap_or(0),
        counters: (SYNC_PHASES + 8 * phases.list.len()).next_multiple_of(ALIGN),
        ..cx.scratch
    };
    let counters = measured.iter().map(|b| b.counters).max().unwrap_or(0);
    let (mut functions, mut phases) = (Vec::new(), Phases::default());
    let blocks = lower_blocks(&cx, &mut functions, &mut phases)?;
    let runs = group(module);
    let (weights, bases) = lay_out_weights(&blocks, &runs)?;
    let steps: Vec<Run> = runs.iter().zip(bases).map(|(run, base)| step_run(module, kv, &blocks, run, base)).collect();
    functions.push(step::build(&symbol, &steps));
    let program = Program { functions };
    let group = target.is_gpu().then(|| GroupInfo {
        kernel: kernel_symbol(&symbol),
        threads: target.threads,
        tokens: options.tokens,
        sync_bytes: cx.scratch.counters + 4 * counters,
    });
    let plan = VariantPlan {
        target: target.clone(),
        program,
        tuned: None,
        symbol,
        scratch: cx.scratch,
        phases: phases.list,
        group,
    };
    Ok((plan, weights))
}

fn lower_blocks(cx: &Context<'_>, functions: &mut Vec<Function>, phases: &mut Phases) -> Result<Vec<BlockPlan>> {
    let counts = calls_per_block(cx.module);
    let mut shared = SharedItems::default();
    let mut plans = Vec::new();
    for (i, block) in cx.module.blocks.iter().enumerate() {
        let first = phases.list.len();
        let call = cx.module.calls.iter().find(|c| c.block.0 as usize == i);
        let Some(call) = call else {
            return Err(Error::Limit(format!("block {} is never called; remove it", block.name)));
        };
        let single = counts[i] == 1;
        plans.push(lower_block(cx, block, call, single.then_some(&mut shared), functions, phases)?);
        phases.repeat(first, counts[i]);
    }
    Ok(plans)
}

/// Items of blocks that are called once, at absolute offsets.
#[derive(Debug, Default)]
pub struct SharedItems {
    /// The items with what they are made of.
    pub items: Vec<(Vec<String>, BoundItem)>,
    /// Bytes of all of them.
    pub bytes: usize,
}

impl SharedItems {
    /// Offset of an item of call `call`, which is added if no equal one is there.
    pub fn place(&mut self, module: &Module, call: usize, item: Item) -> usize {
        let call_of = &module.calls[call];
        let names: Vec<String> = item.sources.iter().map(|s| describe(s, call_of, module)).collect();
        if let Some((_, old)) = self.items.iter().find(|(n, old)| *n == names && old.item.layout == item.layout) {
            return old.item.offset;
        }
        let offset = self.bytes;
        self.bytes += item.layout.bytes().next_multiple_of(ALIGN);
        self.items.push((names, BoundItem { call, item: Item { offset, ..item } }));
        offset
    }
}

/// Offsets of all items, and the base of each run's weights.
fn lay_out_weights(blocks: &[BlockPlan], runs: &[CallRun]) -> Result<(WeightsPlan, Vec<usize>)> {
    let too_big = || Error::Limit("the packed weights do not fit 63-bit offsets".into());
    let mut plan = WeightsPlan::default();
    for block in blocks {
        plan.items.extend(block.shared.iter().cloned());
    }
    plan.bytes = plan.items.iter().map(|i| i.item.offset + i.item.layout.bytes()).max().unwrap_or(0);
    plan.bytes = plan.bytes.next_multiple_of(ALIGN);
    let mut bases = Vec::new();
    for run in runs {
        let weights = &blocks[run.block.0 as usize].weights;
        bases.push(if weights.items.is_empty() { 0 } else { plan.bytes });
        for i in 0..run.count {
            let base = plan.bytes + i * weights.bytes;
            let bound = weights.items.iter().map(|item| BoundItem {
                call: run.first + i,
                item: Item { offset: base + item.offset, ..item.clone() },
            });
            plan.items.extend(bound);
        }
        let bytes = run.count.checked_mul(weights.bytes).ok_or_else(too_big)?;
        plan.bytes = plan.bytes.checked_add(bytes).filter(|b| *b < isize::MAX as usize).ok_or_else(too_big)?;
    }
    plan.items.sort_by_key(|i| i.item.offset);
    Ok((plan, bases))
}

fn step_run(module: &Module, kv: &KvLayouts, blocks: &[BlockPlan], run: &CallRun, base: usize) -> Run {
    let block = &blocks[run.block.0 as usize];
    let layer = module.calls[run.first].kv.map(|l| &kv.layers[l as usize]);
    Run {
        count: run.count,
        weights: base,
        weights_stride: block.weights.bytes,
        kv: layer.map_or(0, |(_, offset)| *offset),
        kv_stride: layer.map_or(0, |(layout, _)| layout.layer_bytes()),
        actions: block.actions.clone(),
        ahead: block.ahead.clone(),
    }
}

impl Plan {
    /// Descriptions of the packed tensors, for the manifest.
    pub fn tensors(&self, module: &Module) -> Vec<TensorInfo> {
        let mut out = Vec::new();
        for bound in &self.weights.items {
            let call = &module.calls[bound.call];
            let names: Vec<&str> = bound.item.sources.iter().flat_map(|s| params_of(s, call, module)).collect();
            let (scheme, shape) = match &bound.item.layout {
                PackLayout::Panels { format, k, units } => (format.to_string(), vec![units.n * units.sources, *k]),
                PackLayout::Vector { units } => ("f32".into(), vec![units.n * units.sources]),
                PackLayout::Table(_) => ("i8".into(), vec![bound.item.layout.bytes()]),
            };
            out.push(TensorInfo {
                name: if names.is_empty() { CONSTANT.into() } else { names.join("+") },
                scheme,
                shape,
                offset: bound.item.offset as u64,
                bytes: bound.item.layout.bytes() as u64,
            });
        }
        out
    }

    /// Weight bytes that one decoded token reads.
    pub fn weight_bytes_per_token(&self) -> u64 {
        self.variants.first().map_or(0, |v| v.phases.iter().map(|p| p.weight_bytes).sum())
    }
}
