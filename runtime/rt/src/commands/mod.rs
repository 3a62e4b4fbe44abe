//! One file per command, and what they share.

pub mod bench;
mod bench_batch;
mod bench_energy;
mod bench_profile;
pub mod bench_report;
pub mod chat;
pub mod detokenize;
pub mod info;
pub mod logits;
pub mod perplexity;
pub mod run;
pub mod tokenize;
pub mod verify;

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::{Choice, Machine};
use crate::engine::Options;
use crate::error::{Error, Result};
use crate::sampler::Sampling;

/// A text given on the command line, or standard input where it is `-`.
///
/// # Errors
///
/// Exit code 3 where it is not UTF-8, 1 where it cannot be read.
pub fn text_argument(text: &OsStr) -> Result<String> {
    match text.as_bytes() {
        b"-" => standard_input(),
        bytes => utf8(bytes.to_vec(), "the text on the command line"),
    }
}

/// A whole text file, or standard input where the path is `-`.
///
/// # Errors
///
/// Exit code 3 where it is not UTF-8 or cannot be read.
pub fn text_file(path: &Path) -> Result<String> {
    if path.as_os_str() == "-" {
        return standard_input();
    }
    let bytes = std::fs::read(path).map_err(|e| Error::input(format!("cannot read {}: {e}", path.display())))?;
    utf8(bytes, &path.display().to_string())
}

fn standard_input() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|e| Error::input(format!("cannot read standard input: {e}")))?;
    utf8(bytes, "standard input")
}

/// Bytes as text; `what` names their origin.
pub fn utf8(bytes: Vec<u8>, what: &str) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::input(format!("{what} is not UTF-8: byte {at} begins no character; convert it, for instance with iconv"))
    })
}

/// Token ids separated by commas or white space.
///
/// # Errors
///
/// Exit code 2 where a number is none.
pub fn token_list(text: &str) -> Result<Vec<u32>> {
    let parse = |word: &str| {
        word.parse().map_err(|_| Error::usage(format!("{word:?} is no token id; give numbers such as 1,2,3")))
    };
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty()).map(parse).collect()
}

/// Engine options of the flags.
pub fn engine_options(machine: &Machine) -> Options {
    Options { threads: machine.threads.map(usize::from), context: machine.ctx_size, sequences: 1, variant: 0 }
}

/// Sampling of the flags.
///
/// # Errors
///
/// Exit code 2 where a number is out of range.
pub fn sampling(choice: &Choice) -> Result<Sampling> {
    let sampling = Sampling {
        temperature: choice.temp,
        top_k: choice.top_k,
        top_p: choice.top_p,
        min_p: choice.min_p,
        repeat_penalty: choice.repeat_penalty,
        seed: choice.seed.unwrap_or_else(any_seed),
    };
    sampling.check()?;
    Ok(sampling)
}

/// A seed that differs from run to run.
fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    now ^ u64::from(std::process::id()).rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_lists() {
        assert_eq!(token_list("1,2, 3\n4").expect("numbers"), [1, 2, 3, 4]);
        assert!(token_list("").expect("empty").is_empty());
        for bad in ["a", "1;2", "-1", "4294967296", "1.0"] {
            assert_eq!(token_list(bad).expect_err(bad).code(), 2);
        }
    }

    #[test]
    fn invalid_utf8_is_bad_input() {
        let error = text_argument(OsStr::from_bytes(b"ab\xff")).expect_err("not UTF-8");
        assert!(error.code() == 3 && error.message.contains("byte 2"), "{error}");
        assert_eq!(text_argument(OsStr::new("한")).expect("UTF-8"), "한");
        assert_eq!(text_file(Path::new("/nonexistent")).expect_err("no file").code(), 3);
    }
}
