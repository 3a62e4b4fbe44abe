//! Where the time of decoding goes: the clock ticks that the device's first block spends in each phase of a step.

use llmc_abi::Manifest;
use llmc_abi::manifest::PhaseInfo;
use llmc_rt::cuda::step::GpuStep;
use llmc_rt::error::Result;
use serde::Serialize;

/// A phase of a step of one token.
#[derive(Debug, Serialize)]
pub struct Phase {
    /// The kernels that run in it.
    pub kernels: Vec<String>,
    /// Times it runs in a step.
    pub count: usize,
    /// Microseconds of one of them, the barrier at its end included.
    pub micros: f64,
    /// Weights read meanwhile: GB/s.
    pub gb_s: f64,
}

/// The ticks of each phase since the memory was taken.
pub fn ticks(step: &GpuStep, manifest: &Manifest) -> Result<Vec<u64>> {
    let form = step.form(1);
    step.ticks(form, phases_of(manifest, form).len())
}

/// What `steps` steps did in `seconds`, between two calls of [`ticks`].
pub fn between(
    step: &GpuStep,
    manifest: &Manifest,
    ticks: [Vec<u64>; 2],
    (steps, seconds): (usize, f64),
) -> Vec<Phase> {
    let [before, after] = ticks;
    let spent: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a.wrapping_sub(*b)).collect();
    shares(phases_of(manifest, step.form(1)), &spent, 1e6 * seconds / steps.max(1) as f64)
}

/// The phases of a form, which are counted as a manifest's variants for GPUs.
fn phases_of(manifest: &Manifest, form: usize) -> &[PhaseInfo] {
    manifest.variants.iter().filter(|v| v.group.is_some()).nth(form).map_or(&[], |v| &v.phases)
}

/// The microseconds of a step, shared out by ticks.
fn shares(phases: &[PhaseInfo], ticks: &[u64], step: f64) -> Vec<Phase> {
    let total = ticks.iter().sum::<u64>().max(1) as f64;
    let share = |(phase, ticks): (&PhaseInfo, &u64)| {
        let all = step * *ticks as f64 / total;
        Phase {
            kernels: phase.kernels.clone(),
            count: phase.count,
            micros: all / phase.count.max(1) as f64,
            gb_s: if all > 0.0 { phase.weight_bytes as f64 / all / 1e3 } else { 0.0 },
        }
    };
    phases.iter().zip(ticks).map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_shared_out_by_ticks() {
        let phase = |count, weight_bytes| PhaseInfo { count, weight_bytes, ..PhaseInfo::default() };
        let found = shares(&[phase(2, 8_000_000), phase(1, 0), phase(1, 5)], &[300, 100, 0], 40.0);
        let times: Vec<_> = found.iter().map(|p| (p.micros, p.gb_s.round())).collect();
        assert_eq!(times, [(15.0, 267.0), (10.0, 0.0), (0.0, 0.0)]);
    }
}
