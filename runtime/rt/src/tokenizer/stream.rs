//! Decoding token by token: whole characters only, and in total what decoding at once gives.

use llmc_abi::tokenizer::{StepKind, byte_level, token};

use super::replace::replace;
use super::{Resolved, Tokenizer};

/// Text of a stream of tokens.
///
/// What [`push`](Self::push) and [`finish`](Self::finish) give, put together, is
/// [`Tokenizer::decode`] of all ids. A character that several tokens make appears when the last of
/// them is there; text that a later token could still change is held back.
#[derive(Debug)]
pub struct StreamDecoder<'t, 'a> {
    tokenizer: &'t Tokenizer<'a>,
    skip_special: bool,
    states: Vec<State>,
}

/// What a step remembers.
#[derive(Clone, Debug, Default)]
struct State {
    /// Tokens are joined already.
    fused: bool,
    /// A token has passed.
    started: bool,
    /// Bytes of an unfinished character or run of byte tokens.
    bytes: Vec<u8>,
    /// Characters still to strip at the start.
    strip: usize,
    /// Characters held back that are stripped if the text ends after them.
    held: usize,
}

impl<'t, 'a> StreamDecoder<'t, 'a> {
    /// Before the first token; see [`Tokenizer::decode`] for `skip_special`.
    pub fn new(tokenizer: &'t Tokenizer<'a>, skip_special: bool) -> Self {
        let mut fused = false;
        let states = tokenizer.decoder.iter().map(|step| {
            let strip = if step.kind == StepKind::Strip { step.argument as usize } else { 0 };
            let state = State { fused, strip, ..State::default() };
            fused |= matches!(step.kind, StepKind::Fuse | StepKind::Unspell);
            state
        });
        StreamDecoder { tokenizer, skip_special, states: states.collect() }
    }

    /// Takes a token and gives the text that is now certain; often empty.
    pub fn push(&mut self, id: u32) -> String {
        let mut out = String::new();
        self.push_to(id, &mut out);
        out
    }

    /// Gives the rest, a broken character at the end as U+FFFD.
    pub fn finish(mut self) -> String {
        let mut out = String::new();
        self.finish_to(&mut out);
        out
    }

    /// [`push`](Self::push), appending to `out`.
    pub fn push_to(&mut self, id: u32, out: &mut String) {
        let flags = self.tokenizer.tables.token_flags(id);
        if flags & token::PRESENT == 0 || (self.skip_special && flags & token::SPECIAL != 0) {
            return;
        }
        let first = self.tokenizer.decoder.first().map(|s| s.kind);
        match self.tokenizer.tables.token_bytes(id) {
            Some(bytes) if flags & token::LITERAL == 0 && first == Some(StepKind::Unspell) => {
                self.unspell(0, bytes, out)
            }
            Some(bytes) if flags & token::LITERAL == 0 => self.feed(0, &byte_level::spell(bytes), out),
            Some(bytes) => self.feed(0, &String::from_utf8_lossy(bytes), out),
            None => {}
        }
    }

    /// [`finish`](Self::finish), appending to `out`; afterwards only text held back is gone.
    pub(super) fn finish_to(&mut self, out: &mut String) {
        for at in 0..self.states.len() {
            match self.tokenizer.decoder[at].kind {
                StepKind::ByteFallback => self.flush_fallback(at, out),
                StepKind::Unspell => {
                    let rest = std::mem::take(&mut self.states[at].bytes);
                    self.feed(at + 1, &String::from_utf8_lossy(&rest), out);
                }
                _ => {}
            }
        }
    }

