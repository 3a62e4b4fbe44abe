//! Text to token ids.

use llmc_abi::tokenizer::{Field, NONE, Section, byte_level, flags, token};

use super::Tokenizer;
use super::added::{Stretch, Trust};
use super::bpe;

/// A piece of a text of which only some parts may hold special tokens, as a chat template makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'t> {
    /// From a user: never a control token, whatever it spells.
    Text(&'t str),
    /// From the template: special tokens spelled in it are meant.
    Special(&'t str),
}

impl Tokenizer<'_> {
    /// The ids of `text`, in which special tokens may be spelled; with `add_special` also those that
    /// the tokenizer puts before and after (the beginning of text, mostly).
    pub fn encode(&self, text: &str, add_special: bool) -> Vec<u32> {
        let ids = self.run(text, Trust::All);
        if add_special { self.add_special(&ids) } else { ids }
    }

    /// The ids of a text that may spell special tokens: [`Tokenizer::encode`] without more.
    pub fn encode_with_special(&self, text: &str) -> Vec<u32> {
        self.run(text, Trust::All)
    }

    /// The ids of a text from a user: never a control token, whatever it spells.
    pub fn encode_plain(&self, text: &str) -> Vec<u32> {
        self.run(text, Trust::Nothing)
    }

    /// The ids of pieces put together: as if of the joined text, but that special tokens are
    /// found only within [`Piece::Special`].
    pub fn encode_mixed(&self, pieces: &[Piece<'_>]) -> Vec<u32> {
        let mut text = String::new();
        let mut trusted: Vec<(usize, usize)> = Vec::new();
        for piece in pieces {
            let start = text.len();
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Special(part) => {
                    text.push_str(part);
                    match trusted.last_mut() {
                        Some(last) if last.1 == start => last.1 = text.len(),
                        _ => trusted.push((start, text.len())),
                    }
                }
            }
        }
        self.run(&text, Trust::Ranges(&trusted))
    }

    /// `ids` with those that the tokenizer puts before and after a text.
    pub fn add_special(&self, ids: &[u32]) -> Vec<u32> {
        let (prefix, suffix) = (self.tables.ids(Section::Prefix), self.tables.ids(Section::Suffix));
        prefix.chain(ids.iter().copied()).chain(suffix).collect()
    }

    fn run(&self, text: &str, trust: Trust<'_>) -> Vec<u32> {
        let guarded = !matches!(trust, Trust::All) && self.tables.has(flags::SPECIAL_REACHABLE);
        let mut encoder =
            Encoder { tokenizer: self, guarded, ids: Vec::with_capacity(text.len() / 3), symbols: Vec::new() };
        self.cut_raw(text, trust, |stretch| match stretch {
            Stretch::Token(id) => encoder.ids.push(id),
            Stretch::Text(start, end) => encoder.stretch(&text[start..end], start == 0, trust),
        });
        encoder.ids
    }
}

/// One run of encoding.
pub(super) struct Encoder<'e, 'a> {
    pub(super) tokenizer: &'e Tokenizer<'a>,
    /// Merges must not make special tokens.
    guarded: bool,
    ids: Vec<u32>,
    symbols: Vec<u32>,
}

impl Encoder<'_, '_> {
    /// Text without added tokens as given.
    fn stretch(&mut self, text: &str, first: bool, trust: Trust<'_>) {
        let text = self.tokenizer.normalize(text);
        let tokenizer = self.tokenizer;
        tokenizer.cut_normalized(&text, trust, |stretch| match stretch {
            Stretch::Token(id) => self.ids.push(id),
            Stretch::Text(start, end) => self.pre_tokenize(0, &text[start..end], first && start == 0, false),
        });
    }

    /// One word of the pre-tokenizer.
    pub(super) fn word(&mut self, text: &str, spelled: bool) {
        if spelled {
            match byte_level::bytes_of(text) {
                Some(bytes) => self.model_word(&bytes),
                None => self.model_word(text.as_bytes()),
            }
        } else {
            self.model_word(text.as_bytes());
        }
    }

    /// Flags of tokens that words are made of.
    fn word_flags(&self) -> u8 {
        if self.tokenizer.tables.has(flags::BYTE_LEVEL) { token::MODEL } else { token::MODEL | token::LITERAL }
    }

