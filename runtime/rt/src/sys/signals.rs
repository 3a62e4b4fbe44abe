//! SIGINT and SIGTERM: the first asks for an end, a second one ends the process at once.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::error::{Error, Kind, Result};

static RECEIVED: AtomicI32 = AtomicI32::new(0);
static BUSY: AtomicBool = AtomicBool::new(false);

/// Exit code for a signal.
fn code(signal: i32) -> i32 {
    128 + signal
}

extern "C" fn handle(signal: libc::c_int) {
    let first = RECEIVED.swap(signal, Ordering::SeqCst) == 0;
    if !first || !BUSY.load(Ordering::SeqCst) {
        // SAFETY: _exit may be called in a signal handler and does not return.
        unsafe { libc::_exit(code(signal)) }
    }
}

/// Installs the handlers, and lets SIGPIPE end the process quietly, as `head` expects.
pub fn install() {
    // SAFETY: the handler only touches atomics and calls _exit, both allowed in handlers; the
    // structure is zeroed and then filled as sigaction(2) asks.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGINT, &raw const action, std::ptr::null_mut());
        libc::sigaction(libc::SIGTERM, &raw const action, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        // A file size limit is an error of the write that meets it.
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// While one of these lives, the first signal is left to [`check`]; otherwise it ends the process.
pub struct Busy(());

impl Busy {
    /// Begins work that calls [`check`] often.
    pub fn begin() -> Self {
        BUSY.store(true, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::SeqCst);
    }
}

/// An error if a signal has come.
pub fn check() -> Result<()> {
    match RECEIVED.load(Ordering::Relaxed) {
        0 => Ok(()),
        libc::SIGTERM => Err(Error { kind: Kind::Terminated, message: "terminated".into() }),
        _ => Err(Error { kind: Kind::Interrupted, message: "interrupted".into() }),
    }
}
