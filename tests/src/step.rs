//! Steps of a whole model without an executable: compiled into this process, or on the kernel IR's
//! interpreter, which checks every access.
//!
//! Memory that a step must not depend on holds NaN, or in the interpreter nothing that may be read.

mod emulated;

pub use emulated::Foreign;

use crate::amx;
use llmc_abi::StepArgs;
use llmc_abi::manifest::KvInfo;
use llmc_abi::step::{STEP_FIELDS, Sampling};
use llmc_ir::interp::Interp;
use llmc_ir::{Module, ParamSource};
use llmc_jit::{Loaded, Region};
use llmc_kernels::kir::Program;
use llmc_kernels::kir::interp::{Addr, Compiled, InterpError, Machine, Order};
use llmc_kernels::layout::PAGE;
use llmc_kernels::{Backend, Target};
use llmc_lower::{Plan, pack};
use llmc_models::BuildOptions;
use llmc_passes::{Choice, Pruning, TargetFacts};
use std::collections::BTreeMap;
use std::path::Path;

/// A planned model with its packed weights.
#[derive(Debug)]
pub struct Model {
    /// The plan for one target.
    pub plan: Plan,
    /// Packed weights.
    pub weights: Vec<u8>,
    /// Logits per row.
    pub vocab: usize,
    /// Which of the plan's variants runs.
    pub variant: usize,
}

/// How to plan a model.
#[derive(Clone, Debug)]
pub struct Planning {
    /// How to build it.
    pub build: BuildOptions,
    /// Rule applications allowed.
    pub fuel: Option<u32>,
    /// How weights are stored, and what meets them.
    pub choice: Choice,
    /// What is left out.
    pub pruning: Pruning,
    /// Target.
    pub target: Target,
    /// Bytes of the widest vector.
    pub vector_bytes: usize,
    /// Most tokens of a step, and most rows.
    pub tokens: usize,
}

impl Planning {
    /// All rules, weights as stored, nothing left out, for this machine.
    pub fn plain(build: BuildOptions, vector_bytes: usize, tokens: usize) -> Planning {
        let target = Target::best(amx::native()).expect("this machine runs the weakest level");
        let (choice, pruning) = (Choice::default(), Pruning::default());
        Planning { build, fuel: None, choice, pruning, target, vector_bytes, tokens }
    }
}

impl Model {
    /// Plans the model in `folder`. Panics with the reason if that fails.
    pub fn new(folder: &Path, how: &Planning) -> Model {
        let opened = llmc_models::open(folder).unwrap_or_else(|e| panic!("{e}"));
        let module = llmc_models::build(&opened, &how.build).unwrap_or_else(|e| panic!("{e}"));
        Model::of(module, &opened.checkpoint, how, opened.spec.vocab).0
    }

    /// Plans a module whose weights are `params`; also the module after the passes.
    pub fn of(mut module: Module, params: &dyn ParamSource, how: &Planning, vocab: usize) -> (Model, Module) {
        let plan = plan(&mut module, how);
        let mut weights = vec![0; plan.weights.bytes];
        let mut store = |offset: u64, bytes: &[u8]| {
            weights[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        };
        pack::pack(&module, &plan.weights, params, &mut store).unwrap_or_else(|e| panic!("{e}"));
        (Model { plan, weights, vocab, variant: 0 }, module)
    }

    /// A module's plan, without weights; see [`Native::sparse`].
    pub fn without_weights(module: &mut Module, how: &Planning, vocab: usize) -> Model {
        Model { plan: plan(module, how), weights: vec![], vocab, variant: 0 }
    }

    /// Kernels and the step.
    pub fn program(&self) -> &Program {
        &self.plan.variants[self.variant].program
    }

    fn entry(&self) -> &str {
        &self.plan.variants[self.variant].symbol
    }

    fn arena_bytes(&self, workers: usize) -> usize {
        let scratch = self.plan.variants[self.variant].scratch;
        scratch.arena_bytes + workers * scratch.worker_bytes
    }
}

/// Logits of all tokens by the meaning of the ops that the graph of a planned model has.
pub fn meaning(folder: &Path, how: &Planning, ids: &[i32]) -> Vec<f32> {
    let opened = llmc_models::open(folder).unwrap_or_else(|e| panic!("{e}"));
    let mut module = llmc_models::build(&opened, &how.build).unwrap_or_else(|e| panic!("{e}"));
    plan(&mut module, how);
    let positions: Vec<i32> = (0..ids.len() as i32).collect();
    let mut interp = Interp::new(&module, &opened.checkpoint);
    let logits = interp.step(ids, &positions, &vec![0; ids.len()], &positions).unwrap_or_else(|e| panic!("{e}"));
    logits.as_f32().expect("logits are f32").to_vec()
}

fn plan(module: &mut Module, how: &Planning) -> Plan {
    let facts = TargetFacts::named(&how.target.name).expect("every target has facts");
    let passes = llmc_passes::Options {
        fuel: how.fuel,
        choices: vec![how.choice],
        pruning: how.pruning.clone(),
        ..llmc_passes::Options::new(facts)
    };
    llmc_passes::run(module, &passes).unwrap_or_else(|e| panic!("{e}"));
    let info = llmc_ir::verify(module).unwrap_or_else(|e| panic!("{e}"));
    let limits = llmc_lower::Options { tokens: how.tokens, rows: how.tokens };
    let plan = llmc_lower::plan(module, &info, std::slice::from_ref(&how.target), how.vector_bytes, limits);
    plan.unwrap_or_else(|e| panic!("{e}"))
}

/// The tokens of one step.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Token ids.
    pub ids: Vec<i32>,
    /// Position of each token.
    pub positions: Vec<i32>,
    /// Sequence of each token.
    pub seqs: Vec<i32>,
    /// Tokens whose logits are wanted.
    pub rows: Vec<i32>,
}

