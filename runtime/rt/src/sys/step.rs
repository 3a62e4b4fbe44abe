//! The two calls between the engine and compiled code: into a step, and back for a barrier.

use llmc_abi::{StepArgs, StepFn};

use crate::workers::barrier::StepSync;

/// A compiled step with its arguments, shared by the workers of one run.
pub struct StepCall<'a> {
    step: StepFn,
    args: &'a StepArgs,
}

// SAFETY: the pointers in the arguments are valid for the whole run, and compiled code divides what
// it writes between the workers (contract of StepFn).
unsafe impl Sync for StepCall<'_> {}

impl<'a> StepCall<'a> {
    /// A call of `step` with `args`.
    ///
    /// # Safety
    ///
    /// `args` must fulfil the contract of [`StepArgs`] for `step`, its `sync` must point to a
    /// [`StepSync`], and the CPU must have the features that the step needs.
    pub unsafe fn new(step: StepFn, args: &'a StepArgs) -> Self {
        Self { step, args }
    }

    /// Runs one worker's part. Every worker of `0..workers` must call this once.
    pub fn run(&self, worker: usize, workers: usize) {
        // SAFETY: promised to `new`; the pool calls each worker once.
        unsafe { (self.step)(self.args, worker as i64, workers as i64) }
    }
}

/// Called by compiled code between phases; see [`llmc_abi::step::BARRIER_SYMBOL`]. `phase` is the
/// index of the phase that has just ended.
///
/// # Safety
///
/// `args` must be the arguments that a [`StepCall`] gave to the step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmc_barrier(args: *const StepArgs, worker: i64, workers: i64, phase: i64) {
    // SAFETY: `sync` points to a StepSync (promised to StepCall::new), which outlives the step.
    let sync = unsafe { &*(*args).sync.cast::<StepSync>() };
    sync.phase_ended(worker == 0, workers as u32, phase as usize);
}
