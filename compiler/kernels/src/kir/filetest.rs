//! Tests as text: a program, and runs of its last function with buffers before and after.
//!
//! Runs stand in comments that begin with `;;`:
//!
//! ```text
//! ;; run 2
//! ;; f32 1.5 -2 0x7f800000 -> 3.0 nan 0*4
//! ;; i8 1 2 255
//! ```
//!
//! `run` names the number of workers; `run 2 threads 64` gives each of them 64 threads. Each line after it is a buffer: element, values before, and
//! after `->` the values expected; without it the buffer must not change. `args` points to the
//! table of the buffers' addresses, 8 bytes each, in their order. Values are decimal or, in
//! hexadecimal, bits; `V*N` stands for N times V. In expected values `nan` is any NaN and `?`
//! anything.

use super::func::Program;
use super::types::Elem;
use super::{names, text};
use thiserror::Error;

/// Why a text is not a test.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {message}")]
pub struct FileTestError {
    /// Line, from 1.
    pub line: usize,
    /// What was found and expected.
    pub message: String,
}

/// A program and how it must behave.
#[derive(Clone, Debug)]
pub struct FileTest {
    /// Its last function is run.
    pub program: Program,
    /// At least one.
    pub runs: Vec<Run>,
}

impl FileTest {
    /// Whether workers have several threads in any run.
    pub fn has_groups(&self) -> bool {
        self.runs.iter().any(|run| run.threads > 1)
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Line of the text where it stands.
    pub line: usize,
    /// Number of workers.
    pub workers: usize,
    /// Threads of each worker.
    pub threads: usize,
    /// Buffers that `args` leads to.
    pub buffers: Vec<Buffer>,
}

/// A buffer of a run; to be aligned to 64 bytes.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Line of the text where it stands.
    pub line: usize,
    /// Element.
    pub elem: Elem,
    /// Content before the run.
    pub input: Vec<u8>,
    expected: Vec<Value>,
}

/// A value in the text.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Bits(u64),
    Nan,
    Any,
}

impl Buffer {
    /// Compares the content after the run bit by bit.
    ///
    /// # Errors
    /// The first element that differs, in words.
    pub fn check(&self, content: &[u8]) -> Result<(), String> {
        let bytes = self.elem.bits() as usize / 8;
        for (i, (expected, found)) in self.expected.iter().zip(content.chunks(bytes)).enumerate() {
            let found = found.iter().rev().fold(0, |bits, b| bits << 8 | u64::from(*b));
            let holds = match expected {
                Value::Bits(bits) => *bits == found,
                Value::Nan => is_nan(self.elem, found),
                Value::Any => true,
            };
            if !holds {
                let elem = self.elem;
                let expected = match expected {
                    Value::Bits(bits) => show(elem, *bits),
                    _ => "nan".into(),
                };
                let found = show(elem, found);
                return Err(format!("line {}: element {i}: expected {expected}, found {found}", self.line));
            }
        }
        Ok(())
    }
}

/// Reads a test.
///
/// # Errors
/// [`FileTestError`] at the first line that is not in the form.
pub fn parse(source: &str) -> Result<FileTest, FileTestError> {
    let program = text::parse(source).map_err(|e| error(e.line, &format!("column {}: {}", e.column, e.message)))?;
    let mut runs: Vec<Run> = Vec::new();
    for (line, content) in (1..).zip(source.lines()) {
        let Some(content) = content.trim_start().strip_prefix(";;") else { continue };
        let mut words = content.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first == "run" {
            let counts = counts(&words.collect::<Vec<_>>());
            let (workers, threads) = counts
                .ok_or_else(|| error(line, "expected `run`, the number of workers, and maybe `threads` with theirs"))?;
            runs.push(Run { line, workers, threads, buffers: vec![] });
        } else {
            let run = runs.last_mut().ok_or_else(|| error(line, "expected `run` before a buffer"))?;
            run.buffers.push(buffer(line, first, &words.collect::<Vec<_>>())?);
        }
    }
    if runs.is_empty() || program.functions.is_empty() {
        return Err(error(1, "expected a function and at least one `;; run`"));
    }
    Ok(FileTest { program, runs })
}

/// Numbers of workers and of the threads of each.
fn counts(words: &[&str]) -> Option<(usize, usize)> {
    match words {
        [workers] => Some((workers.parse().ok()?, 1)),
        [workers, "threads", threads] => Some((workers.parse().ok()?, threads.parse().ok()?)),
        _ => None,
    }
}

fn error(line: usize, message: &str) -> FileTestError {
    FileTestError { line, message: message.into() }
}

fn buffer(line: usize, elem: &str, words: &[&str]) -> Result<Buffer, FileTestError> {
    let elem = names::named(&Elem::TABLE, elem)
        .filter(|e| e.is_int() || e.is_float())
        .ok_or_else(|| error(line, &format!("expected `run` or an element, found `{elem}`")))?;
    let arrow = words.iter().position(|w| *w == "->");
    let (before, after) = words.split_at(arrow.unwrap_or(words.len()));
    let before = values(line, elem, before)?;
    let expected = if arrow.is_some() { values(line, elem, &after[1..])? } else { before.clone() };
    if before.len() != expected.len() {
        return Err(error(line, &format!("{} values before, but {} after", before.len(), expected.len())));
    }
    let mut input = Vec::new();
    for value in before {
        let Value::Bits(bits) = value else { return Err(error(line, "expected a number before the run")) };
        input.extend(&bits.to_le_bytes()[..elem.bits() as usize / 8]);
    }
    Ok(Buffer { line, elem, input, expected })
}

fn values(line: usize, elem: Elem, words: &[&str]) -> Result<Vec<Value>, FileTestError> {
    let mut values = Vec::new();
    for word in words {
        let (text, count) = word.split_once('*').unwrap_or((word, "1"));
        let value = value(elem, text).zip(count.parse::<usize>().ok().filter(|n| *n <= 1 << 20));
        let (value, count) = value.ok_or_else(|| error(line, &format!("`{word}` is no value of the element")))?;
        values.resize(values.len() + count, value);
    }
    Ok(values)
}

fn value(elem: Elem, text: &str) -> Option<Value> {
    let width = elem.bits();
    let fits = |bits: u64| width == 64 || bits >> width == 0;
    if text == "?" {
        return Some(Value::Any);
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().filter(|b| fits(*b)).map(Value::Bits);
    }
    match elem {
        Elem::F32 | Elem::F64 if text == "nan" => Some(Value::Nan),
        Elem::F32 => text.parse::<f32>().ok().map(|v| Value::Bits(v.to_bits().into())),
        Elem::F64 => text.parse::<f64>().ok().map(|v| Value::Bits(v.to_bits())),
        _ => {
            let v: i64 = text.parse().ok()?;
            let extra = 64 - width;
            let holds = fits(v as u64) || (v << extra) >> extra == v;
            holds.then_some(Value::Bits((v as u64) << extra >> extra))
        }
    }
}

fn is_nan(elem: Elem, bits: u64) -> bool {
    match elem {
        Elem::F32 => f32::from_bits(bits as u32).is_nan(),
        _ => f64::from_bits(bits).is_nan(),
    }
}

fn show(elem: Elem, bits: u64) -> String {
    match elem {
        Elem::F32 => format!("{:?} ({bits:#x})", f32::from_bits(bits as u32)),
        Elem::F64 => format!("{:?} ({bits:#x})", f64::from_bits(bits)),
        _ => {
            let extra = 64 - elem.bits();
            format!("{} ({bits:#x})", (bits << extra) as i64 >> extra)
        }
    }
}
