//! The threads that run a step: started once, pinned, spinning briefly and then sleeping between
//! steps. The thread that asks for a run is worker 0.

pub mod barrier;
pub mod profile;
mod spin;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::limits;
use crate::sys::affinity;
use crate::sys::job::{Job, JobSlot};
use barrier::Barrier;
use spin::Waiter;

/// Most workers; far beyond any machine, it bounds what `-t` may ask for.
pub const MAX_WORKERS: usize = 1024;

/// A pool of workers.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Where worker 0 could run before it was pinned.
    unpinned: Option<Vec<usize>>,
}

struct Shared {
    workers: u32,
    spinning: bool,
    waiter: Waiter,
    started: AtomicU32,
    sleepers: AtomicU32,
    finished: Barrier,
    stop: AtomicBool,
    job: JobSlot,
}

impl Workers {
    /// Starts `count` workers, the calling thread among them, or as many as [`limits::cpus`] allows.
    ///
    /// They are pinned where there are as many as CPUs, each to its own; fewer are left to the
    /// scheduler, since two processes would otherwise pick the same CPUs. More neither pin nor spin.
    pub fn start(count: Option<usize>) -> Result<Self> {
        let available = limits::cpus();
        let count = count.unwrap_or(available).clamp(1, MAX_WORKERS);
        let cpus = affinity::allowed();
        let spinning = count <= available;
        let pinned = spinning && count > 1 && count == cpus.len();
        let shared = Arc::new(Shared {
            workers: count as u32,
            spinning,
            waiter: Waiter::new(spinning),
            started: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            finished: Barrier::new(spinning),
            stop: AtomicBool::new(false),
            job: JobSlot::default(),
        });
        let mut pool = Self { shared, threads: Vec::with_capacity(count - 1), unpinned: None };
        for worker in 1..count {
            let cpu = cpus.get(worker).copied().filter(|_| pinned);
            pool.threads.push(spawn(pool.shared.clone(), worker, cpu)?);
        }
        if pinned {
            affinity::pin(&cpus[..1]);
            pool.unpinned = Some(cpus);
        }
        Ok(pool)
    }

    /// Number of workers.
    pub fn count(&self) -> usize {
        self.shared.workers as usize
    }

    /// Whether waiting workers spin: each has a CPU to itself.
    pub fn spinning(&self) -> bool {
        self.shared.spinning
    }

    /// Runs `job` on every worker and returns when all are done. Allocates nothing.
    pub fn run(&mut self, job: Job<'_>) {
        let shared = &*self.shared;
        shared.job.lend(job, || {
            Waiter::signal(&shared.started, &shared.sleepers);
            shared.job.call(0);
            shared.finished.wait(shared.workers);
        });
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        Waiter::signal(&self.shared.started, &self.shared.sleepers);
        for thread in self.threads.drain(..) {
            // A worker that panicked has reported it already.
            let _ = thread.join();
        }
        if let Some(cpus) = &self.unpinned {
            affinity::pin(cpus);
        }
    }
}

/// Starts one worker's thread.
fn spawn(shared: Arc<Shared>, worker: usize, cpu: Option<usize>) -> Result<JoinHandle<()>> {
    // Taken here: the first run may begin before the thread does.
    let seen = shared.started.load(Ordering::SeqCst);
    let body = move || {
        if let Some(cpu) = cpu {
            affinity::pin(&[cpu]);
        }
        serve(&shared, worker, seen);
    };
    std::thread::Builder::new()
        .name(format!("worker-{worker}"))
        .spawn(body)
        .map_err(|e| Error::failed(format!("cannot start worker {worker}: {e}; give fewer with -t")))
}

/// A worker's life: wait for a run, do its part, meet the others.
fn serve(shared: &Shared, worker: usize, mut seen: u32) {
    loop {
        shared.waiter.wait(&shared.started, seen, &shared.sleepers);
        seen = seen.wrapping_add(1);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        shared.job.call(worker);
        shared.finished.wait(shared.workers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn every_worker_runs_once() {
        for count in [1, 2, 3, 17] {
            let mut workers = Workers::start(Some(count)).expect("threads start");
            let ran: Vec<_> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            for round in 1..=200 {
                workers.run(&|worker| {
                    ran[worker].fetch_add(1, Ordering::Relaxed);
                });
                assert!(ran.iter().all(|n| n.load(Ordering::Relaxed) == round));
            }
        }
    }

    #[test]
    fn count_is_bounded() {
        assert_eq!(Workers::start(Some(0)).expect("starts").count(), 1);
        let available = limits::cpus();
        assert_eq!(Workers::start(None).expect("starts").count(), available);
        assert_eq!(limits::cpus(), available, "the pool gave its pinned thread free");
    }

    #[test]
    fn a_pool_can_be_dropped_before_any_run() {
        drop(Workers::start(Some(5)).expect("starts"));
    }
}
