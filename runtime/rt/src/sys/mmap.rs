//! Anonymous memory from the system: zeroed, page-aligned, backed only where it is written.

use crate::error::{Error, Result};

/// A mapping of anonymous memory; freed on drop.
pub struct Mapping {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: the mapping is plain memory; who may write where is the owner's business.
unsafe impl Send for Mapping {}
// SAFETY: shared references give the base address and the size only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `bytes` (at least one is mapped) without committing memory to them.
    pub fn reserve(bytes: usize) -> Result<Self> {
        let bytes = bytes.max(1);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no other memory.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            let cause = std::io::Error::last_os_error();
            return Err(Error::fit(format!(
                "cannot reserve {bytes} bytes of memory: {cause}; give a smaller --ctx-size or raise the limit (ulimit -v)"
            )));
        }
        Ok(Self { base: base.cast(), bytes })
    }

    /// First byte.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Bytes mapped.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Asks for huge pages; a system that refuses gives small ones.
    pub fn prefer_huge_pages(&self) {
        // SAFETY: the range is this mapping; the advice changes no contents.
        unsafe {
            libc::madvise(self.base.cast(), self.bytes, libc::MADV_HUGEPAGE);
        }
    }

    /// The first `len` elements as a slice. `T` must be a type for which zeroed memory is a value.
    pub fn slice<T: Plain>(&self, len: usize) -> &[T] {
        self.check::<T>(len);
        // SAFETY: the range is mapped, aligned to a page and never unmapped before self; zeroed or
        // written memory is a value of every Plain type. Writers hold `&mut` or are compiled code
        // that has returned.
        unsafe { std::slice::from_raw_parts(self.base.cast(), len) }
    }

    /// The first `len` elements as a mutable slice.
    pub fn slice_mut<T: Plain>(&mut self, len: usize) -> &mut [T] {
        self.check::<T>(len);
        // SAFETY: as for `slice`, and `&mut self` excludes other views.
        unsafe { std::slice::from_raw_parts_mut(self.base.cast(), len) }
    }

    fn check<T>(&self, len: usize) {
        let need = len.checked_mul(size_of::<T>());
        assert!(need.is_some_and(|n| n <= self.bytes), "a view larger than its mapping");
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is exactly what mmap gave.
        unsafe {
            libc::munmap(self.base.cast(), self.bytes);
        }
    }
}

/// Types for which any bytes are a value.
pub trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for i32 {}
impl Plain for u64 {}
impl Plain for f32 {}

/// Maps the pages under `bytes` that are already in memory, or reads them, so that later reads do
/// not fault. False where the system cannot (Linux before 5.14).
pub fn populate_read(bytes: &[u8]) -> bool {
    const MADV_POPULATE_READ: libc::c_int = 22;
    let page = 4096;
    let start = bytes.as_ptr() as usize / page * page;
    let len = bytes.as_ptr() as usize + bytes.len() - start;
    // SAFETY: the range lies in pages that hold the slice; the advice changes no contents.
    unsafe { libc::madvise(start as *mut libc::c_void, len, MADV_POPULATE_READ) == 0 }
}

/// Sets the process's peak of resident memory (VmHWM) back to what is resident now. False where the
/// system refuses.
pub fn reset_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}
