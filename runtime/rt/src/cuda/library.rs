//! A shared library loaded while the program runs.

use std::ffi::{CStr, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

/// A loaded library. It stays loaded until the process ends, so its symbols are valid for ever.
pub(super) struct Library(NonNull<c_void>);

impl Library {
    /// Loads the first of `names` that can be loaded: file names are looked up as the system does,
    /// paths are taken as they are. Says why the first could not be, and each path that exists.
    pub(super) fn open(names: &[&CStr]) -> Result<Self, String> {
        let mut why = Vec::new();
        for (i, name) in names.iter().enumerate() {
            match load(name) {
                Ok(library) => return Ok(library),
                Err(message) if i == 0 || exists(name) => why.push(message),
                Err(_) => {}
            }
        }
        Err(why.join("; "))
    }

    /// The address of a symbol.
    pub(super) fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the handle is a loaded library's, the name is NUL-terminated.
        NonNull::new(unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) })
    }
}

fn load(name: &CStr) -> Result<Library, String> {
    // SAFETY: the name is NUL-terminated. The library's initializers run; the names asked for are
    // those of the vendor's libraries.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    NonNull::new(handle).map(Library).ok_or_else(last_message)
}

/// What the calling thread's last failed call says.
fn last_message() -> String {
    // SAFETY: gives null or a text that stays valid until the thread's next such call.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the loader gives no reason".into();
    }
    // SAFETY: not null, so a NUL-terminated text.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn exists(path: &CStr) -> bool {
    Path::new(OsStr::from_bytes(path.to_bytes())).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_loads_is_taken() {
        let library = Library::open(&[c"libabsent-for-llmc.so.9", c"libc.so.6"]).expect("libc");
        assert!(library.symbol(c"getpid").is_some());
        assert!(library.symbol(c"no_such_symbol_for_llmc").is_none());
    }

    #[test]
    fn the_reason_is_the_first_name_s() {
        let why = Library::open(&[c"libabsent-for-llmc.so.9", c"/absent/for/llmc.so"]).err().expect("absent");
        assert!(why.contains("libabsent-for-llmc.so.9") && !why.contains("/absent/"), "{why}");
    }
}
