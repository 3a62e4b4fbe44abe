//! GPU code loaded onto a device.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use super::driver::{Driver, Handle, Status};
use super::gpu::{Context, Gpu};
use super::image::{Image, ImageKind, candidates};
use super::kernel::Kernel;
use crate::error::{Error, Kind, Result};
use llmc_abi::device::{DeviceImage, DeviceKind};

/// `CUjit_option`.
const INFO_LOG: i32 = 3;
const INFO_LOG_BYTES: i32 = 4;
const ERROR_LOG: i32 = 5;
const ERROR_LOG_BYTES: i32 = 6;
/// Bytes of each log.
const LOG_BYTES: usize = 16 << 10;
/// Bytes of an ELF file's header, and where in it the section headers' offset, size and number are.
const ELF_HEADER: usize = 64;
const SECTIONS_AT: usize = 40;
const SECTION_BYTES_AT: usize = 58;
const SECTION_COUNT_AT: usize = 60;

/// Loaded code; unloaded when it and its kernels are dropped.
pub struct Module {
    loaded: Arc<Loaded>,
    image: usize,
}

/// The driver's module, which its kernels keep alive.
pub(super) struct Loaded {
    pub(super) context: Arc<Context>,
    handle: Handle,
}

impl Gpu {
    /// Loads the image that suits the device best; where the driver refuses it, the next.
    ///
    /// # Errors
    ///
    /// Exit code 5 where no image suits the device, 4 where it has no room, 1 where the driver refuses
    /// all, with what its compiler says.
    pub fn load(&self, images: &[Image<'_>]) -> Result<Module> {
        let order = candidates(self.info().major, self.info().minor, images);
        if order.is_empty() {
            return Err(self.no_image(images));
        }
        let mut refused = Vec::new();
        for image in order {
            match self.load_image(&images[image]) {
                Ok(loaded) => return Ok(Module { loaded: Arc::new(loaded), image }),
                Err(error) if error.kind == Kind::Fit => return Err(error),
                Err(error) => refused.push(error.message),
            }
        }
        Err(Error::failed(format!("{}; install a newer NVIDIA driver, or give --device cpu", refused.join("; "))))
    }

    /// Loads the kernel of this name from the image that suits the device best, for blocks of `threads` threads; gives the
    /// shared memory of a block too.
    ///
    /// # Errors
    ///
    /// As [`Gpu::load`]; exit code 5 too where a block does not fit the device.
    pub fn load_kernel(&self, images: &[DeviceImage<&[u8]>], name: &str, threads: usize) -> Result<(Kernel, usize)> {
        let kind = |kind| if kind == DeviceKind::Ptx { ImageKind::Ptx } else { ImageKind::Cubin };
        let candidates: Vec<Image<'_>> = images
            .iter()
            .map(|i| Image { kind: kind(i.kind), arch: i.arch, specific: i.specific, bytes: i.bytes })
            .collect();
        let module = self.load(&candidates)?;
        let (kernel, shared) = (module.function(name)?, images[module.image()].shared_bytes);
        kernel.allow_shared(shared)?;
        if kernel.blocks_per_multiprocessor(threads as u32, shared as u32)? == 0 {
            return Err(Error::device(format!(
                "a block of {threads} threads with {shared} bytes of shared memory does not fit {}",
                self.info().name
            )));
        }
        Ok((kernel, shared))
    }

    fn load_image(&self, image: &Image<'_>) -> Result<Loaded> {
        if image.kind == ImageKind::Cubin && !is_whole_elf(image.bytes) {
            return Err(Error::failed(format!("the artifact's {} is damaged; compile it again", image.name())));
        }
        let (driver, code, mut logs) = (&self.context.driver, padded(image.bytes), Logs::default());
        let mut handle = Handle::NULL;
        let status = logs.load(driver, &code, &mut handle);
        driver
            .check(status, format_args!("load the artifact's {}", image.name()))
            .map_err(|error| Error { message: error.message + &logs.text(), ..error })?;
        Ok(Loaded { context: self.context.clone(), handle })
    }

    fn no_image(&self, images: &[Image<'_>]) -> Error {
        let (info, held) = (self.info(), images.iter().map(Image::name).collect::<Vec<_>>());
        Error::device(format!(
            "this artifact has no code for {} (sm_{}{}): it holds {}; compile it again for this GPU, or give \
             --device cpu",
            info.name,
            info.major,
            info.minor,
            if held.is_empty() { "none".into() } else { held.join(", ") }
        ))
    }
}

impl Module {
    /// Index of the image that was loaded, of those given to [`Gpu::load`].
    pub fn image(&self) -> usize {
        self.image
    }

    /// The kernel of this name.
    ///
    /// # Errors
    ///
    /// Exit code 1 where there is none.
    pub fn function(&self, name: &str) -> Result<Kernel> {
        let driver = &self.loaded.context.driver;
        let text = CString::new(name).map_err(|_| Error::failed(format!("{name:?} is no kernel's name")))?;
        let mut handle = Handle::NULL;
        // SAFETY: the module is loaded and the name NUL-terminated; writes one handle.
        let status = unsafe { (driver.module_function)(&raw mut handle, self.loaded.handle, text.as_ptr()) };
        driver.check(status, format_args!("find the kernel {name}"))?;
        Ok(Kernel::new(self.loaded.clone(), handle, name))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let _ = self.context.make_current();
        // Its kernels may still run.
        let _ = self.context.synchronize();
        // SAFETY: the module is loaded, and nobody holds one of its kernels.
        unsafe {
            (self.context.driver.module_unload)(self.handle);
        }
    }
}

/// What the driver's compiler says.
struct Logs {
    info: Vec<u8>,
    error: Vec<u8>,
}

impl Default for Logs {
    fn default() -> Self {
        Self { info: vec![0; LOG_BYTES], error: vec![0; LOG_BYTES] }
    }
}

impl Logs {
    /// Loads `code`, which ends with a NUL, and keeps what is said.
    fn load(&mut self, driver: &Driver, code: &[u64], handle: &mut Handle) -> Status {
        let options = [INFO_LOG, INFO_LOG_BYTES, ERROR_LOG, ERROR_LOG_BYTES];
        // The last byte of a log stays 0. Sizes travel as pointers.
        let bytes = std::ptr::without_provenance_mut::<c_void>(LOG_BYTES - 1);
        let values = [self.info.as_mut_ptr().cast(), bytes, self.error.as_mut_ptr().cast(), bytes];
        // SAFETY: the code is text with a NUL or an ELF file whose sections end inside it; options and
        // values are as many as said, and the logs have the bytes said.
        unsafe { (driver.module_load)(handle, code.as_ptr().cast(), 4, options.as_ptr(), values.as_ptr()) }
    }

    /// What was said, on one line that continues a message; empty where nothing was.
    fn text(&self) -> String {
        let said = [&self.error, &self.info].map(|log| {
            let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(text)
                .lines()
                .map(str::trim)
                .filter(|l| !l.is_empty())
                .collect::<Vec<_>>()
                .join("; ")
        });
        said.iter().filter(|text| !text.is_empty()).map(|text| format!(": {text}")).collect()
    }
}

/// The bytes and at least one 0, aligned to 8 as the driver reads them.
fn padded(bytes: &[u8]) -> Vec<u64> {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_ne_bytes(word)
    };
    bytes.chunks(8).map(word).chain([0]).collect()
}

/// Whether the bytes are an ELF file at least as long as its header says; the driver is told no length.
fn is_whole_elf(bytes: &[u8]) -> bool {
    if bytes.len() < ELF_HEADER || !bytes.starts_with(b"\x7fELF") {
        return false;
    }
    let number = |at: usize, size: usize| bytes[at..at + size].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
    let sections = number(SECTION_BYTES_AT, 2) * number(SECTION_COUNT_AT, 2);
    number(SECTIONS_AT, 8).checked_add(sections).is_some_and(|end| end <= bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_ends_with_a_zero() {
        assert_eq!(padded(b""), [0]);
        assert_eq!(padded(b"12345678"), [u64::from_ne_bytes(*b"12345678"), 0]);
        assert_eq!(
            padded(b"123456789"),
            [u64::from_ne_bytes(*b"12345678"), u64::from_ne_bytes(*b"9\0\0\0\0\0\0\0"), 0]
        );
    }

    #[test]
    fn truncated_machine_code_is_seen() {
        let mut file = b"\x7fELF".to_vec();
        file.resize(ELF_HEADER, 0);
        assert!(is_whole_elf(&file) && !is_whole_elf(&file[..63]) && !is_whole_elf(b"PTX"));
        file[SECTIONS_AT] = 64;
        file[SECTION_BYTES_AT] = 64;
        file[SECTION_COUNT_AT] = 2;
        assert!(!is_whole_elf(&file));
        file.resize(ELF_HEADER + 128, 0);
        assert!(is_whole_elf(&file));
        file[SECTIONS_AT..SECTIONS_AT + 8].fill(0xff);
        assert!(!is_whole_elf(&file));
    }

    #[test]
    fn logs_become_one_line() {
        let mut logs = Logs::default();
        assert_eq!(logs.text(), "");
        logs.error[..16].copy_from_slice(b"ptxas: a\n\n  b\n\0c");
        assert_eq!(logs.text(), ": ptxas: a; b");
    }
}
