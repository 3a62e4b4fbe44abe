//! Vocabulary and merges to tables.

use std::collections::BTreeMap;

use llmc_abi::tokenizer::{ID_LIMIT, NONE, Section, byte_level, hash_bytes, hash_pair, slot_of, token};

use super::TokenizerError;
use super::json::{Bpe, Merges};
use super::sections::Sections;

/// A token as it is stored.
#[derive(Clone, Default)]
pub struct Token {
    pub bytes: Vec<u8>,
    pub flags: u8,
}

/// Tokens by id.
pub struct Vocab {
    pub tokens: Vec<Token>,
    byte_level: bool,
}

impl Vocab {
    /// The model's vocabulary.
    pub fn new(model: &Bpe, byte_level: bool) -> Result<Self, TokenizerError> {
        let largest = model.vocab.values().copied().max().unwrap_or(0);
        check_id(largest, model.vocab.len())?;
        let mut vocab = Vocab { tokens: vec![Token::default(); largest as usize + 1], byte_level };
        for (text, &id) in &model.vocab {
            let stored = vocab.stored(text);
            let slot = &mut vocab.tokens[id as usize];
            if slot.flags != 0 {
                return Err(TokenizerError::Inconsistent(format!(
                    "id {id} belongs to two tokens, one of them {text:?}"
                )));
            }
            *slot = Token { flags: stored.flags | token::PRESENT | token::MODEL, ..stored };
        }
        Ok(vocab)
    }

    /// How a token spelled `text` is stored.
    fn stored(&self, text: &str) -> Token {
        match byte_level::bytes_of(text).filter(|_| self.byte_level) {
            Some(bytes) => Token { bytes, flags: 0 },
            None => Token { bytes: text.as_bytes().to_vec(), flags: token::LITERAL },
        }
    }

    /// Adds a token, or marks the one that has its id.
    pub fn add(&mut self, text: &str, id: u32, special: bool) -> Result<(), TokenizerError> {
        check_id(id, self.tokens.len() + 1)?;
        let stored = self.stored(text);
        if self.tokens.len() <= id as usize {
            self.tokens.resize(id as usize + 1, Token::default());
        }
        let slot = &mut self.tokens[id as usize];
        if slot.flags & token::PRESENT != 0 && slot.bytes != stored.bytes {
            let found = String::from_utf8_lossy(&slot.bytes).into_owned();
            return Err(TokenizerError::Inconsistent(format!("added token {text:?} has the id {id} of {found:?}")));
        }
        let special = if special { token::SPECIAL } else { 0 };
        *slot = Token { flags: slot.flags | stored.flags | token::PRESENT | special, ..stored };
        Ok(())
    }

    /// The id of a model token by its stored bytes.
    fn by_bytes(&self) -> BTreeMap<&[u8], u32> {
        let of_words = |t: &&Token| t.flags & token::MODEL != 0 && (t.flags & token::LITERAL == 0) == self.byte_level;
        let ids = self.tokens.iter().zip(0..).filter(|(t, _)| of_words(t));
        ids.map(|(t, id)| (t.bytes.as_slice(), id)).collect()
    }

    /// Token of each byte: the alphabet, or the tokens of byte fallback.
    pub fn byte_ids(&self, model: &Bpe) -> Vec<u32> {
        let index = self.by_bytes();
        (0..=255u8)
            .map(|b| {
                let id = if self.byte_level {
                    index.get([b].as_slice()).copied()
                } else {
                    model.vocab.get(&format!("<{b:#04X}>")).copied()
                };
                id.unwrap_or(NONE)
            })
            .collect()
    }

    /// Whether a word could become a special token though no added token was found in it.
    pub fn special_reachable(&self, merges: &[Merge], ignore_merges: bool) -> bool {
        let special = |id: u32| self.tokens[id as usize].flags & token::SPECIAL != 0;
        let single = |t: &Token| {
            if self.byte_level { t.bytes.len() == 1 } else { String::from_utf8_lossy(&t.bytes).chars().count() == 1 }
        };
        let word = |t: &&Token| t.flags & (token::SPECIAL | token::MODEL) == token::SPECIAL | token::MODEL;
        merges.iter().any(|m| special(m.result)) || self.tokens.iter().filter(word).any(|t| ignore_merges || single(t))
    }

