//! Lending a closure to threads that were started before it existed.

use std::sync::{PoisonError, RwLock};

/// What the workers run: called by each with its index.
pub type Job<'a> = &'a (dyn Fn(usize) + Sync + 'a);

/// A place where one thread lends a job to others for a while.
#[derive(Default)]
pub struct JobSlot(RwLock<Option<Job<'static>>>);

impl JobSlot {
    /// Lends `job` while `body` runs. Returns only when no thread runs the job any more.
    pub fn lend(&self, job: Job<'_>, body: impl FnOnce()) {
        // SAFETY: only the lifetime changes. `call` holds the read lock while it runs a job, and
        // `Reclaim` takes the write lock and removes the reference before this function returns or
        // unwinds, so the job is never used after its lifetime.
        let job = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        let reclaim = Reclaim(self);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(job);
        body();
        drop(reclaim);
    }

    /// Runs the job that is lent, if there is one.
    pub fn call(&self, worker: usize) {
        if let Some(job) = *self.0.read().unwrap_or_else(PoisonError::into_inner) {
            job(worker);
        }
    }
}

/// Ends a loan on drop.
struct Reclaim<'a>(&'a JobSlot);

impl Drop for Reclaim<'_> {
    fn drop(&mut self) {
        *self.0.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
