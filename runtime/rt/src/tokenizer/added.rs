//! Finding added tokens in a text.

use llmc_abi::tokenizer::{Trie, TrieMatch, added};

use super::Tokenizer;

/// Which special tokens a text may hold.
#[derive(Clone, Copy)]
pub(super) enum Trust<'r> {
    /// Any.
    All,
    /// None.
    Nothing,
    /// Those that lie within one of these byte ranges, ascending and disjoint.
    Ranges(&'r [(usize, usize)]),
}

impl Trust<'_> {
    fn covers(&self, start: usize, end: usize) -> bool {
        match self {
            Trust::All => true,
            Trust::Nothing => false,
            Trust::Ranges(ranges) => {
                let i = ranges.partition_point(|r| r.1 < end);
                ranges.get(i).is_some_and(|r| r.0 <= start && end <= r.1)
            }
        }
    }

    /// Whether no byte of a place may be special.
    fn excludes(&self, start: usize, end: usize) -> bool {
        match self {
            Trust::All => false,
            Trust::Nothing => true,
            Trust::Ranges(ranges) => {
                let i = ranges.partition_point(|r| r.1 <= start);
                ranges.get(i).is_none_or(|r| r.0 >= end)
            }
        }
    }
}

/// A stretch of text.
pub(super) enum Stretch {
    /// Text between added tokens: start and end.
    Text(usize, usize),
    /// An added token.
    Token(u32),
}

impl Tokenizer<'_> {
    /// Cuts a text as given at added tokens that ask for that.
    pub(super) fn cut_raw(&self, text: &str, trust: Trust<'_>, emit: impl FnMut(Stretch)) {
        // In text that is trusted in part, special tokens are always found as they are spelled:
        // after normalization it is no longer known which part is which.
        let special = matches!(trust, Trust::Ranges(_)).then_some(self.added_special);
        self.cut(text, self.added_raw, special, trust, emit);
    }

    /// Cuts normalized text at the other added tokens.
    pub(super) fn cut_normalized(&self, text: &str, trust: Trust<'_>, emit: impl FnMut(Stretch)) {
        let trust = if matches!(trust, Trust::All) { Trust::All } else { Trust::Nothing };
        self.cut(text, self.added_normalized, None, trust, emit);
    }

    fn cut(
        &self,
        text: &str,
        trie: Trie<'_>,
        special: Option<Trie<'_>>,
        trust: Trust<'_>,
        mut emit: impl FnMut(Stretch),
    ) {
        let bytes = text.as_bytes();
        let (mut at, mut done) = (0, 0);
        while at < bytes.len() && !(trie.is_empty() && special.is_none()) {
            let allow = |m: &TrieMatch| !m.is_special() || trust.covers(at, at + m.len);
            let named = special.and_then(|s| s.longest(&bytes[at..], allow));
            let found = trie.longest(&bytes[at..], allow).into_iter().chain(named).max_by_key(|m| m.len);
            let whole = |m: &TrieMatch| text.is_char_boundary(at) && text.is_char_boundary(at + m.len);
            let Some(found) = found.filter(whole) else {
                at += self.refused(trie, &bytes[at..], at, trust);
                continue;
            };
            let end = at + found.len;
            if let Some((start, stop)) = self.place(text, &found, at, end, done) {
                if done < start {
                    emit(Stretch::Text(done, start));
                }
                emit(Stretch::Token(found.id));
                done = stop;
            }
            at = end;
        }
        if done < bytes.len() {
            emit(Stretch::Text(done, bytes.len()));
        }
    }

    /// Bytes to go on by where no token may be: all of a special token that a user spelled, so that
    /// no other token is found inside it.
    fn refused(&self, trie: Trie<'_>, bytes: &[u8], at: usize, trust: Trust<'_>) -> usize {
        match trust {
            Trust::All => 1,
            _ => trie.longest(bytes, |m| trust.excludes(at, at + m.len)).map_or(1, |m| m.len),
        }
    }

    /// What a found token takes: its start and end with white space around, or `None` where it has
    /// to be a single word and is not.
    fn place(&self, text: &str, found: &TrieMatch, start: usize, end: usize, done: usize) -> Option<(usize, usize)> {
        let (before, after) = (&text[..start], &text[end..]);
        let is_word = |c: Option<char>| {
            c.is_some_and(|c| self.word.is_some_and(|w| w.match_len(c.encode_utf8(&mut [0; 4])).is_some()))
        };
        if found.flags & added::SINGLE_WORD != 0
            && (is_word(before.chars().next_back()) || is_word(after.chars().next()))
        {
            return None;
        }
        let start = if found.flags & added::LSTRIP != 0 { before.trim_end().len().max(done) } else { start };
        let stop = if found.flags & added::RSTRIP != 0 { text.len() - after.trim_start().len() } else { end };
        Some((start, stop))
    }
}
