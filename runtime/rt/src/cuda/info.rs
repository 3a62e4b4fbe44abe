//! What a device says of itself.

use std::ffi::c_char;

use super::driver::{Driver, Status};
use crate::error::{Error, Result};

/// `CUdevice_attribute`.
const MULTIPROCESSORS: i32 = 16;
const L2_BYTES: i32 = 38;
const MAJOR: i32 = 75;
const MINOR: i32 = 76;
const SHARED_BYTES: i32 = 97;

/// Most bytes of a device's name or bus address.
const TEXT: usize = 256;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its name: `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Major compute capability.
    pub major: u32,
    /// Minor compute capability.
    pub minor: u32,
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Most bytes of shared memory that a block may ask for.
    pub shared_bytes: usize,
    /// Bytes of device memory.
    pub memory_total: u64,
    /// Newest CUDA version that the driver supports: 13000 is 13.0, 12040 is 12.4.
    pub driver: u32,
    /// Bytes of the second-level cache.
    pub l2_bytes: usize,
    /// Its PCI address, `0000:3b:00.0`; empty where the driver gives none.
    pub bus: String,
}

impl GpuInfo {
    /// Reads what the driver says of `device`.
    pub(super) fn read(driver: &Driver, device: i32, version: u32) -> Result<Self> {
        let number = |attribute| attribute_of(driver, device, attribute);
        let mut memory = 0;
        // SAFETY: writes one size.
        let status = unsafe { (driver.device_memory)(&raw mut memory, device) };
        driver.check(status, "tell its memory")?;
        Ok(Self {
            name: name(driver, device),
            major: number(MAJOR)?,
            minor: number(MINOR)?,
            multiprocessors: number(MULTIPROCESSORS)? as usize,
            shared_bytes: number(SHARED_BYTES)? as usize,
            memory_total: memory as u64,
            driver: version,
            l2_bytes: number(L2_BYTES)? as usize,
            bus: text(driver.device_bus, device),
        })
    }
}

/// The driver's device at `index`.
///
/// # Errors
///
/// Exit code 5 where there is none, listing those that there are.
pub(super) fn device_at(driver: &Driver, index: usize) -> Result<i32> {
    let mut count = 0;
    // SAFETY: writes one integer.
    let status = unsafe { (driver.device_count)(&raw mut count) };
    driver.check(status, "be counted")?;
    let devices: Vec<i32> = (0..count).map(|i| device(driver, i)).collect::<Result<_>>()?;
    devices.get(index).copied().ok_or_else(|| no_device(driver, index, &devices))
}

fn device(driver: &Driver, index: i32) -> Result<i32> {
    let mut device = 0;
    // SAFETY: writes one integer.
    let status = unsafe { (driver.device_get)(&raw mut device, index) };
    driver.check(status, "be found")?;
    Ok(device)
}

fn no_device(driver: &Driver, index: usize, devices: &[i32]) -> Error {
    if devices.is_empty() {
        return Error::device("the CUDA driver finds no GPU; check CUDA_VISIBLE_DEVICES, or give --device cpu");
    }
    let listed: Vec<_> = devices.iter().enumerate().map(|(i, d)| format!("cuda:{i} is {}", name(driver, *d))).collect();
    Error::device(format!("no GPU cuda:{index}: {}; give one of these with --device", listed.join(", ")))
}

fn attribute_of(driver: &Driver, device: i32, attribute: i32) -> Result<u32> {
    let mut value = 0;
    // SAFETY: writes one integer.
    let status = unsafe { (driver.device_attribute)(&raw mut value, attribute, device) };
    driver.check(status, format_args!("tell its attribute {attribute}"))?;
    u32::try_from(value).map_err(|_| Error::failed(format!("the GPU says that its attribute {attribute} is {value}")))
}

fn name(driver: &Driver, device: i32) -> String {
    text(driver.device_name, device)
}

/// A text that the driver writes; empty where it writes none.
fn text(get: unsafe extern "C" fn(*mut c_char, i32, i32) -> Status, device: i32) -> String {
    let mut text = [0u8; TEXT];
    // SAFETY: writes at most the bytes given, the last of which stays 0.
    let status = unsafe { get(text.as_mut_ptr().cast(), TEXT as i32 - 1, device) };
    let written = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if status == Status::SUCCESS { String::from_utf8_lossy(written).into_owned() } else { String::new() }
}
