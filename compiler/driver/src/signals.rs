//! Signals: what ends llmc from outside leaves no file behind.
//!
//! SIGINT, SIGTERM and SIGHUP are blocked everywhere and taken by a thread of their own, which may
//! do what a handler may not: remove unfinished output. SIGXFSZ is ignored, so that a file size
//! limit is an error of the write that meets it.

use std::mem::MaybeUninit;

const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Sets all of this up. To be called before any other thread exists.
pub fn install() {
    let mut set = MaybeUninit::uninit();
    // SAFETY: each call gets valid pointers; sigemptyset initializes the set.
    let set = unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::sigemptyset(set.as_mut_ptr());
        for signal in ENDING.into_iter().filter(|s| !ignored(*s)) {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    };
    let wait = move || {
        let mut signal = 0;
        // SAFETY: both pointers are valid for the call.
        if unsafe { libc::sigwait(&raw const set, &raw mut signal) } == 0 {
            llmc_link::abandon();
            // SAFETY: ends the process, whatever its other threads do.
            unsafe { libc::_exit(128 + signal) }
        }
    };
    // SAFETY: the set is initialized. It is inherited by the threads started from here on.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if std::thread::Builder::new().name("signals".into()).spawn(wait).is_err() {
        // SAFETY: as above. Without the thread the signals keep their default effect.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
    }
}

/// Whether the parent asked for this signal to be ignored, as nohup does.
fn ignored(signal: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the pointer is valid, and zeroes are a valid sigaction where the call fails.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
