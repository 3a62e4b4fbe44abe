//! A kernel: what it needs and how it is launched.

use std::ffi::c_void;
use std::sync::Arc;

use super::driver::{Driver, Handle, Status};
use super::gpu::Gpu;
use super::module::Loaded;
use crate::error::{Error, Result};

/// Most parameters of a kernel.
pub const MAX_PARAMETERS: usize = 64;

/// `CUfunction_attribute`.
const MAX_THREADS: i32 = 0;
const STATIC_SHARED_BYTES: i32 = 1;
const LOCAL_BYTES: i32 = 3;
const REGISTERS: i32 = 4;
const MAX_DYNAMIC_SHARED_BYTES: i32 = 8;

/// A kernel, all of whose parameters have 8 bytes.
pub struct Kernel {
    loaded: Arc<Loaded>,
    handle: Handle,
    name: Box<str>,
    /// Number of parameters, where the driver tells it (CUDA 12.4).
    parameters: Option<usize>,
}

/// What a kernel needs, as compiled for this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelAttributes {
    /// 32-bit registers per thread.
    pub registers: usize,
    /// Bytes of local memory per thread, where registers are spilled.
    pub local_bytes: usize,
    /// Bytes of shared memory that a block has before any asked for at the launch.
    pub shared_bytes: usize,
    /// Most threads of a block.
    pub max_threads: usize,
}

impl Kernel {
    pub(super) fn new(loaded: Arc<Loaded>, handle: Handle, name: &str) -> Self {
        let parameters = count_parameters(&loaded.context.driver, handle);
        Self { loaded, handle, name: name.into(), parameters }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it needs.
    ///
    /// # Errors
    ///
    /// Exit code 1 where the driver does not tell.
    pub fn attributes(&self) -> Result<KernelAttributes> {
        Ok(KernelAttributes {
            registers: self.attribute(REGISTERS)?,
            local_bytes: self.attribute(LOCAL_BYTES)?,
            shared_bytes: self.attribute(STATIC_SHARED_BYTES)?,
            max_threads: self.attribute(MAX_THREADS)?,
        })
    }

    fn attribute(&self, attribute: i32) -> Result<usize> {
        let mut value = 0;
        // SAFETY: the kernel's module is loaded; writes one integer.
        let status = unsafe { (self.driver().function_attribute)(&raw mut value, attribute, self.handle) };
        self.driver().check(status, format_args!("tell the needs of kernel {}", self.name))?;
        Ok(value.max(0) as usize)
    }

    /// Lets launches ask for up to `bytes` of shared memory. Without it, 48 KiB is the most.
    ///
    /// # Errors
    ///
    /// Exit code 1 where the device has less.
    pub fn allow_shared(&self, bytes: usize) -> Result<()> {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        // SAFETY: the kernel's module is loaded.
        let status = unsafe { (self.driver().function_set)(self.handle, MAX_DYNAMIC_SHARED_BYTES, bytes) };
        self.driver().check(status, format_args!("give kernel {} {bytes} bytes of shared memory", self.name))
    }

    /// Blocks of `threads` threads and `shared` bytes asked for that fit on a multiprocessor at once.
    ///
    /// # Errors
    ///
    /// Exit code 1 where the driver does not tell.
    pub fn blocks_per_multiprocessor(&self, threads: u32, shared: u32) -> Result<usize> {
        let (mut blocks, threads) = (0, i32::try_from(threads).unwrap_or(i32::MAX));
        // SAFETY: the kernel's module is loaded; writes one integer.
        let status = unsafe { (self.driver().occupancy)(&raw mut blocks, self.handle, threads, shared as usize) };
        self.driver().check(status, format_args!("tell how many blocks of kernel {} fit", self.name))?;
        Ok(blocks.max(0) as usize)
    }

    /// Enqueues `grid` blocks of `threads` threads with `shared` bytes of shared memory each. `args`
    /// are the values of its parameters, which must mean what the kernel takes them for: addresses
    /// of memory that is large enough and not dropped before the kernel ends. A `cooperative` launch
    /// has all blocks running at once. Allocates nothing on the host.
    ///
    /// # Errors
    ///
    /// Exit code 1 where `args` are not as many as the parameters, where the launch asks for more than
    /// the device has, or where earlier work failed.
    pub fn launch(
        &self,
        gpu: &Gpu,
        grid: u32,
        threads: u32,
        shared: u32,
        args: &[u64],
        cooperative: bool,
    ) -> Result<()> {
        if self.parameters.is_some_and(|n| n != args.len()) || args.len() > MAX_PARAMETERS {
            return Err(self.wrong_arguments(args.len()));
        }
        // As many as a kernel may have, so that the driver reads a valid pointer for each.
        let zero = 0u64;
        let mut values = [(&raw const zero).cast_mut().cast::<c_void>(); MAX_PARAMETERS];
        for (value, arg) in values.iter_mut().zip(args) {
            *value = std::ptr::from_ref(arg).cast_mut().cast();
        }
        let status = self.enqueue(gpu, [grid, threads, shared], &mut values, cooperative);
        self.driver().check(status, format_args!("launch kernel {}", self.name))
    }

    fn enqueue(
        &self,
        gpu: &Gpu,
        [grid, threads, shared]: [u32; 3],
        values: &mut [*mut c_void; MAX_PARAMETERS],
        cooperative: bool,
    ) -> Status {
        let (driver, stream, values) = (self.driver(), gpu.context.stream, values.as_mut_ptr());
        if cooperative {
            // SAFETY: kernel and stream are alive, and each value points to 8 bytes, which the driver
            // copies. What the kernel does with them is the contract of `launch`.
            unsafe { (driver.launch_cooperative)(self.handle, grid, 1, 1, threads, 1, 1, shared, stream, values) }
        } else {
            let extra = std::ptr::null_mut();
            // SAFETY: as above; there are no extra options.
            unsafe { (driver.launch)(self.handle, grid, 1, 1, threads, 1, 1, shared, stream, values, extra) }
        }
    }

    fn wrong_arguments(&self, given: usize) -> Error {
        let takes = self.parameters.map_or(format!("at most {MAX_PARAMETERS}"), |n| n.to_string());
        Error::failed(format!("the kernel {} takes {takes} arguments, {given} were given", self.name))
    }

    fn driver(&self) -> &Driver {
        &self.loaded.context.driver
    }
}

/// Number of a kernel's parameters; none where the driver does not tell.
fn count_parameters(driver: &Driver, function: Handle) -> Option<usize> {
    let get = driver.function_parameter?;
    for index in 0..=MAX_PARAMETERS {
        let (mut offset, mut bytes) = (0, 0);
        // SAFETY: the function is a loaded module's; writes two sizes.
        match unsafe { get(function, index, &raw mut offset, &raw mut bytes) } {
            Status::SUCCESS => {}
            Status::INVALID_VALUE => return Some(index),
            _ => return None,
        }
    }
    Some(MAX_PARAMETERS + 1)
}