    /// Gives a token, or a part of joined text, to step `at`.
    fn feed(&mut self, at: usize, text: &str, out: &mut String) {
        let Some(&step) = self.tokenizer.decoder.get(at) else { return out.push_str(text) };
        match (step.kind, step.dfa) {
            (StepKind::Unspell, _) => match byte_level::bytes_of(text) {
                Some(bytes) => self.unspell(at, &bytes, out),
                None => self.unspell(at, text.as_bytes(), out),
            },
            (StepKind::ByteFallback, _) => match byte_token(text) {
                Some(byte) => self.states[at].bytes.push(byte),
                None => {
                    self.flush_fallback(at, out);
                    self.feed(at + 1, text, out);
                }
            },
            (StepKind::Join, _) => {
                if std::mem::replace(&mut self.states[at].started, true) {
                    self.feed(at + 1, step.text, out);
                }
                self.feed(at + 1, text, out);
            }
            (StepKind::Replace, Some(dfa)) => match replace(text, &dfa, step.text) {
                Some(changed) => self.feed(at + 1, &changed, out),
                None => self.feed(at + 1, text, out),
            },
            (StepKind::Metaspace, _) => self.metaspace(at, &step, text, out),
            (StepKind::Strip, _) if self.states[at].fused => self.strip_stream(at, &step, text, out),
            (StepKind::Strip, _) => self.feed(at + 1, strip_token(&step, text), out),
            _ => self.feed(at + 1, text, out),
        }
    }

    /// Passes on the whole characters of `bytes` and those before them.
    fn unspell(&mut self, at: usize, bytes: &[u8], out: &mut String) {
        let mut pending = std::mem::take(&mut self.states[at].bytes);
        pending.extend_from_slice(bytes);
        let whole = pending.len() - unfinished(&pending);
        self.feed(at + 1, &String::from_utf8_lossy(&pending[..whole]), out);
        pending.drain(..whole);
        self.states[at].bytes = pending;
    }

    /// A run of byte tokens is text if all of it is UTF-8, else one U+FFFD per byte.
    fn flush_fallback(&mut self, at: usize, out: &mut String) {
        let run = std::mem::take(&mut self.states[at].bytes);
        match String::from_utf8(run) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => self.feed(at + 1, &text, out),
            Err(broken) => broken.as_bytes().iter().for_each(|_| self.feed(at + 1, "\u{FFFD}", out)),
        }
    }

    fn metaspace(&mut self, at: usize, step: &Resolved<'_>, text: &str, out: &mut String) {
        let first = !std::mem::replace(&mut self.states[at].started, true);
        let space = if first && step.options[0] != 0 { "" } else { " " };
        match step.text {
            "" => self.feed(at + 1, text, out),
            mark => self.feed(at + 1, &text.replace(mark, space), out),
        }
    }

    /// Strips joined text that is still growing.
    fn strip_stream(&mut self, at: usize, step: &Resolved<'_>, text: &str, out: &mut String) {
        let mark = step.text.chars().next().unwrap_or(' ');
        let mut kept = String::with_capacity(text.len());
        let state = &mut self.states[at];
        for c in text.chars() {
            if c == mark && state.strip > 0 {
                state.strip -= 1;
            } else if c == mark && state.held < step.options[0] as usize {
                state.held += 1;
            } else {
                if c != mark {
                    state.strip = 0;
                    kept.extend(std::iter::repeat_n(mark, std::mem::take(&mut state.held)));
                }
                kept.push(c);
            }
        }
        self.feed(at + 1, &kept, out);
    }
}

/// Bytes at the end that a character could still be completed from.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    // The tail may begin inside a character; only where it ends matters.
    (1..=tail.len()).rev().map(|len| &tail[tail.len() - len..]).find(|t| could_grow(t)).map_or(0, <[u8]>::len)
}

fn could_grow(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(e) if e.valid_up_to() == 0 && e.error_len().is_none())
}

/// The byte of a token like `<0x0A>`.
pub(super) fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

fn strip_token<'s>(step: &Resolved<'_>, text: &'s str) -> &'s str {
    let mark = step.text.chars().next().unwrap_or(' ');
    let start = text.chars().take(step.argument as usize).take_while(|&c| c == mark).count();
    let text = &text[start * mark.len_utf8()..];
    let end = text.chars().rev().take(step.options[0] as usize).take_while(|&c| c == mark).count();
    &text[..text.len() - end * mark.len_utf8()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_characters_are_held() {
        let cases: [(&[u8], usize); 8] = [
            (b"a", 0),
            ("가".as_bytes(), 0),
            (&"가".as_bytes()[..2], 2),
            (b"a\xF0\x9F\x98", 3),
            (b"\xF0\x9F", 2),
            (b"\x80\x80\x80", 0),
            (b"\xE0\x80", 0),
            (b"\xED\x9F\xE1", 1),
        ];
        for (bytes, want) in cases {
            assert_eq!(unfinished(bytes), want, "{bytes:x?}");
        }
    }
}
