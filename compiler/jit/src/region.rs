//! Memory of this process that takes room only where it is touched.

use crate::Result;

/// Zeroed memory, aligned to a page.
#[derive(Debug)]
pub struct Region {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: the mapping belongs to this value alone; shared references only read it or give its address.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// As many zero bytes.
    ///
    /// # Errors
    /// If the system refuses them.
    pub fn new(bytes: usize) -> Result<Region> {
        let bytes = bytes.max(1);
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind | libc::MAP_NORESERVE, -1, 0) };
        match base {
            libc::MAP_FAILED => Err(std::io::Error::last_os_error().into()),
            base => Ok(Region { base: base.cast(), bytes }),
        }
    }

    /// A copy of these bytes.
    ///
    /// # Errors
    /// As [`Region::new`].
    pub fn of(bytes: &[u8]) -> Result<Region> {
        let mut region = Region::new(bytes.len())?;
        region.slice(0, bytes.len()).copy_from_slice(bytes);
        Ok(region)
    }

    /// First byte.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Number of bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A part of it.
    ///
    /// # Panics
    /// If it is not inside.
    pub fn slice(&mut self, start: usize, bytes: usize) -> &mut [u8] {
        assert!(start.checked_add(bytes).is_some_and(|end| end <= self.bytes), "inside the mapping");
        // SAFETY: inside the mapping, which this value owns.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(start), bytes) }
    }

    /// From now on it can be read and executed, and no longer written.
    pub(crate) fn make_executable(&mut self) -> Result<()> {
        // SAFETY: the mapping belongs to this value, and nobody holds a part of it.
        match unsafe { libc::mprotect(self.base.cast(), self.bytes, libc::PROT_READ | libc::PROT_EXEC) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error().into()),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}
