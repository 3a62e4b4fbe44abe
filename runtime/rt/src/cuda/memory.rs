//! Device memory, page-locked host memory, and copies between them.

use std::ffi::c_void;
use std::sync::Arc;

use super::driver::{Address, Status};
use super::gpu::{Context, Gpu};
use crate::error::{Error, Result};
use crate::limits;
use crate::sys::mmap::Plain;

/// `CU_MEMHOSTALLOC_DEVICEMAP`.
const MAPPED: u32 = 2;

/// Device memory; freed on drop.
pub struct Buffer {
    context: Arc<Context>,
    address: Address,
    len: usize,
}

impl Buffer {
    /// Its address on the device, at least 256-byte aligned.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes asked for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no bytes were asked for.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address of `bytes` bytes at `offset`, which must lie inside.
    pub(super) fn range(&self, offset: usize, bytes: usize) -> Address {
        check_range(offset, bytes, self.len, "device buffer");
        self.address + offset as u64
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = self.context.make_current();
        // SAFETY: the address is what the allocation gave; the driver waits for work that uses it.
        unsafe {
            (self.context.driver.memory_release)(self.address);
        }
    }
}

/// Page-locked host memory, which the device reads and writes directly; freed on drop. What the
/// device writes is there once the stream is synchronized.
pub struct Pinned {
    context: Arc<Context>,
    base: *mut u8,
    device: Address,
    len: usize,
}

// SAFETY: plain memory with one owner; the driver may be called by any thread.
unsafe impl Send for Pinned {}

impl Pinned {
    /// First byte.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its address on the device, for kernels that read or write it.
    pub fn device_address(&self) -> u64 {
        self.device
    }

    /// All whole elements. What they hold before the first write is not specified.
    pub fn slice<T: Plain>(&self) -> &[T] {
        // SAFETY: the memory is mapped until drop and page-aligned; any bytes are a value of T. The
        // host writes with `&mut` only, the device before the synchronization that the caller waits for.
        unsafe { std::slice::from_raw_parts(self.base.cast(), self.len / size_of::<T>()) }
    }

    /// All whole elements, to write. The device must not be using them.
    pub fn slice_mut<T: Plain>(&mut self) -> &mut [T] {
        // SAFETY: as for `slice`, and `&mut self` excludes other views.
        unsafe { std::slice::from_raw_parts_mut(self.base.cast(), self.len / size_of::<T>()) }
    }

    fn range(&self, offset: usize, bytes: usize) -> *mut c_void {
        check_range(offset, bytes, self.len, "pinned buffer");
        self.base.wrapping_add(offset).cast()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.context.make_current();
        // Copies that use the memory end before it goes.
        let _ = self.context.synchronize();
        // SAFETY: the address is what the allocation gave.
        unsafe {
            (self.context.driver.host_release)(self.base.cast());
        }
    }
}

impl Gpu {
    /// Takes `bytes` of device memory for `what`, a noun for messages. Contents are not specified.
    ///
    /// # Errors
    ///
    /// Exit code 4 where the device has no room, 1 where it failed.
    pub fn alloc(&self, bytes: usize, what: &str) -> Result<Buffer> {
        let mut address = 0;
        // SAFETY: writes one address. The driver refuses a size of 0.
        let status = unsafe { (self.context.driver.memory_allocate)(&raw mut address, bytes.max(1)) };
        if status == Status::OUT_OF_MEMORY {
            return Err(self.no_room(bytes, what));
        }
        self.context.driver.check(status, format_args!("give {bytes} bytes for {what}"))?;
        Ok(Buffer { context: self.context.clone(), address, len: bytes })
    }

    /// Takes `bytes` of page-locked host memory, mapped on the device. Contents are not specified.
    ///
    /// # Errors
    ///
    /// Exit code 4 where the host has no room, 1 where the driver failed.
    pub fn pinned(&self, bytes: usize) -> Result<Pinned> {
        let driver = &self.context.driver;
        let mut base = std::ptr::null_mut();
        // SAFETY: writes one pointer. The driver refuses a size of 0.
        let status = unsafe { (driver.host_allocate)(&raw mut base, bytes.max(1), MAPPED) };
        if status == Status::OUT_OF_MEMORY {
            let free = limits::memory_available().map_or("an unknown number".into(), |free| free.to_string());
            return Err(Error::fit(format!(
                "cannot lock {bytes} bytes of host memory for the GPU: {free} are free; close other programs or raise \
                 the limit of the container"
            )));
        }
        driver.check(status, format_args!("share {bytes} bytes of host memory"))?;
        let mut pinned = Pinned { context: self.context.clone(), base: base.cast(), device: 0, len: bytes };
        // SAFETY: the memory was allocated for mapping; writes one address.
        let status = unsafe { (driver.host_address)(&raw mut pinned.device, base, 0) };
        driver.check(status, "map host memory")?;
        Ok(pinned)
    }

    /// Enqueues writing 0 to every byte.
    ///
    /// # Errors
    ///
    /// Exit code 1 where the device failed.
    pub fn zero(&self, buffer: &Buffer) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        // SAFETY: the range is the buffer, which the driver keeps until its work is done.
        let status = unsafe { (self.context.driver.memory_set)(buffer.address, 0, buffer.len, self.context.stream) };
        self.context.driver.check(status, "clear memory")
    }

    /// Enqueues a copy of `bytes` bytes from the host at `from_offset` to the device at `offset`. The
    /// host must not write them until it has run.
    ///
    /// # Errors
    ///
    /// Exit code 1 where the device failed.
    ///
    /// # Panics
    ///
    /// Where a range ends outside its memory.
    pub fn copy_in(&self, to: &Buffer, offset: usize, from: &Pinned, from_offset: usize, bytes: usize) -> Result<()> {
        let (to, from) = (to.range(offset, bytes), from.range(from_offset, bytes));
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: both ranges lie inside their memory, and dropping either waits for the copy.
        let status = unsafe { (self.context.driver.copy_to_device)(to, from, bytes, self.context.stream) };
        self.context.driver.check(status, "copy from the host")
    }

    /// Enqueues a copy of `bytes` bytes from the device at `offset` to the host at `to_offset`. The
    /// host must not read or write them until it has run.
    ///
    /// # Errors
    ///
    /// Exit code 1 where the device failed.
    ///
    /// # Panics
    ///
    /// Where a range ends outside its memory.
    pub fn copy_out(&self, to: &Pinned, to_offset: usize, from: &Buffer, offset: usize, bytes: usize) -> Result<()> {
        let (to, from) = (to.range(to_offset, bytes), from.range(offset, bytes));
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: both ranges lie inside their memory, and dropping either waits for the copy.
        let status = unsafe { (self.context.driver.copy_to_host)(to, from, bytes, self.context.stream) };
        self.context.driver.check(status, "copy to the host")
    }

    fn no_room(&self, bytes: usize, what: &str) -> Error {
        let free = self.memory_free().map_or("an unknown number".into(), |free| free.to_string());
        Error::fit(format!(
            "the GPU has no room for {what}: {bytes} bytes are wanted, {free} of {} are free; close other programs \
             that use it, or give a smaller --ctx-size",
            self.info().memory_total
        ))
    }
}

fn check_range(offset: usize, bytes: usize, len: usize, what: &str) {
    let end = offset.checked_add(bytes);
    assert!(end.is_some_and(|end| end <= len), "{bytes} bytes at {offset} of a {what} of {len}");
}
