//! A model's step on a GPU: one cooperative kernel, a block on every multiprocessor.

use super::inputs::{ALIGN, Inputs, Places, Slot};
use super::{Buffer, Gpu, Kernel, Pinned};
use crate::error::{Error, Result};
use crate::memory::Memory;
use llmc_abi::device::{self, DeviceImage};
use llmc_abi::manifest::GroupInfo;
use llmc_abi::step::Sampling;

/// Alignment of a form's counters.
const SYNC_ALIGN: usize = 128;
/// Bytes behind the weights that a load may reach.
const SLACK: usize = 4096;

/// A model's kernel and weights on a device.
pub struct GpuStep {
    pub(super) gpu: Gpu,
    /// The forms of the step, as the manifest's variants for GPUs.
    forms: Vec<Form>,
    weights: Buffer,
    pub(super) memory: Option<Reserved>,
}

/// A form of the step: its kernel, and where its counters begin.
struct Form {
    group: GroupInfo,
    kernel: Kernel,
    /// Shared memory of a block.
    shared: usize,
    sync: usize,
}

/// Memory of the device and of the host for steps.
pub(super) struct Reserved {
    arena: Buffer,
    kv: Buffer,
    logits: Buffer,
    pub sync: Buffer,
    results: Pinned,
    /// Used by steps in turns.
    pub slots: [Slot; 2],
    /// Steps enqueued.
    pub launched: usize,
    /// The last of them whose tokens are still to be read.
    pub unread: usize,
}

impl GpuStep {
    /// Opens device `index`, loads the kernels of `groups` from an artifact's images and uploads the weights.
    ///
    /// # Errors
    /// Exit code 5 without such a device, 4 without the memory, 3 where the images are damaged.
    pub fn open(index: usize, images: &[u8], groups: Vec<GroupInfo>, weights: &[u8]) -> Result<GpuStep> {
        let damaged = || Error::input("the artifact's code for GPUs is damaged; compile it again");
        let images = device::read(images).ok_or_else(damaged)?;
        let gpu = Gpu::open(index)?;
        let mut sync = 0;
        let forms = groups.into_iter().zip(0..).map(|(group, step)| {
            let (kernel, shared) = kernel(&gpu, &images, step, &group)?;
            let before = sync;
            sync += group.sync_bytes.next_multiple_of(SYNC_ALIGN);
            Ok(Form { group, kernel, shared, sync: before })
        });
        let forms: Vec<_> = forms.collect::<Result<_>>()?;
        let buffer = gpu.alloc(weights.len() + SLACK, "the weights")?;
        gpu.upload(&buffer, weights)?;
        Ok(GpuStep { gpu, forms, weights: buffer, memory: None })
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Takes memory for steps of at most `tokens` tokens with a page table of `table` entries.
    ///
    /// # Errors
    /// Exit code 4 without the memory.
    pub fn reserve(&mut self, memory: &Memory, tokens: usize, table: usize) -> Result<()> {
        let gpu = &self.gpu;
        let reserved = Reserved {
            arena: gpu.alloc(memory.arena.max(ALIGN), "activations")?,
            kv: gpu.alloc(memory.kv.max(ALIGN), "the KV cache")?,
            logits: gpu.alloc(memory.logits, "logits")?,
            sync: gpu
                .alloc(self.forms.iter().map(|f| f.sync + f.group.sync_bytes).max().unwrap_or(ALIGN), "counters")?,
            results: gpu.pinned(memory.logits)?,
            slots: [Slot::new(gpu, tokens, table)?, Slot::new(gpu, tokens, table)?],
            launched: 0,
            unread: 0,
        };
        // What is behind a sequence's end is multiplied by zero: it has to be finite.
        gpu.zero(&reserved.kv)?;
        gpu.zero(&reserved.sync)?;
        gpu.synchronize()?;
        self.memory = Some(reserved);
        Ok(())
    }

    /// Runs one step; afterwards its `rows * vocab` logits are in [`GpuStep::logits`].
    ///
    /// # Errors
    /// Exit code 1 where the device fails.
    pub fn run(&mut self, inputs: Inputs<'_>, vocab: usize) -> Result<()> {
        self.launch(inputs)?;
        let memory = self.memory.as_ref().ok_or_else(unreserved)?;
        let bytes = inputs.rows.len() * vocab * size_of::<f32>();
        if bytes > 0 {
            self.gpu.copy_out(&memory.results, 0, &memory.logits, 0, bytes)?;
        }
        self.gpu.synchronize()
    }

    /// Enqueues one step that chooses no tokens.
    ///
    /// # Errors
    /// Exit code 1 where the device fails.
    pub fn launch(&mut self, inputs: Inputs<'_>) -> Result<()> {
        self.forget();
        let slot = self.enqueue(inputs, &Sampling::NONE, None)?;
        let memory = self.memory.as_ref().ok_or_else(unreserved)?;
        self.gpu.record(&memory.slots[slot].done)
    }

    /// Enqueues one step whose ids are at `ids` on the device, or among the inputs. Gives the number of its
    /// slot, whose event is still to be recorded.
    pub(super) fn enqueue(&mut self, inputs: Inputs<'_>, sampling: &Sampling, ids: Option<u64>) -> Result<usize> {
        let tokens = inputs.ids.len();
        let form = &self.forms[self.form(tokens)];
        if tokens > form.group.tokens {
            return Err(Error::usage(format!("a step of {tokens} tokens is larger than any this artifact has")));
        }
        let group = &form.group;
        let memory = self.memory.as_mut().ok_or_else(unreserved)?;
        let slot = memory.launched % memory.slots.len();
        let places = Places {
            memory: [&self.weights, &memory.arena, &memory.kv, &memory.logits].map(Buffer::address),
            sync: memory.sync.address() + form.sync as u64,
            ids,
        };
        let args = memory.slots[slot].send(&self.gpu, inputs, places, sampling)?;
        memory.launched += 1;
        let (grid, threads) = (self.gpu.info().multiprocessors as u32, group.threads as u32);
        form.kernel.launch(&self.gpu, grid, threads, form.shared as u32, &[args], true)?;
        Ok(slot)
    }

    /// Which form runs steps of so many tokens, counted as the manifest's variants for GPUs.
    pub fn form(&self, tokens: usize) -> usize {
        let most = |i: &usize| self.forms[*i].group.tokens;
        let all = 0..self.forms.len();
        let smallest = all.clone().filter(|i| tokens <= most(i)).min_by_key(most);
        smallest.or_else(|| all.max_by_key(most)).unwrap_or(0)
    }

    /// Where a form's counters begin.
    pub(super) fn counters(&self, form: usize) -> usize {
        self.forms[form].sync
    }

    /// The first `len` logits of the last step.
    pub fn logits(&self, len: usize) -> &[f32] {
        self.memory.as_ref().map_or(&[], |m| &m.results.slice::<f32>()[..len])
    }
}

/// Loads the kernel of step `step` from the images that are of it; gives the shared memory of its blocks too.
fn kernel(gpu: &Gpu, images: &[DeviceImage<&[u8]>], step: u32, group: &GroupInfo) -> Result<(Kernel, usize)> {
    let images: Vec<_> = images.iter().filter(|i| i.step == step).copied().collect();
    gpu.load_kernel(&images, &group.kernel, group.threads)
}

pub(super) fn unreserved() -> Error {
    Error::failed("a step was asked for before its memory was taken")
}
