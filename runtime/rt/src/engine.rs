//! One model in memory: its compiled step, weights, scratch, KV cache and workers.
//!
//! All buffers are made at the start; a step allocates nothing. The engine knows nothing of text.

mod ahead;

use std::ffi::c_void;

use llmc_abi::manifest::{Keep, PAGE_POSITIONS};
use llmc_abi::{Manifest, StepArgs, StepFn};

use crate::cuda::Inputs;
use crate::cuda::step::GpuStep;
use crate::error::{Error, Result};
use crate::kv::KvCache;
use crate::memory::{self, Memory, Request};
use crate::sys::mmap::Mapping;
use crate::sys::step::StepCall;
use crate::workers::Workers;
use crate::workers::barrier::StepSync;
use crate::workers::profile::Profile;

/// Most tokens of a step that this engine accepts, so that buffers and indices stay in range.
const MAX_STEP: usize = 1 << 20;

/// A model ready to run.
pub struct Engine {
    runner: Runner,
    weights: &'static [u8],
    workers: Workers,
    sync: Box<StepSync>,
    kv: KvCache,
    arena: Mapping,
    logits: Mapping,
    inputs: Lists,
    vocab: usize,
    /// Positions that a sequence may have; with `keep` it may have any number.
    context: usize,
    keep: Option<Keep>,
    limits: Limits,
    memory: Memory,
    variant: usize,
}

/// What runs a model's steps.
pub enum Runner {
    /// Its compiled step on the workers.
    Cpu(StepFn),
    /// Its kernel on a GPU.
    Gpu(Box<GpuStep>),
}

#[derive(Clone, Copy)]
struct Limits {
    tokens: usize,
    rows: usize,
}

/// Integer inputs of a step, at addresses that never change.
struct Lists {
    ids: Mapping,
    positions: Mapping,
    seqs: Mapping,
    rows: Mapping,
}

impl Lists {
    fn new(limits: Limits) -> Result<Self> {
        let list = |len: usize| Mapping::reserve(len * size_of::<i32>());
        Ok(Self {
            ids: list(limits.tokens)?,
            positions: list(limits.tokens)?,
            seqs: list(limits.tokens)?,
            rows: list(limits.rows)?,
        })
    }
}

/// How to run a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Index of the variant that runs.
    pub variant: usize,
    /// Workers; none means as many as the machine allows.
    pub threads: Option<usize>,
    /// Positions per sequence; none means the model's, capped to memory.
    pub context: Option<usize>,
    /// Sequences held at once; 0 counts as 1.
    pub sequences: usize,
}

/// Tokens of one step, all of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// No logits.
    None,
    /// Logits of the last token.
    Last,
    /// Logits of a range of the step's tokens.
    Range(usize, usize),
}

