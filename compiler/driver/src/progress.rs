//! Progress of long work: bars on a terminal, plain lines in a pipe, nothing with -q.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;

/// Where progress goes: standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing.
    Quiet,
    /// A line for each stage.
    Lines,
    /// Lines and bars.
    Bars,
}

impl Progress {
    /// What suits the process's standard error.
    pub fn new(quiet: bool) -> Progress {
        match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Progress::Quiet,
            (false, true) => Progress::Bars,
            (false, false) => Progress::Lines,
        }
    }

    /// Says what is done now.
    pub fn stage(&self, what: &str) {
        if *self != Progress::Quiet {
            eprintln!("{what}");
        }
    }

    /// Says what the user should know, also with -q.
    pub fn warn(&self, what: &str) {
        eprintln!("warning: {what}");
    }

    /// Progress over bytes.
    pub fn bytes(&self, what: &str, total: u64) -> Bar {
        let bar = match self {
            Progress::Bars => {
                let style =
                    ProgressStyle::with_template("{msg} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
                        .unwrap_or_else(|_| ProgressStyle::default_bar());
                Some(ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_message(what.to_owned()))
            }
            Progress::Lines => {
                eprintln!("{what}: {:.1} MB", total as f64 / 1e6);
                None
            }
            Progress::Quiet => None,
        };
        Bar(bar)
    }

    /// Progress over steps, whose number becomes known with the first.
    pub fn steps(&self, what: &str) -> Bar {
        match self {
            Progress::Bars => {
                let style = ProgressStyle::with_template("{msg} [{bar:32}] {pos}/{len} {eta}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
                Bar(Some(ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_message(what.to_owned())))
            }
            other => {
                other.stage(what);
                Bar(None)
            }
        }
    }
}

/// A running bar, or nothing.
pub struct Bar(Option<ProgressBar>);

impl Bar {
    /// Bytes done.
    pub fn set(&self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
        }
    }

    /// Steps done, and how many there are.
    pub fn set_of(&self, done: u64, all: u64) {
        if let Some(bar) = &self.0 {
            bar.set_length(all);
            bar.set_position(done);
        }
    }

    /// Ends the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
