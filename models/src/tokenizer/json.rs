//! The parts of a tokenizer.json that llmc compiles, with the `tokenizers` library's defaults.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::TokenizerError;

/// The file but for the model's vocabulary and merges.
#[derive(Deserialize)]
pub struct Head {
    #[serde(default)]
    pub added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub normalizer: Value,
    #[serde(default)]
    pub pre_tokenizer: Value,
    #[serde(default)]
    pub post_processor: Value,
    #[serde(default)]
    pub decoder: Value,
    pub model: ModelHead,
}

/// The model's kind; files older than 2020 leave it out for BPE.
#[derive(Deserialize)]
pub struct ModelHead {
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// The file's model alone.
#[derive(Deserialize)]
pub struct Body {
    pub model: Bpe,
}

/// A byte-pair-encoding model.
#[derive(Deserialize)]
pub struct Bpe {
    pub dropout: Option<f32>,
    pub unk_token: Option<String>,
    pub continuing_subword_prefix: Option<String>,
    pub end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub fuse_unk: Option<bool>,
    #[serde(default)]
    pub byte_fallback: Option<bool>,
    #[serde(default)]
    pub ignore_merges: Option<bool>,
    pub vocab: BTreeMap<String, u32>,
    pub merges: Merges,
}

/// Merges as pairs, or as in a merges.txt.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Merges {
    Pairs(Vec<(String, String)>),
    Lines(Vec<String>),
}

/// A token added to the model's vocabulary.
#[derive(Deserialize)]
pub struct AddedToken {
    pub content: String,
    pub single_word: bool,
    pub lstrip: bool,
    pub rstrip: bool,
    pub normalized: bool,
    pub special: bool,
}

/// A text or a regular expression.
#[derive(Deserialize)]
pub enum Pattern {
    String(String),
    Regex(String),
}

#[derive(Deserialize)]
#[serde(tag = "type")]
pub enum Normalizer {
    #[serde(rename = "NFC")]
    Nfc,
    #[serde(rename = "NFD")]
    Nfd,
    #[serde(rename = "NFKC")]
    Nfkc,
    #[serde(rename = "NFKD")]
    Nfkd,
    Lowercase,
    StripAccents,
    Nmt,
    Strip {
        strip_left: bool,
        strip_right: bool,
    },
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    Sequence {
        normalizers: Vec<Normalizer>,
    },
}

/// What becomes of matches where a text is cut.
#[derive(Clone, Copy, Default, Deserialize)]
pub enum Behavior {
    Removed,
    #[default]
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PrependScheme {
    First,
    Never,
    #[default]
    Always,
}

#[derive(Deserialize)]
pub struct Metaspace {
    pub replacement: char,
    pub add_prefix_space: Option<bool>,
    #[serde(default)]
    pub prepend_scheme: PrependScheme,
    pub split: Option<bool>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(tag = "type")]
pub enum PreTokenizer {
    ByteLevel {
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Split {
        pattern: Pattern,
        behavior: Behavior,
        invert: bool,
    },
    Metaspace(Metaspace),
    Digits {
        individual_digits: bool,
    },
    Punctuation {
        #[serde(default)]
        behavior: Behavior,
    },
    Whitespace,
    WhitespaceSplit,
    CharDelimiterSplit {
        delimiter: char,
    },
    Sequence {
        pretokenizers: Vec<PreTokenizer>,
    },
}

#[derive(Deserialize)]
#[serde(tag = "type")]
pub enum PostProcessor {
    ByteLevel {},
    TemplateProcessing { single: Vec<Piece>, special_tokens: BTreeMap<String, SpecialToken> },
    RobertaProcessing { sep: (String, u32), cls: (String, u32) },
    BertProcessing { sep: (String, u32), cls: (String, u32) },
    Sequence { processors: Vec<PostProcessor> },
}

/// A piece of a template.
#[derive(Deserialize)]
pub enum Piece {
    Sequence { id: SequenceId },
    SpecialToken { id: String },
}

#[derive(Deserialize, PartialEq, Eq)]
pub enum SequenceId {
    A,
    B,
}

#[derive(Deserialize)]
pub struct SpecialToken {
    pub ids: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
pub enum Decoder {
    ByteLevel {},
    ByteFallback,
    Fuse,
    Metaspace(Metaspace),
    Replace { pattern: Pattern, content: String },
    Strip { content: char, start: usize, stop: usize },
    Sequence { decoders: Vec<Decoder> },
}

/// A part of the file as its type; absent parts are `null`.
pub fn part<T: DeserializeOwned>(part: &'static str, value: Value) -> Result<Option<T>, TokenizerError> {
    serde_json::from_value(value).map_err(|source| TokenizerError::Part { part, source })
}