impl Engine {
    /// Reserves memory and starts the workers.
    ///
    /// # Errors
    ///
    /// Exit code 4 where the memory needed is not available, 3 where the manifest is inconsistent.
    ///
    /// # Safety
    ///
    /// `step` must be the compiled step of the manifest's variant `options.variant`, the CPU must have
    /// its features, and `weights` must be the section it was compiled for.
    pub unsafe fn new(
        manifest: &Manifest,
        mut runner: Runner,
        weights: &'static [u8],
        options: &Options,
    ) -> Result<Self> {
        let tokens = match runner {
            Runner::Cpu(_) => manifest.step.tokens,
            Runner::Gpu(_) => {
                manifest.variants.iter().filter_map(|v| Some(v.group.as_ref()?.tokens)).max().unwrap_or(0)
            }
        };
        let limits = Limits { tokens, rows: manifest.step.rows.min(tokens) };
        let broken = |what: &str| Error::input(format!("the artifact's manifest {what}; compile it again"));
        if !(1..=MAX_STEP).contains(&limits.tokens) || !(1..=MAX_STEP).contains(&limits.rows) {
            return Err(broken("has step limits out of range"));
        }
        if manifest.kv.keep.is_some_and(|keep| keep.by_use) && !manifest.kv.is_sound_by_use() {
            return Err(broken("has places of positions out of range"));
        }
        let phases = manifest.variants.get(options.variant).ok_or_else(|| broken("lacks the variant"))?.phases.len();
        let workers = Workers::start(options.threads)?;
        let sequences = options.sequences.max(1);
        let request =
            Request { variant: options.variant, workers: workers.count(), context: options.context, sequences };
        let context = match &runner {
            Runner::Cpu(_) => memory::choose_context(manifest, &request)?,
            Runner::Gpu(step) => memory::choose(manifest, &request, Some(step.gpu().memory_free()?))?,
        };
        let memory = Memory::of(manifest, options.variant, workers.count(), context, sequences)
            .ok_or_else(|| broken("has sizes out of range"))?;
        let kv = KvCache::new(&manifest.kv, context, sequences)?;
        if let Runner::Gpu(step) = &mut runner {
            step.reserve(&memory, limits.tokens.max(limits.rows), kv.stride() * sequences)?;
        }
        let arena = Mapping::reserve(memory.arena)?;
        arena.prefer_huge_pages();
        Ok(Self {
            runner,
            weights,
            sync: Box::new(StepSync::new(workers.spinning(), phases)),
            workers,
            kv,
            arena,
            logits: Mapping::reserve(memory.logits)?,
            inputs: Lists::new(limits)?,
            vocab: manifest.model.vocab,
            context,
            keep: manifest.kv.keep,
            limits,
            memory,
            variant: options.variant,
        })
    }

    /// Index of the variant that runs.
    pub fn variant(&self) -> usize {
        self.variant
    }

    /// The GPU it runs on, if it does.
    pub fn gpu(&self) -> Option<&GpuStep> {
        match &self.runner {
            Runner::Cpu(_) => None,
            Runner::Gpu(step) => Some(step),
        }
    }

    /// Positions that a sequence may have, the largest number there is where it may go on without end.
    pub fn context(&self) -> usize {
        if self.keep.is_some() { usize::MAX } else { self.context }
    }

    /// Logits per row.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Most tokens of a step.
    pub fn step_tokens(&self) -> usize {
        self.limits.tokens
    }

    /// Most rows of a step.
    pub fn step_rows(&self) -> usize {
        self.limits.rows
    }

    /// Most tokens that the next step of a sequence takes. Where positions are forgotten by their use, a step ends
    /// before that changes, and gives the logits of all its tokens at once.
    pub fn room(&self, seq: usize) -> usize {
        if !self.keep.is_some_and(|keep| keep.by_use) || seq >= self.kv.sequences() {
            return self.limits.tokens;
        }
        let left = self.kv.capacity().saturating_sub(self.kv.positions(seq));
        let left = if left == 0 { PAGE_POSITIONS } else { left };
        self.limits.tokens.min(self.limits.rows).min(left)
    }

    /// Anonymous memory planned.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// The workers, for measuring.
    pub fn workers(&mut self) -> &mut Workers {
        &mut self.workers
    }

    /// Number of workers.
    pub fn threads(&self) -> usize {
        self.workers.count()
    }