impl Step {
    /// Tokens of one sequence from position `start` on, all logits wanted.
    pub fn of(seq: i32, start: usize, ids: &[i32]) -> Step {
        let mut step = Step::default();
        ids.iter().enumerate().for_each(|(i, id)| step.push(seq, start + i, *id));
        step
    }

    /// Adds a token whose logits are wanted.
    pub fn push(&mut self, seq: i32, position: usize, id: i32) {
        self.rows.push(self.ids.len() as i32);
        self.ids.push(id);
        self.positions.push(position as i32);
        self.seqs.push(seq);
    }

    fn arrays<'a>(&'a self, pages: &'a Pages) -> [(&'static str, &'a [i32]); 5] {
        let Step { ids, positions, seqs, rows } = self;
        [("ids", ids), ("positions", positions), ("seqs", seqs), ("rows", rows), ("page_table", &pages.table)]
    }

    fn counts(&self, pages: &Pages) -> [(&'static str, u64); 5] {
        [
            ("n_tokens", self.ids.len() as u64),
            ("n_rows", self.rows.len() as u64),
            ("n_seqs", (pages.table.len() / pages.stride) as u64),
            ("page_table_stride", pages.stride as u64),
            ("sync", 0),
        ]
    }
}

/// Which page each block of each sequence has.
#[derive(Clone, Debug)]
pub struct Pages {
    table: Vec<i32>,
    stride: usize,
}

impl Pages {
    /// Pages from `first` on for `sequences` sequences of `positions` positions, in turns, so that no
    /// sequence's pages lie together.
    pub fn new(first: i32, sequences: usize, positions: usize) -> Pages {
        let stride = positions.div_ceil(PAGE);
        let page = |i: usize| first + (i % stride * sequences + i / stride) as i32;
        Pages { table: (0..sequences * stride).map(page).collect(), stride }
    }

    fn end(&self) -> usize {
        self.table.iter().max().map_or(0, |p| *p as usize + 1)
    }

    fn first(&self) -> usize {
        self.table.iter().min().map_or(0, |p| *p as usize)
    }
}

/// [`StepArgs`] as bytes.
fn arguments(values: &BTreeMap<&str, u64>) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<StepArgs>()];
    for (name, offset) in STEP_FIELDS {
        bytes[offset..offset + 8].copy_from_slice(&values[name].to_le_bytes());
    }
    bytes
}

