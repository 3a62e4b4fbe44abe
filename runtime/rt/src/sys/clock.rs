//! The local calendar time in a format of strftime(3), for chat templates that name the date.

use std::ffi::CString;

/// Local time now in `format`; empty where the format is not one of strftime's or too long.
pub fn local_time(format: &str) -> String {
    let Ok(format) = CString::new(format) else { return String::new() };
    let mut text = [0u8; 256];
    // SAFETY: `time` takes a null pointer, `localtime_r` fills the zeroed structure, and `strftime`
    // writes at most the buffer's size.
    let written = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut calendar: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&raw const now, &raw mut calendar).is_null() {
            return String::new();
        }
        libc::strftime(text.as_mut_ptr().cast(), text.len(), format.as_ptr(), &raw const calendar)
    };
    String::from_utf8_lossy(&text[..written]).into_owned()
}
