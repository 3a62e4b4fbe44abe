//! What a step reads: its arguments and integers, written by the host and copied to the device.

use super::{Buffer, Event, Gpu, Pinned};
use crate::error::Result;
use llmc_abi::StepArgs;
use llmc_abi::step::Sampling;

/// Alignment of a step's arrays.
pub(super) const ALIGN: usize = 64;

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

    fn counts(&self) -> [u64; 4] {
        let sequences = self.table.len() / self.stride.max(1);
        [self.stride, self.ids.len(), self.rows.len(), sequences].map(|n| n as u64)
    }
}

/// Addresses that a step is given beside its inputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    /// Weights, arena, KV pages, logits.
    pub memory: [u64; 4],
    /// Counters.
    pub sync: u64,
    /// Where the ids are, if not among the inputs.
    pub ids: Option<u64>,
}

/// One of two steps that may be on their way at a time.
pub(super) struct Slot {
    device: Buffer,
    staging: Pinned,
    /// Tokens chosen by the step.
    pub sampled: Buffer,
    /// The first row's token, as the step tells it.
    pub told: Pinned,
    /// Happens when the step is done.
    pub done: Event,
}

impl Slot {
    /// For steps of at most `tokens` tokens with a page table of `table` entries.
    pub fn new(gpu: &Gpu, tokens: usize, table: usize) -> Result<Slot> {
        let bytes = head_bytes() + 4 * (4 * tokens + table) + 8 * ALIGN;
        let sampled = gpu.alloc(2 * 4 * tokens, "tokens")?;
        gpu.zero(&sampled)?;
        Ok(Slot {
            device: gpu.alloc(bytes, "a step's inputs")?,
            staging: gpu.pinned(bytes)?,
            sampled,
            told: gpu.pinned(ALIGN)?,
            done: gpu.event()?,
        })
    }

    /// Enqueues the copy of a step's inputs once the slot's last step is done. Gives the address of its
    /// arguments.
    pub fn send(&mut self, gpu: &Gpu, inputs: Inputs<'_>, places: Places, sampling: &Sampling) -> Result<u64> {
        self.done.wait()?;
        let base = self.device.address();
        let mut at = head_bytes();
        let mut arrays = [0; 5];
        let staging = self.staging.slice_mut::<u8>();
        for (place, array) in arrays.iter_mut().zip(inputs.arrays()) {
            *place = base + at as u64;
            for (to, from) in staging[at..].chunks_exact_mut(4).zip(array) {
                to.copy_from_slice(&from.to_le_bytes());
            }
            at = (at + 4 * array.len()).next_multiple_of(ALIGN);
        }
        arrays[0] = places.ids.unwrap_or(arrays[0]);
        let choice = size_of::<StepArgs>();
        let last = [places.sync, self.sampled.address(), base + choice as u64];
        let words = places.memory.into_iter().chain(arrays).chain(inputs.counts()).chain(last);
        for (to, word) in staging.chunks_exact_mut(8).zip(words.chain(sampling.words())) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        gpu.copy_in(&self.device, 0, &self.staging, 0, at)?;
        Ok(base)
    }
}

/// Bytes of the arguments with the sampling behind them.
fn head_bytes() -> usize {
    (size_of::<StepArgs>() + size_of::<Sampling>()).next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmc_abi::step::STEP_FIELDS;
    use std::mem::offset_of;

    /// `send` writes the fields as words in this order.
    #[test]
    fn arguments_are_words_in_order() {
        let names: Vec<&str> = STEP_FIELDS.iter().map(|(name, _)| *name).collect();
        assert!(STEP_FIELDS.iter().enumerate().all(|(i, (_, offset))| *offset == 8 * i));
        assert_eq!(names[9..], ["page_table_stride", "n_tokens", "n_rows", "n_seqs", "sync", "sampled", "sampling"]);
        assert_eq!(names[..4], ["weights", "arena", "kv", "logits"]);
        assert_eq!(names[4..9], ["ids", "positions", "seqs", "rows", "page_table"]);
        assert_eq!(size_of::<StepArgs>(), 8 * STEP_FIELDS.len());
    }

    #[test]
    fn sampling_lies_as_its_words() {
        let floats = [offset_of!(Sampling, temperature), offset_of!(Sampling, margin), offset_of!(Sampling, top_p)];
        let others = [offset_of!(Sampling, top_k), offset_of!(Sampling, seed), offset_of!(Sampling, choose)];
        assert_eq!((floats, others, size_of::<Sampling>()), ([0, 4, 8], [12, 16, 24], 32));
        let sampling = Sampling { temperature: 1.0, margin: -2.0, top_p: 0.5, top_k: 3, seed: 7, choose: 1 };
        assert_eq!(sampling.words(), [0xc000_0000_3f80_0000, 0x3_3f00_0000, 7, 1]);
    }
}
