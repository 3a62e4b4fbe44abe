//! Time per phase of a step, seen by worker 0 from barrier to barrier.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Nanoseconds and runs of each phase. Written by worker 0 during a step, read between steps.
#[derive(Debug)]
pub struct Profile {
    on: AtomicBool,
    last: AtomicU64,
    phases: Vec<Phase>,
    /// Time after a step's last barrier.
    tail: AtomicU64,
}

#[derive(Debug, Default)]
struct Phase {
    nanos: AtomicU64,
    runs: AtomicU64,
}

/// What one phase has taken since the last [`Profile::reset`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseTime {
    /// Nanoseconds, waiting for the slowest worker included.
    pub nanos: u64,
    /// Times it ran.
    pub runs: u64,
}

impl Profile {
    /// A profile of `phases` phases, switched off.
    pub fn new(phases: usize) -> Self {
        Self {
            on: AtomicBool::new(false),
            last: AtomicU64::new(0),
            phases: std::iter::repeat_with(Phase::default).take(phases).collect(),
            tail: AtomicU64::new(0),
        }
    }

    /// Switches it on or off, and forgets what it measured.
    pub fn reset(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
        self.tail.store(0, Ordering::Relaxed);
        for phase in &self.phases {
            phase.nanos.store(0, Ordering::Relaxed);
            phase.runs.store(0, Ordering::Relaxed);
        }
    }

    /// Marks the start of a step.
    pub fn step_begins(&self) {
        if self.on.load(Ordering::Relaxed) {
            self.last.store(now(), Ordering::Relaxed);
        }
    }

    /// Adds the time since the last mark to a phase. A phase that the manifest does not list is ignored.
    pub fn phase_ended(&self, phase: usize) {
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        let elapsed = self.lap();
        if let Some(phase) = self.phases.get(phase) {
            phase.nanos.fetch_add(elapsed, Ordering::Relaxed);
            phase.runs.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Marks the end of a step. A last phase that ended with the step and not at a barrier gets the
    /// time since the last mark.
    pub fn step_ended(&self) {
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        let elapsed = self.lap();
        match self.phases.last().filter(|p| p.runs.load(Ordering::Relaxed) == 0) {
            Some(last) => {
                last.nanos.fetch_add(elapsed, Ordering::Relaxed);
            }
            None => {
                self.tail.fetch_add(elapsed, Ordering::Relaxed);
            }
        }
    }

    /// What was measured, by phase.
    pub fn times(&self) -> Vec<PhaseTime> {
        let load =
            |p: &Phase| PhaseTime { nanos: p.nanos.load(Ordering::Relaxed), runs: p.runs.load(Ordering::Relaxed) };
        self.phases.iter().map(load).collect()
    }

    /// Nanoseconds after the last barriers.
    pub fn tail_nanos(&self) -> u64 {
        self.tail.load(Ordering::Relaxed)
    }

    fn lap(&self) -> u64 {
        let now = now();
        now.saturating_sub(self.last.swap(now, Ordering::Relaxed))
    }
}

/// Nanoseconds since the first call.
fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_when_on() {
        let profile = Profile::new(2);
        profile.step_begins();
        profile.phase_ended(0);
        assert_eq!(profile.times(), [PhaseTime::default(); 2]);
        profile.reset(true);
        profile.step_begins();
        profile.phase_ended(0);
        profile.phase_ended(0);
        profile.phase_ended(1);
        profile.phase_ended(7);
        assert_eq!(profile.times().iter().map(|t| t.runs).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn last_phase_may_end_with_the_step() {
        let profile = Profile::new(1);
        profile.reset(true);
        profile.step_begins();
        std::thread::sleep(std::time::Duration::from_millis(2));
        profile.step_ended();
        assert!(profile.times()[0].nanos >= 2_000_000);
        assert_eq!(profile.tail_nanos(), 0);
    }
}
