//! Steps whose tokens are chosen on the device: the next one is enqueued before the host knows the token.

use super::inputs::Inputs;
use super::step::{GpuStep, unreserved};
use crate::error::{Error, Result};
use llmc_abi::step::Sampling;

/// Times that an event is asked for before the host waits for it.
const POLLS: usize = 20_000;

impl GpuStep {
    /// Enqueues a step of one row and the copy of the token chosen for it. With `fed`, its first ids are the
    /// tokens chosen by the step enqueued before, whatever `inputs` says. At most two tokens may be unread.
    ///
    /// # Errors
    /// Exit code 1 where the device fails.
    pub fn decode(&mut self, inputs: Inputs<'_>, sampling: &Sampling, fed: bool) -> Result<()> {
        let memory = self.memory.as_mut().ok_or_else(unreserved)?;
        if memory.unread == memory.slots.len() {
            return Err(Error::failed("a third step was asked for before the first one's token was read"));
        }
        let previous = memory.slots[(memory.launched + 1) % 2].sampled.address();
        let slot = self.enqueue(inputs, sampling, fed.then_some(previous))?;
        let memory = self.memory.as_mut().ok_or_else(unreserved)?;
        memory.unread += 1;
        let (slot, told) = (&memory.slots[slot], 4 * inputs.rows.len());
        self.gpu.copy_out(&slot.told, 0, &slot.sampled, told, 4)?;
        self.gpu.record(&slot.done)
    }

    /// The token chosen by the first step whose token was not read yet; none where no logit was a number.
    ///
    /// # Errors
    /// Exit code 1 where the device fails or no step is under way.
    pub fn chosen(&mut self) -> Result<Option<u32>> {
        let memory = self.memory.as_mut().ok_or_else(unreserved)?;
        if memory.unread == 0 {
            return Err(Error::failed("a token was asked for, but no step is under way"));
        }
        let slot = &memory.slots[(memory.launched - memory.unread) % 2];
        let mut polls = 0..POLLS;
        while !slot.done.done()? {
            if polls.next().is_none() {
                slot.done.wait()?;
            }
        }
        memory.unread -= 1;
        Ok(u32::try_from(slot.told.slice::<i32>()[0]).ok())
    }

    /// Forgets the tokens that were not read.
    pub fn forget(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.unread = 0;
        }
    }
}
