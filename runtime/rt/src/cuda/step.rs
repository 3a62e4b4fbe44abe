//! A model's step on a GPU: one cooperative kernel, a block on every multiprocessor.

use super::{Buffer, Gpu, Image, ImageKind, Kernel, Pinned};
use crate::error::{Error, Result};
use crate::memory::Memory;
use llmc_abi::StepArgs;
use llmc_abi::device::{self, DeviceImage, DeviceKind};
use llmc_abi::manifest::GroupInfo;

/// Alignment of a step's arrays.
const ALIGN: usize = 64;
/// Alignment of a form's counters.
const SYNC_ALIGN: usize = 128;
/// Bytes behind the weights that a load may reach.
const SLACK: usize = 4096;

/// The integers of one step.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Token ids.
    pub ids: &'a [i32],
    /// Position of each token.
    pub positions: &'a [i32],
    /// Sequence of each token.
    pub seqs: &'a [i32],
    /// Tokens whose logits are wanted.
    pub rows: &'a [i32],
    /// Page table: rows of `stride` entries for each sequence of the step.
    pub table: &'a [i32],
    /// Entries of a row.
    pub stride: usize,
}

impl Inputs<'_> {
    fn arrays(&self) -> [&[i32]; 5] {
        [self.ids, self.positions, self.seqs, self.rows, self.table]
    }
}

/// A model's kernel and weights on a device.
pub struct GpuStep {
    gpu: Gpu,
    /// The forms of the step, for the fewest tokens first.
    forms: Vec<Form>,
    weights: Buffer,
    memory: Option<Reserved>,
}

/// A form of the step: its kernel, and where its counters begin.
struct Form {
    group: GroupInfo,
    kernel: Kernel,
    sync: usize,
}

/// Memory of the device and of the host for steps.
struct Reserved {
    arena: Buffer,
    kv: Buffer,
    logits: Buffer,
    sync: Buffer,
    inputs: Buffer,
    staging: Pinned,
    results: Pinned,
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
            let kernel = kernel(&gpu, &images, step, &group)?;
            let before = sync;
            sync += group.sync_bytes.next_multiple_of(SYNC_ALIGN);
            Ok(Form { group, kernel, sync: before })
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
        let inputs = size_of::<StepArgs>() + 4 * (4 * tokens + table) + 8 * ALIGN;
        let reserved = Reserved {
            arena: gpu.alloc(memory.arena.max(ALIGN), "activations")?,
            kv: gpu.alloc(memory.kv.max(ALIGN), "the KV cache")?,
            logits: gpu.alloc(memory.logits, "logits")?,
            sync: gpu
                .alloc(self.forms.iter().map(|f| f.sync + f.group.sync_bytes).max().unwrap_or(ALIGN), "counters")?,
            inputs: gpu.alloc(inputs, "a step's inputs")?,
            staging: gpu.pinned(inputs)?,
            results: gpu.pinned(memory.logits)?,
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

    /// Enqueues one step.
    ///
    /// # Errors
    /// Exit code 1 where the device fails.
    pub fn launch(&mut self, inputs: Inputs<'_>) -> Result<()> {
        let form = self.forms.iter().find(|f| inputs.ids.len() <= f.group.tokens).ok_or_else(|| {
            Error::usage(format!("a step of {} tokens is larger than any this artifact has", inputs.ids.len()))
        })?;
        let memory = self.memory.as_mut().ok_or_else(unreserved)?;
        let group = &form.group;
        let base = memory.inputs.address();
        let mut at = size_of::<StepArgs>().next_multiple_of(ALIGN);
        let mut places = [0; 5];
        let staging = memory.staging.slice_mut::<u8>();
        for (place, array) in places.iter_mut().zip(inputs.arrays()) {
            *place = base + at as u64;
            for (to, from) in staging[at..].chunks_exact_mut(4).zip(array) {
                to.copy_from_slice(&from.to_le_bytes());
            }
            at = (at + 4 * array.len()).next_multiple_of(ALIGN);
        }
        let [ids, positions, seqs, rows, table] = places;
        let counts = [inputs.stride, inputs.ids.len(), inputs.rows.len(), inputs.table.len() / inputs.stride.max(1)];
        let words: [u64; 9] = [
            self.weights.address(),
            memory.arena.address(),
            memory.kv.address(),
            memory.logits.address(),
            ids,
            positions,
            seqs,
            rows,
            table,
        ];
        let counts = counts.map(|n| n as u64);
        let all = words.into_iter().chain(counts).chain([memory.sync.address() + form.sync as u64]);
        for (to, word) in staging.chunks_exact_mut(8).zip(all) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        self.gpu.copy_in(&memory.inputs, 0, &memory.staging, 0, at)?;
        let (grid, threads) = (self.gpu.info().multiprocessors as u32, group.threads as u32);
        form.kernel.launch(&self.gpu, grid, threads, group.shared_bytes as u32, &[base], true)
    }

    /// The first `len` logits of the last step.
    pub fn logits(&self, len: usize) -> &[f32] {
        self.memory.as_ref().map_or(&[], |m| &m.results.slice::<f32>()[..len])
    }
}

/// Loads the kernel of step `step` from the images that are of it.
fn kernel(gpu: &Gpu, images: &[DeviceImage<&[u8]>], step: u32, group: &GroupInfo) -> Result<Kernel> {
    let candidates: Vec<Image> = images
        .iter()
        .filter(|i| i.step == step)
        .map(|i| Image {
            kind: if i.kind == DeviceKind::Ptx { ImageKind::Ptx } else { ImageKind::Cubin },
            arch: i.arch,
            specific: i.specific,
            bytes: i.bytes,
        })
        .collect();
    let kernel = gpu.load(&candidates)?.function(&group.kernel)?;
    kernel.allow_shared(group.shared_bytes)?;
    if kernel.blocks_per_multiprocessor(group.threads as u32, group.shared_bytes as u32)? == 0 {
        return Err(Error::device(format!(
            "a block of {} threads with {} bytes of shared memory does not fit {}",
            group.threads,
            group.shared_bytes,
            gpu.info().name
        )));
    }
    Ok(kernel)
}

fn unreserved() -> Error {
    Error::failed("a step was asked for before its memory was taken")
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmc_abi::step::STEP_FIELDS;

    /// `launch` writes the fields as words in this order.
    #[test]
    fn arguments_are_words_in_order() {
        let names: Vec<&str> = STEP_FIELDS.iter().map(|(name, _)| *name).collect();
        assert!(STEP_FIELDS.iter().enumerate().all(|(i, (_, offset))| *offset == 8 * i));
        assert_eq!(names[9..], ["page_table_stride", "n_tokens", "n_rows", "n_seqs", "sync"]);
        assert_eq!(names[..4], ["weights", "arena", "kv", "logits"]);
        assert_eq!(names[4..9], ["ids", "positions", "seqs", "rows", "page_table"]);
        assert_eq!(size_of::<StepArgs>(), 8 * STEP_FIELDS.len());
    }
}
