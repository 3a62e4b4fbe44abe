//! Steps of one token whose choice the device makes, so that the next one need not wait for the host.

use llmc_abi::step;

use super::{Engine, Runner};
use crate::cuda::Inputs;
use crate::error::{Error, Result};
use crate::sampler::{Sampling, unusable};

impl Engine {
    /// How the engine would choose tokens by itself; none where it cannot.
    pub fn own_choice(&self, sampling: &Sampling) -> Option<step::Sampling> {
        match &self.runner {
            Runner::Cpu(_) => None,
            Runner::Gpu(_) => sampling.without_host(),
        }
    }

    /// Begins a step of one token at the end of a sequence, the one given or the one that the step begun before
    /// chooses. At most two may be begun whose tokens were not asked for with [`Engine::chosen`].
    ///
    /// # Errors
    ///
    /// As [`Engine::step`]; exit code 1 on a CPU.
    pub fn begin(&mut self, seq: usize, token: Option<u32>, sampling: &step::Sampling) -> Result<()> {
        if self.gpu().is_none() {
            return Err(host_only());
        }
        self.slide(seq);
        let (start, position) = (self.kv.positions(seq), self.positions(seq));
        let placed = self.place(0, token.unwrap_or(0), position, seq as u32);
        if placed.is_err() {
            self.kv.truncate(seq, start);
            return placed;
        }
        self.inputs.rows.slice_mut::<i32>(1)[0] = 0;
        let Runner::Gpu(step) = &mut self.runner else { return Err(host_only()) };
        let inputs = Inputs {
            ids: self.inputs.ids.slice(1),
            positions: self.inputs.positions.slice(1),
            seqs: self.inputs.seqs.slice(1),
            rows: self.inputs.rows.slice(1),
            table: self.kv.rows(seq + 1),
            stride: self.kv.stride(),
        };
        let begun = step.decode(inputs, sampling, token.is_none());
        if begun.is_err() {
            self.kv.truncate(seq, start);
        }
        begun
    }

    /// The token that the first step begun and not asked for has chosen.
    ///
    /// # Errors
    ///
    /// Exit code 1 where no logit was a number, or the device fails.
    pub fn chosen(&mut self) -> Result<u32> {
        let Runner::Gpu(step) = &mut self.runner else { return Err(host_only()) };
        step.chosen()?.ok_or_else(unusable)
    }

    /// Undoes the last `steps` steps begun on a sequence.
    pub fn undo(&mut self, seq: usize, steps: usize) {
        if let Runner::Gpu(step) = &mut self.runner {
            step.forget();
        }
        self.kv.truncate(seq, self.kv.positions(seq).saturating_sub(steps));
    }
}

fn host_only() -> Error {
    Error::failed("a CPU's step leaves the choice of tokens to the host")
}