    /// Writes vocabulary and lookup table; gives the lookup table's slots.
    pub fn write(&self, out: &mut Sections) -> u32 {
        let mut at = 0u32;
        let offsets = std::iter::once(0).chain(self.tokens.iter().map(|t| {
            at += t.bytes.len() as u32;
            at
        }));
        out.put_u32s(Section::VocabOffsets, offsets.collect::<Vec<_>>());
        out.put(Section::VocabBytes, self.tokens.iter().flat_map(|t| &t.bytes).copied().collect());
        out.put(Section::TokenFlags, self.tokens.iter().map(|t| t.flags).collect());
        let present = self.tokens.iter().zip(0u32..).filter(|(t, _)| t.flags & token::PRESENT != 0);
        let entries: Vec<(u32, u32)> = present.map(|(t, id)| (hash_bytes(&t.bytes), id)).collect();
        let slots = slots_for(entries.len());
        let table = fill(slots, entries.into_iter().map(|(hash, id)| (hash, (hash, id))));
        out.put_u32s(Section::Lookup, table.into_iter().flat_map(|e| e.map_or([0, NONE], |(hash, id)| [hash, id])));
        slots
    }
}

fn check_id(id: u32, tokens: usize) -> Result<(), TokenizerError> {
    if id >= ID_LIMIT || id as usize > 4 * tokens + 65536 {
        return Err(TokenizerError::Inconsistent(format!("token id {id} is out of proportion to {tokens} tokens")));
    }
    Ok(())
}

fn slots_for(entries: usize) -> u32 {
    (entries + entries / 3 + 1) as u32
}

/// Open addressing with linear probing; entries are (hash, value).
fn fill<T: Copy>(slots: u32, entries: impl Iterator<Item = (u32, T)>) -> Vec<Option<T>> {
    let mut table = vec![None; slots as usize];
    for (hash, value) in entries {
        let mut slot = slot_of(hash, slots) as usize;
        while table[slot].is_some() {
            slot = (slot + 1) % table.len();
        }
        table[slot] = Some(value);
    }
    table
}

/// Two tokens that become one.
#[derive(Clone, Copy)]
pub struct Merge {
    pub left: u32,
    pub right: u32,
    pub rank: u32,
    pub result: u32,
}

/// The model's merges; of a pair that occurs twice the later rank counts, as in the library.
pub fn merges(model: &Bpe) -> Result<Vec<Merge>, TokenizerError> {
    let pairs: Vec<(&str, &str)> = match &model.merges {
        Merges::Pairs(pairs) => pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect(),
        Merges::Lines(lines) => {
            lines.iter().filter(|l| !l.starts_with("#version")).map(|l| split_line(l)).collect::<Result<_, _>>()?
        }
    };
    if pairs.len() >= ID_LIMIT as usize {
        return Err(TokenizerError::Inconsistent(format!("{} merges; at most {ID_LIMIT} are supported", pairs.len())));
    }
    let mut by_pair = BTreeMap::new();
    let mut joined = String::new();
    for ((a, b), rank) in pairs.into_iter().zip(0..) {
        joined.clear();
        joined.extend([a, b]);
        let id = |text: &str| {
            let unknown = || {
                TokenizerError::Inconsistent(format!(
                    "merge {rank} of {a:?} and {b:?}: {text:?} is not in the vocabulary"
                ))
            };
            model.vocab.get(text).copied().ok_or_else(unknown)
        };
        by_pair.insert((id(a)?, id(b)?), (rank, id(&joined)?));
    }
    Ok(by_pair.into_iter().map(|((left, right), (rank, result))| Merge { left, right, rank, result }).collect())
}

fn split_line(line: &str) -> Result<(&str, &str), TokenizerError> {
    let bad = || TokenizerError::Inconsistent(format!("merge {line:?} is not two tokens with a space between"));
    let (a, b) = line.split_once(' ').ok_or_else(bad)?;
    if b.contains(' ') { Err(bad()) } else { Ok((a, b)) }
}

/// Writes the merge table; gives its slots.
pub fn write_merges(out: &mut Sections, merges: &[Merge]) -> u32 {
    let slots = slots_for(merges.len());
    let table = fill(slots, merges.iter().map(|m| (hash_pair(m.left, m.right), *m)));
    let bytes = table.into_iter().flat_map(|entry| match entry {
        Some(m) => [m.left, m.right, m.rank, m.result],
        None => [ID_LIMIT; 4],
    });
    out.put(Section::Merges, bytes.flat_map(|v| [v as u8, (v >> 8) as u8, (v >> 16) as u8]).collect());
    slots
}

/// SentencePiece's mark of a space, if words may be cut before it: no merge joins a token that
/// ends otherwise with one that starts with it.
pub fn cut_before(model: &Bpe, merges: &[Merge], vocab: &Vocab) -> Option<char> {
    const MARK: &str = "\u{2581}";
    let bytes = |id: u32| vocab.tokens[id as usize].bytes.as_slice();
    let crosses = |m: &Merge| !bytes(m.left).ends_with(MARK.as_bytes()) && bytes(m.right).starts_with(MARK.as_bytes());
    (model.vocab.contains_key(MARK) && !vocab.byte_level && !merges.iter().any(crosses)).then_some('\u{2581}')
}