/// [`Sampling`] as bytes.
fn sampling(s: Sampling) -> Vec<u8> {
    s.words().iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Something that runs steps.
pub trait Runner {
    /// Runs a step and gives the logits of its rows.
    fn step(&mut self, step: &Step) -> Vec<f32>;
}

/// Logits of all tokens of sequence `seq`, given in chunks.
pub fn prefill(runner: &mut dyn Runner, seq: i32, ids: &[i32], chunk: usize) -> Vec<f32> {
    let chunks = ids.chunks(chunk).enumerate();
    chunks.flat_map(|(i, part)| runner.step(&Step::of(seq, i * chunk, part))).collect()
}

fn region(bytes: usize) -> Region {
    Region::new(bytes).unwrap_or_else(|e| panic!("{e}"))
}

fn region_of(bytes: &[u8]) -> Region {
    Region::of(bytes).unwrap_or_else(|e| panic!("{e}"))
}

/// A byte of which four make a NaN.
const POISON: u8 = 0xff;

/// A compiled model in this process.
pub struct Native<'a> {
    model: &'a Model,
    code: Loaded,
    pages: Pages,
    /// Threads of each step.
    pub workers: usize,
    weights: Region,
    kv: Region,
}

impl<'a> Native<'a> {
    /// Compiles the model's step for this machine: of the target it was planned for, code uses what is there.
    pub fn new(model: &'a Model, backend: &dyn Backend, pages: Pages, workers: usize) -> Native<'a> {
        Native::compile(model, backend, (pages, workers), region_of(&model.weights), amx::native())
    }

    /// The same with AMX tiles, which are emulated if they are not there.
    pub fn with_tiles(model: &'a Model, backend: &dyn Backend, pages: Pages, workers: usize) -> Native<'a> {
        Native::compile(model, backend, (pages, workers), region_of(&model.weights), amx::with_tiles())
    }

    /// The same with weights that are zero but for what `fill` writes.
    pub fn sparse(model: &'a Model, backend: &dyn Backend, workers: usize, fill: impl Fn(&mut Region)) -> Native<'a> {
        let mut weights = region(model.plan.weights.bytes);
        fill(&mut weights);
        Native::compile(model, backend, (Pages::new(0, 1, PAGE), workers), weights, amx::native())
    }

    fn compile(
        model: &'a Model,
        backend: &dyn Backend,
        (pages, workers): (Pages, usize),
        weights: Region,
        features: u64,
    ) -> Native<'a> {
        let target = &model.plan.variants[model.variant].target;
        let here = Target { features: target.features & features, ..target.clone() };
        let objects = backend.compile(model.program(), &here).unwrap_or_else(|e| panic!("{e}"));
        let page_bytes = model.plan.kv.page_bytes;
        let mut kv = region(pages.end() * page_bytes);
        for page in pages.first()..pages.end() {
            kv.slice(page * page_bytes, page_bytes).copy_from_slice(&unwritten(&model.plan.kv, POISON));
        }
        Native { model, code: llmc_jit::load(&objects).unwrap_or_else(|e| panic!("{e}")), pages, workers, weights, kv }
    }
}

impl Native<'_> {
    /// How much attention the positions of the first sequence got: for each layer and key head a list.
    pub fn counts(&mut self, positions: usize) -> Vec<Vec<f32>> {
        let info = &self.model.plan.kv;
        let heads = info.counts.iter().flat_map(|c| (0..c.heads).map(|h| c.offset + h * c.stride));
        let of_head = |kv: &mut Region, at: usize| -> Vec<f32> {
            let pages = self.pages.table.iter().map(|page| *page as usize * info.page_bytes + at);
            pages.flat_map(|at| floats(kv.slice(at, 4 * PAGE))).take(positions).collect()
        };
        heads.map(|at| of_head(&mut self.kv, at)).collect()
    }
}

/// A page that nothing has written to, but for counts, which begin at zero.
fn unwritten(info: &KvInfo, poison: u8) -> Vec<u8> {
    let mut page = vec![poison; info.page_bytes];
    for counts in &info.counts {
        (0..counts.heads).for_each(|h| page[counts.offset + h * counts.stride..][..4 * PAGE].fill(0));
    }
    page
}

impl Runner for Native<'_> {
    fn step(&mut self, step: &Step) -> Vec<f32> {
        let mut arena = region(self.model.arena_bytes(self.workers));
        arena.slice(0, arena.bytes()).fill(POISON);
        let mut logits = region(step.rows.len() * self.model.vocab * 4);
        let lists = step.arrays(&self.pages).map(|(name, list)| {
            let bytes: Vec<u8> = list.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name, region_of(&bytes))
        });
        let mut values: BTreeMap<&str, u64> = step.counts(&self.pages).into();
        values.extend(lists.iter().map(|(name, region)| (*name, region.base() as u64)));
        let memory = [("weights", &self.weights), ("kv", &self.kv), ("arena", &arena), ("logits", &logits)];
        values.extend(memory.map(|(name, region)| (name, region.base() as u64)));
        values.extend([("sampled", 0), ("sampling", 0)]);
        let args = region_of(&arguments(&values));
        // SAFETY: the arguments fulfil the step's contract: all buffers are as large as planned.
        unsafe { self.code.run(self.model.entry(), args.base(), self.workers) }.unwrap_or_else(|e| panic!("{e}"));
        floats(logits.slice(0, step.rows.len() * self.model.vocab * 4))
    }
}

