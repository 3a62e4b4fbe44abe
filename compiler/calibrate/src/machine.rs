//! Compiles pieces into this process and runs them.

use crate::pieces::STREAM;
use crate::{Error, Result};
use llmc_abi::StepArgs;
use llmc_ir::{BlockId, MemoryParams, Module, Overlay, ParamSource, Tensor};
use llmc_jit::{Loaded, Region};
use llmc_kernels::layout::PAGE;
use llmc_kernels::{Backend, Target};
use llmc_lower::weights::params_of;
use llmc_lower::{Plan, WeightsPlan, pack};
use llmc_passes::TargetFacts;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a model is measured with.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// The module as it was built, products and cache in f32.
    pub module: &'a Module,
    /// Its weights.
    pub params: &'a dyn ParamSource,
    /// The code generator.
    pub backend: &'a dyn Backend,
    /// What the code is for: this machine.
    pub target: &'a Target,
    /// Bytes of the widest vector that the code generator keeps in a register.
    pub vector_bytes: usize,
    /// Threads.
    pub workers: usize,
}

/// What pieces with the same code have in common: a block and what is wanted of it.
pub type Kind = (BlockId, &'static str);

/// Compiled pieces by kind.
#[derive(Default)]
pub struct Compiled(BTreeMap<Kind, Arc<Loaded>>);

/// Most tokens of a window.
pub const WINDOW: usize = 512;

/// A piece that can run.
pub struct Machine<'a> {
    setup: Setup<'a>,
    module: Module,
    plan: Plan,
    code: Arc<Loaded>,
    weights: Region,
    kv: Region,
    arena: Region,
    width: usize,
}

impl<'a> Machine<'a> {
    /// Optimizes, plans and compiles a piece, and packs its weights.
    ///
    /// # Errors
    /// If a stage of the compiler fails.
    pub fn new(setup: Setup<'a>, mut module: Module, kind: Kind, compiled: &mut Compiled) -> Result<Machine<'a>> {
        let facts = TargetFacts::named(&setup.target.name)?;
        llmc_passes::run(&mut module, &llmc_passes::Options::new(facts))?;
        let info = llmc_ir::verify(&module)?;
        let targets = std::slice::from_ref(setup.target);
        let limits = llmc_lower::Options { tokens: WINDOW, rows: WINDOW };
        let plan = llmc_lower::plan(&module, &info, targets, setup.vector_bytes, limits)?;
        let code = match compiled.0.get(&kind) {
            Some(code) => code.clone(),
            None => {
                let failed = |e: llmc_kernels::BackendError| Error::Backend(e.to_string());
                let objects = setup.backend.compile(&plan.variants[0].program, setup.target).map_err(failed)?;
                let code = Arc::new(llmc_jit::load(&objects)?);
                compiled.0.insert(kind, code.clone());
                code
            }
        };
        let scratch = plan.variants[0].scratch;
        let mut machine = Machine {
            setup,
            weights: Region::new(plan.weights.bytes)?,
            kv: Region::new(WINDOW.div_ceil(PAGE) * plan.kv.page_bytes)?,
            arena: Region::new(scratch.arena_bytes + setup.workers * scratch.worker_bytes)?,
            width: info.vocab(),
            module,
            plan,
            code,
        };
        machine.pack(None)?;
        Ok(machine)
    }

    /// Values in a row of what the piece gives.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Gives the piece the residual stream, row-major.
    ///
    /// # Errors
    /// If it cannot be packed.
    pub fn set_stream(&mut self, stream: Vec<f32>, width: usize) -> Result<()> {
        let tensor = Tensor::f32(&[stream.len() / width, width], stream);
        self.pack(Some(tensor))
    }

    /// Packs the stream, or everything else.
    fn pack(&mut self, stream: Option<Tensor>) -> Result<()> {
        let calls = &self.module.calls;
        let reads_stream = |bound: &llmc_lower::weights::BoundItem| {
            let names = bound.item.sources.iter().flat_map(|e| params_of(e, &calls[bound.call], &self.module));
            names.into_iter().any(|n| n == STREAM)
        };
        let wanted = self.plan.weights.items.iter().filter(|b| reads_stream(b) == stream.is_some());
        let items = WeightsPlan { items: wanted.cloned().collect(), bytes: self.plan.weights.bytes };
        let own = MemoryParams(stream.map(|s| (STREAM.into(), s)).into_iter().collect());
        let params = Overlay { own: &own, base: self.setup.params };
        let weights = &mut self.weights;
        let mut store = |offset: u64, bytes: &[u8]| {
            weights.slice(offset as usize, bytes.len()).copy_from_slice(bytes);
            Ok(())
        };
        Ok(pack::pack(&self.module, &items, &params, &mut store)?)
    }

    /// Runs the tokens of one sequence from its start; what the piece gives for tokens `rows`.
    ///
    /// # Errors
    /// If memory is refused.
    ///
    /// # Panics
    /// If there are more tokens or rows than [`WINDOW`].
    pub fn run(&mut self, ids: &[i32], rows: std::ops::Range<usize>) -> Result<Vec<f32>> {
        assert!(ids.len() <= WINDOW && rows.len() <= WINDOW && rows.end <= ids.len(), "a window at a time");
        let positions: Vec<i32> = (0..ids.len() as i32).collect();
        let rows: Vec<i32> = rows.map(|r| r as i32).collect();
        let pages: Vec<i32> = (0..WINDOW.div_ceil(PAGE) as i32).collect();
        let bytes = |list: &[i32]| list.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let seqs = Region::new(ids.len() * 4)?;
        let [ids_memory, positions, pages_memory] =
            [bytes(ids), bytes(&positions), bytes(&pages)].map(|b| Region::of(&b));
        let (ids_memory, positions, pages_memory) = (ids_memory?, positions?, pages_memory?);
        let rows_memory = Region::of(&bytes(&rows))?;
        let mut logits = Region::new(rows.len() * self.width * 4)?;
        let args = StepArgs {
            weights: self.weights.base(),
            arena: self.arena.base(),
            kv: self.kv.base(),
            logits: logits.base().cast(),
            ids: ids_memory.base().cast(),
            positions: positions.base().cast(),
            seqs: seqs.base().cast(),
            rows: rows_memory.base().cast(),
            page_table: pages_memory.base().cast(),
            page_table_stride: pages.len() as i64,
            n_tokens: ids.len() as i64,
            n_rows: rows.len() as i64,
            n_seqs: 1,
            sync: std::ptr::null_mut(),
            sampled: std::ptr::null_mut(),
            sampling: std::ptr::null(),
        };
        // SAFETY: the symbol is a step, and the arguments fulfil its contract: every buffer is as large as the
        // plan says, and pages exist for all positions of a window.
        unsafe { self.code.run(&self.plan.variants[0].symbol, (&raw const args).cast(), self.setup.workers) }?;
        let four = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        Ok(logits.slice(0, rows.len() * self.width * 4).chunks_exact(4).map(four).collect())
    }
}
