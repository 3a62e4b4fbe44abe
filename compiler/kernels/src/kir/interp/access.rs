//! Who accesses memory and when, and which earlier accesses are ordered before.
//!
//! Time is counted in moments. A warp gets a new one whenever it begins to run and after each of its
//! barriers; workers run one after the other between two barriers of all, and a worker's warps between
//! two barriers of the worker. So the moments of one worker between two barriers of all are
//! neighbours, and whether an earlier access is ordered before the present one shows in its moment
//! and thread.
//!
//! What a worker learns by [`crate::kir::Op::LastOf`] is kept for each of the other workers. Where
//! several workers have read a byte, only the last moment of these reads is known; they count as
//! ordered before only if all that all other workers did up to that moment is.

use super::error::{Addr, ThreadId};
use super::meet::WARP;

/// A mark in place of a thread's number: threads of several workers, or the counter of a `LastOf`.
pub(super) const SEVERAL: u32 = u32::MAX;
/// Threads of several warps of one worker.
const WORKER_SET: u32 = u32::MAX - 1;
/// Several threads of the warp whose number is in the lower bits.
const WARP_SET: u32 = 1 << 31;

/// The last access of a kind to a byte, or the last moment of several: the moment in the upper half, and
/// in the lower one the thread's number among all threads of all workers, or a mark.
#[derive(Clone, Copy, Default)]
pub(super) struct Last(pub u64);

impl Last {
    pub fn new(moment: u32, thread: u32) -> Last {
        Last(u64::from(moment) << 32 | u64::from(thread))
    }

    pub fn moment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub fn thread(self) -> u32 {
        self.0 as u32
    }
}

/// The thread that runs and the moments that matter to it.
#[derive(Default)]
pub(super) struct Access {
    /// The thread's number among all threads of all workers.
    pub thread: u32,
    /// The present moment; 0 where there is one thread and no race.
    pub moment: u32,
    /// Threads of a worker.
    pub threads: u32,
    /// The first thread of the worker.
    pub first: u32,
    /// Memory that the worker's threads share.
    pub shared: Addr,
    /// The last moment given to any warp.
    latest: u32,
    /// First moment after the last barrier of all.
    since_all: u32,
    /// First moment of this worker after that.
    since_worker: u32,
    /// First moment after the last barrier of this worker.
    since_group: u32,
    /// First moments of the workers that have run since the last barrier of all, this one the last.
    starts: Vec<u32>,
    /// For each of these, the first moment that is not known to be before. May be shorter.
    known: Vec<u32>,
    /// All that other workers did before this moment is known to be before.
    known_by_all: u32,
}

impl Access {
    /// For workers of so many threads; `latest` is the last moment of the run before.
    pub fn new(threads: usize, latest: u32) -> Access {
        Access { threads: threads as u32, latest, ..Access::default() }
    }

    /// The last moment given to any warp.
    pub fn latest(&self) -> u32 {
        self.latest
    }

    /// All threads have met. When moments run out, `forget` is to forget all accesses.
    pub fn begin_all(&mut self, forget: impl FnOnce()) {
        if self.latest > u32::MAX / 2 {
            self.latest = 0;
            forget();
        }
        self.since_all = self.latest + 1;
        self.starts.clear();
    }

    /// A worker, whose first thread this is, begins to run.
    pub fn begin_worker(&mut self, first: usize, shared: Addr) {
        self.known_by_all = if self.starts.is_empty() { u32::MAX } else { 0 };
        self.since_worker = self.latest + 1;
        self.starts.push(self.since_worker);
        self.known.clear();
        (self.first, self.shared) = (first as u32, shared);
        self.begin_group();
    }

    /// The worker's threads have met.
    pub fn begin_group(&mut self) {
        self.since_group = self.latest + 1;
    }

    /// A warp begins to run or its threads have met.
    pub fn begin_warp(&mut self) {
        self.latest += 1;
        self.moment = self.latest;
    }

    /// The moments before which this worker knows what each worker did, its own included.
    pub fn knowledge(&self) -> Vec<u32> {
        let mut known = self.known.clone();
        known.resize(self.starts.len(), 0);
        *known.last_mut().expect("this worker runs") = self.latest + 1;
        known
    }

    /// Adds what others knew when they told it.
    pub fn learn(&mut self, told: &[u32]) {
        self.known.resize(self.starts.len(), 0);
        self.known.iter_mut().zip(told).for_each(|(known, told)| *known = (*known).max(*told));
        let ends = self.starts.iter().skip(1);
        let gap = self.known.iter().zip(ends).find(|(known, end)| known < end);
        self.known_by_all = gap.map_or(u32::MAX, |(known, _)| *known);
    }

    /// The number of an earlier thread as worker and thread, if the mark stands for one.
    pub fn name(&self, thread: u32) -> Option<ThreadId> {
        (thread < WARP_SET).then(|| ThreadId {
            worker: thread / self.threads,
            thread: (self.threads > 1).then_some(thread % self.threads),
        })
    }

    /// True if an earlier access is not ordered before what the present thread does now.
    #[inline]
    pub fn races(&self, earlier: Last) -> bool {
        earlier.moment() >= self.since_all && earlier.thread() != self.thread && !self.ordered(earlier)
    }

    /// The mark of a byte that was read earlier by threads not ordered before the present one, which
    /// reads it now.
    pub fn join(&self, earlier: Last) -> u32 {
        if earlier.thread() == SEVERAL || earlier.moment() < self.since_worker {
            SEVERAL
        } else if self.in_warp(earlier.thread()) {
            WARP_SET | (self.thread / WARP as u32)
        } else {
            WORKER_SET
        }
    }

    /// Whether something by another thread after the last barrier of all is before.
    fn ordered(&self, earlier: Last) -> bool {
        let (moment, thread) = (earlier.moment(), earlier.thread());
        if thread == SEVERAL {
            moment < self.known_by_all && moment < self.since_group
        } else if moment >= self.since_worker {
            moment < self.since_group || (moment < self.moment && self.in_warp(thread))
        } else {
            let worker = self.starts.partition_point(|start| *start <= moment) - 1;
            self.known.get(worker).is_some_and(|known| moment < *known)
        }
    }

    /// Whether a thread of this worker, or several, are in the present thread's warp.
    fn in_warp(&self, thread: u32) -> bool {
        let warp = self.thread / WARP as u32;
        if thread < WARP_SET { thread / WARP as u32 == warp } else { thread == WARP_SET | warp }
    }
}
