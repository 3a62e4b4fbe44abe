//! What the machine that llmc runs on can do, for `llmc plan`: measured with the workers and the loops that `bench`
//! in an artifact uses. It decides nothing in an artifact.

use crate::error::{Error, Result};
use llmc_abi::features;
use llmc_abi::manifest::{PhaseInfo, Unit};
use llmc_lower::VariantPlan;
use llmc_rt::bandwidth::{self, Speed};
use llmc_rt::peak::Peaks;
use llmc_rt::sys::amx;
use llmc_rt::workers::Workers;

/// Tokens of a prompt whose prefill is predicted.
const PROMPT: usize = 512;
/// Share of the read bandwidth that a decoding step reaches; the rest goes to attention, norms and barriers.
const DECODE_SHARE: f64 = 0.9;
/// Share of the units' peaks that products reach.
const MULTIPLY_SHARE: f64 = 0.72;
/// The same of products of one token in floats, whose weights are codes: most instructions decode.
const DECODING_SHARE: f64 = 0.3;

/// Ceilings of this machine.
pub struct Machine {
    /// How fast all workers together read memory.
    pub read: Speed,
    /// The most that the units do which the plan's products use.
    pub peaks: Peaks,
}

impl Machine {
    /// Measures for code of a variant with so many workers; takes about a second. None where this machine cannot run
    /// the variant.
    ///
    /// # Errors
    /// If threads or memory for the measurement cannot be had.
    pub fn measure(variant: &VariantPlan, threads: usize) -> Result<Option<Machine>> {
        let needed = variant.target.features;
        let runs = variant.group.is_none() && needed & !features::detect() == 0;
        if !runs || amx::needed(needed) && !amx::request() {
            return Ok(None);
        }
        let failed = |e: llmc_rt::error::Error| Error::Failed(format!("measuring this machine: {e}"));
        let mut workers = Workers::start(Some(threads)).map_err(failed)?;
        let read = bandwidth::measure(&mut workers, &[]).map_err(failed)?.anonymous;
        Ok(Some(Machine { read, peaks: Peaks::measure(&mut workers, needed, &variant.phases) }))
    }

    /// Tokens per second expected of decoding, where a token reads so many bytes.
    pub fn decode(&self, variant: &VariantPlan, bytes: u64) -> f64 {
        let reading = bytes as f64 / self.read.mean_gb_s / DECODE_SHARE;
        let (coded, others): (Vec<PhaseInfo>, Vec<PhaseInfo>) = variant.phases.iter().cloned().partition(has_codes);
        let least = |phases: &[PhaseInfo]| self.peaks.least(phases, 1).unwrap_or(0.0);
        let multiplying = least(&others) / MULTIPLY_SHARE + least(&coded) / DECODING_SHARE;
        1e9 / reading.max(multiplying)
    }

    /// Tokens per second expected of a prefill; none where the peak of a unit is not known.
    pub fn prefill(&self, variant: &VariantPlan) -> Option<f64> {
        let least = self.peaks.least(&variant.phases, PROMPT)?;
        Some(MULTIPLY_SHARE * PROMPT as f64 * 1e9 / least)
    }
}

/// Whether a phase multiplies floats with weights that are codes: such have a byte at most.
fn has_codes(phase: &PhaseInfo) -> bool {
    let weights = (phase.flops_per_token + phase.flops_per_row) / 2;
    phase.unit == Some(Unit::F32) && phase.weight_bytes < 3 * weights / 2
}
