//! Replacing what a table matches.

use llmc_abi::tokenizer::Dfa;

/// A text may grow to this many times its size and [`SLACK`] bytes; only damaged tables ask for more.
const GROWTH: usize = 64;
const SLACK: usize = 1 << 16;

/// `text` with all matches replaced, or `None` where there are none.
pub(super) fn replace(text: &str, dfa: &Dfa<'_>, by: &str) -> Option<String> {
    let mut found = dfa.find(text, 0)?;
    let limit = text.len().saturating_mul(GROWTH).saturating_add(SLACK);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    loop {
        out.push_str(&text[done..found.0]);
        if out.len() < limit {
            out.push_str(by);
        }
        done = found.1;
        match dfa.find(text, done) {
            Some(next) => found = next,
            None => break,
        }
    }
    out.push_str(&text[done..]);
    Some(out)
}
