//! Standard output and progress. A failed write is an error and never a panic; a closed pipe ends the
//! process by SIGPIPE.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Longest silence of progress in a pipe.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);
/// Time between two pictures of progress on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(100);

/// Writes `text` to standard output at once.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Error::failed(format!("cannot write to standard output: {e}")))
}

/// Writes a line to standard output.
pub fn print_line(text: &str) -> Result<()> {
    print(&format!("{text}\n"))
}

/// Writes a line to standard error; nobody may be listening.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Progress of long work on standard error: one changing line on a terminal, plain lines in a pipe,
/// nothing when quiet.
pub struct Progress {
    quiet: bool,
    terminal: bool,
    last: Instant,
}

impl Progress {
    /// Progress that says nothing when `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, terminal: std::io::stderr().is_terminal(), last: Instant::now() }
    }

    /// Shows `text`, unless something was shown a moment ago.
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        let interval = if self.terminal { TERMINAL_INTERVAL } else { PLAIN_INTERVAL };
        if self.quiet || self.last.elapsed() < interval {
            return;
        }
        self.last = Instant::now();
        let text = text();
        let _ = match self.terminal {
            true => write!(std::io::stderr(), "\r\x1b[K{text}"),
            false => writeln!(std::io::stderr(), "{text}"),
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && !self.quiet {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