/// A model on the kernel IR's interpreter.
pub struct Interpreted<'a> {
    model: &'a Model,
    program: Compiled<'a>,
    machine: Machine,
    pages: Pages,
    workers: usize,
    order: Order,
    weights: Addr,
    kv: Addr,
    /// Counters of groups, which steps leave as they were.
    sync: Addr,
    /// How groups choose tokens.
    pub sampling: Sampling,
    /// Tokens that the last step has chosen, if it was asked to.
    pub chosen: Vec<i32>,
}

impl<'a> Interpreted<'a> {
    /// The model with workers that run in the order given between two barriers.
    pub fn new(model: &'a Model, pages: Pages, workers: usize, order: Order) -> Interpreted<'a> {
        let mut machine = Machine::new();
        let weights = machine.alloc_readonly(model.weights.clone());
        // Attention loads whole blocks of keys, also those positions that are not written yet.
        let variant = &model.plan.variants[model.variant];
        // A group multiplies by zero what lies behind a sequence's end: it has to be finite.
        let poison = if variant.group.is_some() { 0 } else { POISON };
        let kv = machine.alloc(unwritten(&model.plan.kv, poison).repeat(pages.end()));
        let sync = machine.alloc(vec![0; variant.group.as_ref().map_or(0, |g| g.sync_bytes)]);
        let program = Compiled::new(model.program());
        let (sampling, chosen) = (Sampling::NONE, vec![]);
        Interpreted { model, program, machine, pages, workers, order, weights, kv, sync, sampling, chosen }
    }

    /// Runs a step and gives the logits of its rows.
    ///
    /// # Errors
    /// If an access is outside a buffer, reads what was not written, or races.
    pub fn try_step(&mut self, step: &Step) -> Result<Vec<f32>, InterpError> {
        let mut values: BTreeMap<&str, u64> = step.counts(&self.pages).into();
        for (name, list) in step.arrays(&self.pages) {
            let bytes = list.iter().flat_map(|v| v.to_le_bytes()).collect();
            values.insert(name, self.machine.alloc_readonly(bytes).0);
        }
        let arena = self.machine.alloc_uninit(self.model.arena_bytes(self.workers));
        let logits = self.machine.alloc_uninit(step.rows.len() * self.model.vocab * 4);
        let sampled = self.machine.alloc_uninit(step.rows.len() * 8);
        let sampling = self.machine.alloc_readonly(sampling(self.sampling));
        let memory = [
            ("weights", self.weights),
            ("kv", self.kv),
            ("arena", arena),
            ("logits", logits),
            ("sync", self.sync),
            ("sampled", sampled),
            ("sampling", sampling),
        ];
        values.extend(memory.map(|(name, addr)| (name, addr.0)));
        let args = self.machine.alloc_readonly(arguments(&values));
        let threads = self.model.plan.variants[self.model.variant].target.threads;
        self.machine.run_groups(&self.program, self.model.entry(), args, self.workers, threads, self.order)?;
        if self.sampling.choose != 0 {
            let bytes = &self.machine.buffer(sampled)[..step.rows.len() * 4];
            self.chosen =
                bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
        }
        Ok(floats(self.machine.buffer(logits)))
    }
}

impl Runner for Interpreted<'_> {
    fn step(&mut self, step: &Step) -> Vec<f32> {
        let (workers, order) = (self.workers, self.order);
        self.try_step(step).unwrap_or_else(|e| panic!("{workers} workers, {order:?}: {e}"))
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let four = |b: &[u8]| f32::from_le_bytes(b.try_into().expect("four bytes"));
    bytes.chunks_exact(4).map(four).collect()
}