    fn lookup(&self, word: &[u8], also: u8) -> Option<u32> {
        let mask = token::MODEL | token::LITERAL | also;
        let id = self.tokenizer.tables.lookup(word, mask, self.word_flags() | also)?;
        (!self.guarded || !self.tokenizer.is_special(id)).then_some(id)
    }

    fn model_word(&mut self, word: &[u8]) {
        if word.is_empty() {
            return;
        }
        if self.tokenizer.tables.has(flags::IGNORE_MERGES)
            && let Some(id) = self.lookup(word, 0)
        {
            return self.ids.push(id);
        }
        match self.tokenizer.cut_before.map(|mark| (mark, std::str::from_utf8(word))) {
            Some((mark, Ok(text))) => self.parts(text, mark),
            Some((_, Err(_))) | None => self.part(word),
        }
    }

    /// Parts between which no merge is possible.
    fn parts(&mut self, text: &str, mark: char) {
        let (mut start, mut before) = (0, mark);
        for (i, c) in text.char_indices() {
            if c == mark && before != mark {
                self.part(&text.as_bytes()[start..i]);
                start = i;
            }
            before = c;
        }
        self.part(&text.as_bytes()[start..]);
    }

    fn part(&mut self, word: &[u8]) {
        if let Some(id) = self.lookup(word, token::CLOSED) {
            return self.ids.push(id);
        }
        self.symbols.clear();
        if self.tokenizer.tables.has(flags::BYTE_LEVEL) {
            self.put_bytes(word);
        } else {
            self.put_chars(&String::from_utf8_lossy(word));
        }
        let (tables, guarded) = (&self.tokenizer.tables, self.guarded);
        let special = |id: u32| tables.token_flags(id) & token::SPECIAL != 0;
        bpe::merge_all(&mut self.symbols, |left, right| {
            tables.merge(left, right).filter(|m| !guarded || !special(m.1))
        });
        self.ids.extend_from_slice(&self.symbols);
    }

    fn put_bytes(&mut self, word: &[u8]) {
        let mut unknown = false;
        for &b in word {
            let id = self.tokenizer.tables.byte_id(b).filter(|&id| !self.guarded || !self.tokenizer.is_special(id));
            self.put(id, &mut unknown);
        }
    }

    fn put_chars(&mut self, text: &str) {
        let mut unknown = false;
        // An unknown token waits until what follows is known, so that neighbours can fuse; bytes of
        // a character outside the vocabulary do not end the wait, as in the library.
        let mut waiting = Vec::new();
        for (i, c) in text.char_indices() {
            let char_bytes = &text.as_bytes()[i..i + c.len_utf8()];
            match self.lookup(char_bytes, 0) {
                Some(id) => {
                    self.symbols.append(&mut waiting);
                    unknown = false;
                    self.symbols.push(id);
                }
                None if self.put_fallback(char_bytes) => {}
                None => self.put_unknown(&mut unknown, &mut waiting),
            }
        }
        self.symbols.append(&mut waiting);
    }

    fn put_unknown(&mut self, unknown: &mut bool, waiting: &mut Vec<u32>) {
        let unk = self.tokenizer.tables.field(Field::Unk);
        if unk == NONE || (*unknown && self.tokenizer.tables.has(flags::FUSE_UNK)) {
            return;
        }
        self.symbols.append(waiting);
        waiting.push(unk);
        *unknown = true;
    }

    /// The tokens of a character's bytes, if byte fallback has all of them.
    fn put_fallback(&mut self, bytes: &[u8]) -> bool {
        let tables = &self.tokenizer.tables;
        if !tables.has(flags::BYTE_FALLBACK) || bytes.iter().any(|&b| tables.byte_id(b).is_none()) {
            return false;
        }
        self.symbols.extend(bytes.iter().filter_map(|&b| tables.byte_id(b)));
        true
    }

    fn put(&mut self, id: Option<u32>, unknown: &mut bool) {
        let unk = Some(self.tokenizer.tables.field(Field::Unk)).filter(|&unk| unk != NONE);
        let fused = id.is_none() && *unknown && self.tokenizer.tables.has(flags::FUSE_UNK);
        *unknown = id.is_none();
        self.symbols.extend(id.or(unk).filter(|_| !fused));
    }
}
