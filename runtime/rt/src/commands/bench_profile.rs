//! Times of a step's phases: on a CPU as worker 0 sees them, on a GPU shares of the time measured by the clock
//! ticks of its first block.

use std::time::Duration;

use llmc_abi::manifest::PhaseInfo;

use super::bench::Work;
use super::bench_report::PhaseRow;
use crate::artifact::Artifact;
use crate::error::Result;
use crate::workers::profile::PhaseTime;

/// What some steps did.
#[derive(Clone, Copy)]
struct Amount {
    steps: usize,
    tokens: usize,
    /// Cached positions that a token saw on average.
    positions: f64,
}

impl Work<'_> {
    /// Times of the phases of one prefill and one decoding.
    pub fn profile(&mut self, artifact: &Artifact, variant: usize) -> Result<[Vec<PhaseRow>; 2]> {
        let sizes = self.sizes;
        let forms = [self.form(sizes.prefill), self.form(1)].map(|form| (form, phases(artifact, variant, form)));
        let (steps, tokens) = (sizes.prefill.div_ceil(self.engine.step_tokens()), sizes.prefill);
        let prefill = Amount { steps, tokens, positions: sizes.prefill as f64 / 2.0 };
        let prefill = self.rows(forms[0], prefill, |work| work.prefill().map(|(_, computed)| computed))?;
        self.fill()?;
        let positions = sizes.depth as f64 + sizes.decode as f64 / 2.0;
        let decode = Amount { steps: sizes.decode, tokens: sizes.decode, positions };
        let decode = self.rows(forms[1], decode, |work| work.decode(None).map(|decoded| decoded.time))?;
        Ok([prefill, decode])
    }

    /// One row for each phase of what `run` does in the time it gives.
    fn rows(
        &mut self,
        (form, phases): (usize, &[PhaseInfo]),
        amount: Amount,
        run: impl FnOnce(&mut Self) -> Result<Duration>,
    ) -> Result<Vec<PhaseRow>> {
        let (times, rest) = match self.engine.gpu() {
            None => self.times(run)?,
            Some(_) => (self.gpu_times((form, phases), amount.steps, run)?, None),
        };
        let Amount { steps, tokens, positions } = amount;
        let row = |(phase, time)| PhaseRow::new(phase, time, steps, tokens, positions);
        let rows = phases.iter().zip(times).map(row);
        Ok(rows.chain(rest.map(|nanos| PhaseRow::rest(nanos, steps))).collect())
    }

    fn times(&mut self, run: impl FnOnce(&mut Self) -> Result<Duration>) -> Result<(Vec<PhaseTime>, Option<u64>)> {
        self.engine.profile().reset(true);
        let ran = run(self);
        let profile = self.engine.profile();
        let times = (profile.times(), Some(profile.tail_nanos()));
        profile.reset(false);
        ran.map(|_| times)
    }

    fn gpu_times(
        &mut self,
        (form, phases): (usize, &[PhaseInfo]),
        steps: usize,
        run: impl FnOnce(&mut Self) -> Result<Duration>,
    ) -> Result<Vec<PhaseTime>> {
        let before = self.ticks(form, phases.len())?;
        let time = run(self)?;
        let ticks: Vec<u64> =
            self.ticks(form, phases.len())?.iter().zip(before).map(|(a, b)| a.wrapping_sub(b)).collect();
        Ok(shares(phases, &ticks, time, steps))
    }

    fn ticks(&self, form: usize, phases: usize) -> Result<Vec<u64>> {
        self.engine.gpu().map_or(Ok(vec![]), |step| step.ticks(form, phases))
    }

    /// The form of a GPU's step for as many of these tokens as a step takes; 0 on a CPU.
    fn form(&self, tokens: usize) -> usize {
        let most = tokens.min(self.engine.step_tokens());
        self.engine.gpu().map_or(0, |step| step.form(most))
    }
}

/// Phases of the form `form` of the variant that runs: a GPU's forms are variants one after another.
fn phases(artifact: &Artifact, variant: usize, form: usize) -> &[PhaseInfo] {
    artifact.manifest.variants.get(variant + form).map_or(&[], |v| &v.phases[..])
}

/// A time shared out by ticks among the phases of `steps` steps.
fn shares(phases: &[PhaseInfo], ticks: &[u64], time: Duration, steps: usize) -> Vec<PhaseTime> {
    let total = ticks.iter().sum::<u64>().max(1) as f64;
    let share = |(phase, ticks): (&PhaseInfo, &u64)| PhaseTime {
        nanos: (time.as_nanos() as f64 * *ticks as f64 / total) as u64,
        runs: if *ticks > 0 { (phase.count * steps) as u64 } else { 0 },
    };
    phases.iter().zip(ticks).map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_share_out_the_time() {
        let phase = |count| PhaseInfo { count, ..Default::default() };
        let phases = [phase(4), phase(1), phase(2)];
        let times = shares(&phases, &[300, 100, 0], Duration::from_micros(4), 2);
        let time = |nanos, runs| PhaseTime { nanos, runs };
        assert_eq!(times, [time(3000, 8), time(1000, 2), time(0, 0)]);
        assert_eq!(shares(&phases[..1], &[0], Duration::from_micros(4), 2), [time(0, 0)]);
    }
}
