//! The clock ticks that a step's phases took on the device.

use super::step::{GpuStep, unreserved};
use crate::error::Result;
use llmc_abi::step::SYNC_PHASES;

impl GpuStep {
    /// Ticks of worker 0 in each of `phases` phases of the step's form `form` since the memory was taken. Waits for
    /// all steps.
    ///
    /// # Errors
    /// Exit code 1 where the device fails.
    pub fn ticks(&self, form: usize, phases: usize) -> Result<Vec<u64>> {
        let memory = self.memory.as_ref().ok_or_else(unreserved)?;
        let first = self.counters(form) + SYNC_PHASES;
        let bytes = (8 * phases).min(memory.sync.len().saturating_sub(first));
        let to = self.gpu.pinned(bytes)?;
        self.gpu.copy_out(&to, 0, &memory.sync, first, bytes)?;
        self.gpu.synchronize()?;
        Ok(to.slice::<u64>().to_vec())
    }
}
