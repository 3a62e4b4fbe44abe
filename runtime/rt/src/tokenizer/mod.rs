//! Text to tokens and back, over the mapped tables of [`llmc_abi::tokenizer`].
//!
//! Nothing is parsed or copied at start. Encoding follows the stages of Hugging Face's `tokenizers`:
//! added tokens, normalizer, pre-tokenizer, byte-pair merges, template. Text from a user is encoded
//! by [`Tokenizer::encode_plain`] or as [`Piece::Text`], in which nothing becomes a control token.

mod added;
mod bpe;
mod decode;
mod encode;
mod normalize;
mod pretokenize;
mod replace;
mod stream;

use std::borrow::Cow;

use llmc_abi::tokenizer::{
    self as abi, Dfa, Field, MAX_STEPS, NONE, Section, Step, StepKind, Steps, Tables, Trie, byte_level, flags, token,
};

pub use abi::Error;
pub use encode::Piece;
pub use stream::StreamDecoder;

/// A compiled tokenizer; cheap to make, and shared between threads.
#[derive(Debug)]
pub struct Tokenizer<'a> {
    tables: Tables<'a>,
    normalizer: Vec<Resolved<'a>>,
    pre_tokenizer: Vec<Resolved<'a>>,
    decoder: Vec<Resolved<'a>>,
    added_raw: Trie<'a>,
    added_normalized: Trie<'a>,
    added_special: Trie<'a>,
    word: Option<Dfa<'a>>,
    cut_before: Option<char>,
}

/// A step with what it names.
#[derive(Clone, Copy, Debug)]
struct Resolved<'a> {
    kind: StepKind,
    options: [u8; 3],
    argument: u32,
    text: &'a str,
    dfa: Option<Dfa<'a>>,
}

fn resolve<'a>(tables: &Tables<'a>, section: Section) -> Result<Vec<Resolved<'a>>, Error> {
    let bad = Error::Step { section: section as usize };
    let steps: Vec<Step> =
        Steps(tables.section(section)).iter().take(MAX_STEPS + 1).collect::<Option<_>>().ok_or(bad)?;
    if steps.len() > MAX_STEPS {
        return Err(bad);
    }
    let resolved = |s: Step| {
        let dfa = match s.kind {
            StepKind::Replace | StepKind::Split => Some(tables.dfa(s.argument).ok_or(bad)?),
            _ => None,
        };
        Ok(Resolved { kind: s.kind, options: s.options, argument: s.argument, text: tables.text(&s), dfa })
    };
    steps.into_iter().map(resolved).collect()
}

impl<'a> Tokenizer<'a> {
    /// Opens compiled bytes where they lie; the time does not grow with the vocabulary.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, Error> {
        let tables = Tables::parse(bytes)?;
        let trie = |section| Trie::new(tables.section(section));
        Ok(Tokenizer {
            normalizer: resolve(&tables, Section::Normalizer)?,
            pre_tokenizer: resolve(&tables, Section::PreTokenizer)?,
            decoder: resolve(&tables, Section::Decoder)?,
            added_raw: trie(Section::AddedRaw),
            added_normalized: trie(Section::AddedNormalized),
            added_special: trie(Section::AddedSpecial),
            word: Some(tables.field(Field::WordDfa)).filter(|&at| at != NONE).and_then(|at| tables.dfa(at)),
            cut_before: char::from_u32(tables.field(Field::CutBefore)),
            tables,
        })
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> u32 {
        self.tables.vocab_size()
    }

    /// The token spelled `text`, as tokenizer.json spells it.
    pub fn token_to_id(&self, text: &str) -> Option<u32> {
        let spelled = if self.tables.has(flags::BYTE_LEVEL) { byte_level::bytes_of(text) } else { None };
        match spelled {
            Some(bytes) => self.tables.lookup(&bytes, token::LITERAL, 0),
            None => self.tables.lookup(text.as_bytes(), token::LITERAL, token::LITERAL),
        }
    }

    /// A token's spelling in tokenizer.json.
    pub fn id_to_token(&self, id: u32) -> Option<Cow<'a, str>> {
        let flags = self.tables.token_flags(id);
        if flags & token::PRESENT == 0 {
            return None;
        }
        let bytes = self.tables.token_bytes(id)?;
        Some(match flags & token::LITERAL {
            0 => byte_level::spell(bytes).into(),
            _ => String::from_utf8_lossy(bytes),
        })
    }

    /// Whether a token is a control token.
    pub fn is_special(&self, id: u32) -> bool {
        self.tables.token_flags(id) & token::SPECIAL != 0
    }
}
