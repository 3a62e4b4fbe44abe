//! Kernels by themselves on a GPU.

use crate::kernels::{Found, KernelCheck, Try};
use llmc_abi::device;
use llmc_rt::cuda::{Buffer, Gpu, Kernel};
use llmc_rt::error::{Error, Result};

/// Bytes behind a buffer that a load may reach.
const SLACK: usize = 4096;

/// Runs a kernel on what it is tried on, twice each.
///
/// # Errors
/// Exit code 5 where no image suits the device, 1 where it fails.
pub fn check(check: &KernelCheck, gpu: &Gpu) -> Result<Found> {
    let (kernel, shared) = load(check, gpu)?;
    let mut found = Found::new(&check.name);
    for (number, input) in check.tries.iter().enumerate() {
        let launch = |gpu: &Gpu| run(gpu, (&kernel, check.threads as u32, shared as u32), input);
        let (first, second) = (launch(gpu)?, launch(gpu)?);
        found.same_bits &= first == second;
        for (expected, buffer) in input.expected.iter().zip(&first) {
            found.compare(number, expected, buffer);
        }
    }
    Ok(found)
}

fn load(check: &KernelCheck, gpu: &Gpu) -> Result<(Kernel, usize)> {
    let damaged = || Error::input(format!("{}: its code is damaged; make the bundle again", check.name));
    let images = device::read(&check.code).ok_or_else(damaged)?;
    gpu.load_kernel(&images, &check.kernel, check.threads)
}

/// What each buffer of which something is expected holds afterwards.
fn run(gpu: &Gpu, (kernel, threads, shared): (&Kernel, u32, u32), input: &Try) -> Result<Vec<Vec<u8>>> {
    let mut buffers = Vec::new();
    for (name, bytes) in &input.buffers {
        buffers.push((name.as_str(), uploaded(gpu, bytes, name)?, bytes.len()));
    }
    let address = |field: &str| buffers.iter().find(|(name, ..)| *name == field).map(|(_, b, _)| b.address());
    let arguments = uploaded(gpu, &input.arguments(address), "arguments")?;
    let grid = gpu.info().multiprocessors as u32;
    kernel.launch(gpu, grid, threads, shared, &[arguments.address()], true)?;
    gpu.synchronize()?;
    let of = |field: &str| {
        let missing = || Error::input(format!("{field}: no such buffer; make the bundle again"));
        let (_, buffer, len) = buffers.iter().find(|(name, ..)| *name == field).ok_or_else(missing)?;
        downloaded(gpu, buffer, *len)
    };
    input.expected.iter().map(|expected| of(&expected.buffer)).collect()
}

fn uploaded(gpu: &Gpu, bytes: &[u8], what: &str) -> Result<Buffer> {
    let buffer = gpu.alloc(bytes.len() + SLACK, what)?;
    gpu.zero(&buffer)?;
    gpu.upload(&buffer, bytes)?;
    Ok(buffer)
}

fn downloaded(gpu: &Gpu, buffer: &Buffer, len: usize) -> Result<Vec<u8>> {
    let host = gpu.pinned(len)?;
    gpu.copy_out(&host, 0, buffer, 0, len)?;
    gpu.synchronize()?;
    Ok(host.slice::<u8>()[..len].to_vec())
}