    /// The packed weights.
    pub fn weights(&self) -> &'static [u8] {
        self.weights
    }

    /// Times of the step's phases.
    pub fn profile(&self) -> &Profile {
        &self.sync.profile
    }

    /// Positions that a sequence has, those included that are no longer in sight.
    pub fn positions(&self, seq: usize) -> usize {
        self.kv.positions(seq) + self.kv.forgotten(seq)
    }

    /// Forgets a sequence's positions from `positions` on, and all of them where what the next token would see is
    /// gone already. Gives how many are left.
    pub fn truncate(&mut self, seq: usize, positions: usize) -> usize {
        self.kv.rewind(seq, positions, self.keep)
    }

    /// Runs one step: token `i` is `tokens[i]` at `positions[i]` of sequence `seqs[i]`. Gives the
    /// logits of the tokens at `rows`, row-major.
    ///
    /// # Errors
    ///
    /// Exit code 4 where a position lies outside the context, 2 where a token lies outside the
    /// vocabulary or the lists' lengths do not fit a step.
    pub fn step(&mut self, tokens: &[u32], positions: &[u32], seqs: &[u32], rows: &[u32]) -> Result<&[f32]> {
        let n = tokens.len();
        if n == 0 || n > self.limits.tokens || rows.len() > self.limits.rows || positions.len() != n || seqs.len() != n
        {
            return Err(Error::usage(format!(
                "a step takes 1 to {} tokens and gives at most {} rows; it got {n} and {}",
                self.limits.tokens,
                self.limits.rows,
                rows.len()
            )));
        }
        for i in 0..n {
            self.place(i, tokens[i], positions[i] as usize, seqs[i])?;
        }
        for (slot, &row) in self.inputs.rows.slice_mut::<i32>(rows.len()).iter_mut().zip(rows) {
            if row as usize >= n {
                return Err(Error::usage(format!("row {row} is wanted of a step of {n} tokens")));
            }
            *slot = row as i32;
        }
        let sequences = seqs.iter().max().map_or(0, |s| *s as usize + 1);
        self.call(n, rows.len(), sequences)?;
        Ok(self.logits(rows.len()))
    }

    /// Adds `tokens`, at most [`Self::room`], to the end of a sequence. Gives the logits of `rows`.
    ///
    /// # Errors
    ///
    /// As [`Self::step`].
    pub fn extend(&mut self, seq: usize, tokens: &[u32], rows: Rows) -> Result<&[f32]> {
        let n = tokens.len();
        let (first, last) = match rows {
            Rows::None => (0, 0),
            Rows::Last => (n.saturating_sub(1), n),
            Rows::Range(first, last) => (first.min(last), last),
        };
        let room = self.room(seq);
        if n == 0 || n > room || last > n || last - first > self.limits.rows {
            return Err(Error::usage(format!(
                "a step takes 1 to {room} tokens and gives at most {} rows; it got {n} tokens and rows {first}..{last}",
                self.limits.rows
            )));
        }
        self.slide(seq);
        let start = self.positions(seq);
        for (i, token) in tokens.iter().enumerate() {
            if let Err(error) = self.place(i, *token, start + i, seq as u32) {
                self.truncate(seq, start);
                return Err(error);
            }
        }
        for (slot, row) in self.inputs.rows.slice_mut::<i32>(last - first).iter_mut().zip(first..last) {
            *slot = row as i32;
        }
        self.call(n, last - first, seq + 1)?;
        Ok(self.logits(last - first))
    }

    /// Adds any number of tokens to a sequence in steps of `chunk` (0: as many as a step takes) and
    /// gives the logits of the last one. `between` is called before each step and may end the work.
    ///
    /// # Errors
    ///
    /// As [`Self::step`], or what `between` gives.
    pub fn prefill(
        &mut self,
        seq: usize,
        tokens: &[u32],
        chunk: usize,
        mut between: impl FnMut() -> Result<()>,
    ) -> Result<&[f32]> {
        let end = self.positions(seq).saturating_add(tokens.len());
        if end > self.context() {
            return Err(self.too_long(end));
        }
        let chunk = if chunk == 0 { usize::MAX } else { chunk };
        let mut rest = tokens;
        loop {
            between()?;
            let part = chunk.min(self.room(seq));
            if rest.len() <= part {
                return self.extend(seq, rest, Rows::Last);
            }
            self.extend(seq, &rest[..part], Rows::None)?;
            rest = &rest[part..];
        }
    }

    /// Calls `each` with the index and the logits of every row of the last step, the workers taking
    /// rows in turns.
    pub fn each_row(&mut self, rows: usize, each: &(dyn Fn(usize, &[f32]) + Sync)) {
        let (vocab, workers) = (self.vocab, self.workers.count());
        let logits = match &self.runner {
            Runner::Cpu(_) => self.logits.slice::<f32>(rows * vocab),
            Runner::Gpu(step) => step.logits(rows * vocab),
        };
        self.workers.run(&|worker| {
            for row in (worker..rows).step_by(workers) {
                each(row, &logits[row * vocab..(row + 1) * vocab]);
            }
        });
    }

    /// Forgets what the next token of a sequence does not see.
    fn slide(&mut self, seq: usize) {
        if let (Some(keep), true) = (self.keep, seq < self.kv.sequences()) {
            self.kv.slide(seq, keep);
        }
    }

    /// Writes one token of a step and gives its position a page.
    fn place(&mut self, i: usize, token: u32, position: usize, seq: u32) -> Result<()> {
        if token as usize >= self.vocab {
            return Err(Error::usage(format!(
                "token {token} is not in the vocabulary; tokens are 0 to {}",
                self.vocab.saturating_sub(1)
            )));
        }
        if seq as usize >= self.kv.sequences() {
            return Err(Error::usage(format!("sequence {seq} of {} is wanted", self.kv.sequences())));
        }
        // Code knows the positions that are held.
        let position = position.saturating_sub(self.kv.forgotten(seq as usize));
        if position >= self.context {
            return Err(self.too_long(position + 1));
        }
        self.kv.grow(seq as usize, position + 1)?;
        self.inputs.ids.slice_mut::<i32>(i + 1)[i] = token as i32;
        self.inputs.positions.slice_mut::<i32>(i + 1)[i] = position as i32;
        self.inputs.seqs.slice_mut::<i32>(i + 1)[i] = seq as i32;
        Ok(())
    }

    /// Logits of the last step.
    fn logits(&self, rows: usize) -> &[f32] {
        match &self.runner {
            Runner::Cpu(_) => self.logits.slice(rows * self.vocab),
            Runner::Gpu(step) => step.logits(rows * self.vocab),
        }
    }

    fn call(&mut self, n_tokens: usize, n_rows: usize, n_seqs: usize) -> Result<()> {
        let step = match &mut self.runner {
            Runner::Cpu(step) => *step,
            Runner::Gpu(step) => {
                let inputs = Inputs {
                    ids: self.inputs.ids.slice(n_tokens),
                    positions: self.inputs.positions.slice(n_tokens),
                    seqs: self.inputs.seqs.slice(n_tokens),
                    rows: self.inputs.rows.slice(n_rows),
                    table: self.kv.rows(n_seqs),
                    stride: self.kv.stride(),
                };
                return step.run(inputs, self.vocab);
            }
        };
        let args = StepArgs {
            weights: self.weights.as_ptr(),
            arena: self.arena.base(),
            kv: self.kv.base(),
            logits: self.logits.base().cast(),
            ids: self.inputs.ids.base().cast_const().cast(),
            positions: self.inputs.positions.base().cast_const().cast(),
            seqs: self.inputs.seqs.base().cast_const().cast(),
            rows: self.inputs.rows.base().cast_const().cast(),
            page_table: self.kv.table(),
            page_table_stride: self.kv.stride() as i64,
            n_tokens: n_tokens as i64,
            n_rows: n_rows as i64,
            n_seqs: n_seqs as i64,
            sync: (&raw const *self.sync).cast_mut().cast::<c_void>(),
            sampled: std::ptr::null_mut(),
            sampling: std::ptr::null(),
        };
        let workers = self.workers.count();
        // SAFETY: `new`'s caller vouches for the step; every buffer has the size that the manifest
        // gives for this number of workers, every token is in the vocabulary, every position has a
        // page, and `sync` is a StepSync.
        let call = unsafe { StepCall::new(step, &args) };
        self.sync.profile.step_begins();
        self.workers.run(&|worker| call.run(worker, workers));
        self.sync.profile.step_ended();
        Ok(())
    }

    fn too_long(&self, positions: usize) -> Error {
        Error::fit(format!(
            "{positions} tokens do not fit into a context of {} positions; shorten the text{}",
            self.context, " or give a larger --ctx-size where the model allows it"
        ))
    }
}
