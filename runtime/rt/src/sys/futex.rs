//! Waiting for a 32-bit word to change: the Linux futex, private to the process.

use std::sync::atomic::AtomicU32;

/// Sleeps while `word` holds `expected`. May return early; the caller checks again.
pub fn wait(word: &AtomicU32, expected: u32) {
    // SAFETY: the kernel reads one aligned 32-bit word that outlives the call; no timeout is given.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            std::ptr::null::<libc::timespec>(),
        );
    }
}

/// Wakes every thread that sleeps on `word`.
pub fn wake_all(word: &AtomicU32) {
    // SAFETY: the kernel uses the address as a key only.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX);
    }
}
