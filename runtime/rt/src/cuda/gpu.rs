//! One device with its context and one stream.

use std::sync::Arc;

use super::driver::{Driver, Handle};
use super::event::Event;
use super::info::{GpuInfo, device_at};
use crate::error::Result;

/// `CU_STREAM_NON_BLOCKING`: other streams of the process do not order this one.
const NON_BLOCKING: u32 = 1;

/// A device ready for work: its primary context, current on the thread that opened it, and one
/// stream, which runs what is enqueued in order.
pub struct Gpu {
    pub(super) context: Arc<Context>,
    info: GpuInfo,
}

/// The device's primary context with one stream; what lives on the device keeps it alive.
pub(super) struct Context {
    pub(super) driver: Driver,
    pub(super) stream: Handle,
    device: i32,
    handle: Handle,
}

impl Gpu {
    /// Opens the device at `index`, as CUDA counts.
    ///
    /// # Errors
    ///
    /// Exit code 5 without a driver, with one older than CUDA 12.0, without a device or with none at
    /// `index`; 4 where the device's memory has no room for a context; 1 where the driver fails.
    pub fn open(index: usize) -> Result<Self> {
        let (driver, version) = Driver::open()?;
        let device = device_at(&driver, index)?;
        let info = GpuInfo::read(&driver, device, version)?;
        Ok(Self { context: Arc::new(Context::new(driver, device)?), info })
    }

    /// What the device says of itself.
    pub fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// Makes the device current on the calling thread, which may then use it and what lives on it.
    ///
    /// # Errors
    ///
    /// Exit code 1 where the driver refuses.
    pub fn make_current(&self) -> Result<()> {
        self.context.make_current()
    }

    /// Bytes of device memory that nobody uses now.
    ///
    /// # Errors
    ///
    /// Exit code 1 where the device failed.
    pub fn memory_free(&self) -> Result<u64> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two sizes.
        let status = unsafe { (self.context.driver.memory_info)(&raw mut free, &raw mut total) };
        self.context.driver.check(status, "tell its free memory")?;
        Ok(free as u64)
    }

    /// Waits until everything enqueued has run.
    ///
    /// # Errors
    ///
    /// Exit code 1 where any of it failed, with CUDA's name of the failure.
    pub fn synchronize(&self) -> Result<()> {
        self.context.synchronize()
    }

    /// An event that has not been recorded.
    ///
    /// # Errors
    ///
    /// Exit code 1 where the device failed.
    pub fn event(&self) -> Result<Event> {
        Event::new(&self.context)
    }

    /// Enqueues `event`: it happens once all that was enqueued before has run.
    ///
    /// # Errors
    ///
    /// Exit code 1 where the device failed.
    pub fn record(&self, event: &Event) -> Result<()> {
        event.record(self.context.stream)
    }
}

impl Context {
    fn new(driver: Driver, device: i32) -> Result<Self> {
        let mut handle = Handle::NULL;
        // SAFETY: writes one handle.
        let status = unsafe { (driver.context_retain)(&raw mut handle, device) };
        driver.check(status, "give a context")?;
        // From here on, drop releases the context.
        let mut context = Self { driver, stream: Handle::NULL, device, handle };
        context.make_current()?;
        // SAFETY: writes one handle; a context is current.
        let status = unsafe { (context.driver.stream_create)(&raw mut context.stream, NON_BLOCKING) };
        context.driver.check(status, "give a stream")?;
        Ok(context)
    }

    pub(super) fn make_current(&self) -> Result<()> {
        // SAFETY: the handle is a retained context's.
        let status = unsafe { (self.driver.context_set)(self.handle) };
        self.driver.check(status, "take work from this thread")
    }

    pub(super) fn synchronize(&self) -> Result<()> {
        // SAFETY: the stream is this context's.
        let status = unsafe { (self.driver.stream_wait)(self.stream) };
        self.driver.check(status, "finish its work")
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Failures leave the driver to clean up at the process's end.
        let _ = self.make_current();
        // SAFETY: stream and context were created by `new` and nothing on the device is left that
        // uses them: whatever does holds this context.
        unsafe {
            if !self.stream.0.is_null() {
                (self.driver.stream_destroy)(self.stream);
            }
            (self.driver.context_release)(self.device);
        }
    }
}
