//! The barrier between the phases of a step.

use std::sync::atomic::{AtomicU32, Ordering};

use super::profile::Profile;
use super::spin::Waiter;

/// A barrier for a fixed number of threads, usable again and again: the generation is its sense.
#[derive(Debug)]
#[repr(align(64))]
pub struct Barrier {
    arrived: AtomicU32,
    generation: Line,
    sleepers: AtomicU32,
    waiter: Waiter,
}

/// A word on a cache line of its own: the one that waiting threads watch.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(AtomicU32);

impl Barrier {
    /// A barrier whose threads spin before they sleep, or sleep at once.
    pub fn new(spinning: bool) -> Self {
        Self {
            arrived: AtomicU32::new(0),
            generation: Line::default(),
            sleepers: AtomicU32::new(0),
            waiter: Waiter::new(spinning),
        }
    }

    /// Returns once `workers` threads have called it. What each wrote before is seen by all after.
    pub fn wait(&self, workers: u32) {
        if workers <= 1 {
            return;
        }
        let generation = self.generation.0.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == workers {
            self.arrived.store(0, Ordering::Relaxed);
            Waiter::signal(&self.generation.0, &self.sleepers);
        } else {
            self.waiter.wait(&self.generation.0, generation, &self.sleepers);
        }
    }
}

/// What `StepArgs::sync` points to.
#[derive(Debug)]
pub struct StepSync {
    /// The barrier of all workers.
    pub barrier: Barrier,
    /// Time of each phase, kept by worker 0 while switched on.
    pub profile: Profile,
}

impl StepSync {
    /// State for steps of `phases` phases.
    pub fn new(spinning: bool, phases: usize) -> Self {
        Self { barrier: Barrier::new(spinning), profile: Profile::new(phases) }
    }

    /// Meets the other workers at the end of a phase; the first worker notes the time.
    pub fn phase_ended(&self, first: bool, workers: u32, phase: usize) {
        self.barrier.wait(workers);
        if first {
            self.profile.phase_ended(phase);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Threads count in turns: no thread may pass a barrier before all have counted.
    fn rounds(threads: u32, rounds: usize, spinning: bool) {
        let barrier = Barrier::new(spinning);
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for round in 1..=rounds {
                        count.fetch_add(1, Ordering::Relaxed);
                        barrier.wait(threads);
                        assert_eq!(count.load(Ordering::Relaxed), round * threads as usize);
                        barrier.wait(threads);
                    }
                });
            }
        });
    }

    #[test]
    fn holds_back_every_thread() {
        rounds(1, 100, true);
        rounds(2, 5000, true);
        rounds(3, 1000, false);
    }

    #[test]
    fn holds_with_more_threads_than_cpus() {
        rounds(32, 100, true);
        rounds(64, 50, false);
    }
}
