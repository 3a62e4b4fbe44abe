//! Points in the stream's work that the host can wait for and measure between.

use std::sync::Arc;

use super::driver::{Handle, Status};
use super::gpu::Context;
use crate::error::Result;

/// A point in a stream's work; see [`super::Gpu::record`].
pub struct Event {
    context: Arc<Context>,
    handle: Handle,
}

impl Event {
    pub(super) fn new(context: &Arc<Context>) -> Result<Self> {
        let mut handle = Handle::NULL;
        // SAFETY: writes one handle.
        let status = unsafe { (context.driver.event_create)(&raw mut handle, 0) };
        context.driver.check(status, "give an event")?;
        Ok(Self { context: context.clone(), handle })
    }

    pub(super) fn record(&self, stream: Handle) -> Result<()> {
        // SAFETY: event and stream are alive.
        let status = unsafe { (self.context.driver.event_record)(self.handle, stream) };
        self.context.driver.check(status, "record an event")
    }

    /// Waits until it has happened; returns at once where it was never recorded.
    ///
    /// # Errors
    ///
    /// Exit code 1 where work before it failed.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the event is alive.
        let status = unsafe { (self.context.driver.event_wait)(self.handle) };
        self.context.driver.check(status, "finish its work")
    }

    /// Whether it has happened; true where it was never recorded.
    ///
    /// # Errors
    ///
    /// Exit code 1 where work before it failed.
    pub fn done(&self) -> Result<bool> {
        // SAFETY: the event is alive.
        let status = unsafe { (self.context.driver.event_query)(self.handle) };
        if status == Status::NOT_READY {
            return Ok(false);
        }
        self.context.driver.check(status, "finish its work").map(|()| true)
    }

    /// Milliseconds from `since` to this event, to half a microsecond. Both must have happened.
    ///
    /// # Errors
    ///
    /// Exit code 1 where one has not happened.
    pub fn elapsed_ms(&self, since: &Event) -> Result<f32> {
        let mut milliseconds = 0.0;
        // SAFETY: both events are alive; writes one number.
        let status = unsafe { (self.context.driver.event_elapsed)(&raw mut milliseconds, since.handle, self.handle) };
        self.context.driver.check(status, "measure between events")?;
        Ok(milliseconds)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _ = self.context.make_current();
        // SAFETY: the event is alive and nobody uses it later; the driver waits for its recording.
        unsafe {
            (self.context.driver.event_destroy)(self.handle);
        }
    }
}
