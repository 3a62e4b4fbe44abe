//! The compiled tokenizer: its byte format and checked views of it.
//!
//! The bytes are a header (magic, scalar fields, a table of sections) and the sections. All integers
//! are little-endian and no view needs alignment, so the bytes are used where they are mapped.
//! Opening checks the header and the sections' bounds only; every later access is bounds-checked
//! and yields "nothing" outside, so damaged bytes give wrong tokens but never a panic.

pub mod byte_level;
mod bytes;
mod dfa;
mod hash;
mod steps;
mod tables;
mod trie;

pub use bytes::{read_u16, read_u32, read_u64};
pub use dfa::{ACCEPT, ACCEPT_BEFORE_LAST, CHAR_PAGES, DEAD, Dfa, END_CLASS, START};
pub use hash::{hash_bytes, hash_pair, slot_of};
pub use steps::{Behavior, Step, StepKind, Steps};
pub use tables::{Error, Tables};
pub use trie::{Trie, TrieMatch};

/// First bytes of a compiled tokenizer; the last one is the format's version.
pub const MAGIC: [u8; 8] = *b"LLMCTOK1";
/// No token, no text.
pub const NONE: u32 = u32::MAX;
/// Token ids and merge ranks are below this; a merge packs four numbers of 24 bits.
pub const ID_LIMIT: u32 = (1 << 24) - 1;
/// Most steps of one kind (normalizer, pre-tokenizer, decoder).
pub const MAX_STEPS: usize = 64;

/// Scalar fields of the header: u32 each, after the magic, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Field {
    /// Bits of [`flags`].
    Flags,
    /// One more than the largest token id.
    VocabSize,
    /// Slots of the lookup table.
    LookupSlots,
    /// Slots of the merge table.
    MergeSlots,
    /// Token for what the vocabulary cannot express, or [`NONE`].
    Unk,
    /// A character before which a word may be cut when the one before it differs, since no merge
    /// crosses that place; [`NONE`] if there is none.
    CutBefore,
    /// Byte in [`Section::Dfas`] of the table of one word character; [`NONE`] if no token asks for it.
    WordDfa,
}

/// Number of [`Field`]s.
pub const FIELDS: usize = 7;

/// Sections, in the order of the header's table of (offset, length), u32 each, after the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Section {
    /// `vocab_size + 1` u32: where each token starts in [`Section::VocabBytes`].
    VocabOffsets,
    /// Tokens one after another: bytes they stand for, or their spelling where [`token::LITERAL`].
    VocabBytes,
    /// One byte per token, bits of [`token`].
    TokenFlags,
    /// Open addressing, linear probing: (hash u32, id u32); an empty slot has id [`NONE`].
    Lookup,
    /// Open addressing, linear probing: left, right, rank, result, 24 bits each; empty is all ones.
    Merges,
    /// 256 u32: token of each byte ([`NONE`] if none): the alphabet of a byte-level vocabulary,
    /// the `<0xNN>` tokens of one with byte fallback.
    ByteIds,
    /// [`Trie`] of added tokens that are looked for in the text as given.
    AddedRaw,
    /// [`Trie`] of added tokens that are looked for in normalized text.
    AddedNormalized,
    /// [`Trie`] of all special tokens as spelled, for text of which only parts may be special.
    AddedSpecial,
    /// [`Steps`] of the normalizer.
    Normalizer,
    /// [`Steps`] of the pre-tokenizer.
    PreTokenizer,
    /// [`Steps`] of the decoder.
    Decoder,
    /// Texts that steps name by offset and length.
    Text,
    /// [`Dfa`]s that steps name by offset.
    Dfas,
    /// u32 ids put before an encoded text when special tokens are asked for.
    Prefix,
    /// u32 ids put after it.
    Suffix,
    /// Sorted (first, last) u32 pairs of code points that normalization passes unchanged.
    Inert,
}

/// Number of [`Section`]s.
pub const SECTIONS: usize = 17;
/// Bytes before the first section.
pub const HEADER_BYTES: usize = 8 + 4 * FIELDS + 8 * SECTIONS;

/// Bits of [`Field::Flags`].
pub mod flags {
    /// Words are bytes, each of them a symbol of the vocabulary.
    pub const BYTE_LEVEL: u32 = 1;
    /// A character outside the vocabulary becomes its bytes' tokens.
    pub const BYTE_FALLBACK: u32 = 2;
    /// A word in the vocabulary is taken whole, whatever the merges say.
    pub const IGNORE_MERGES: u32 = 4;
    /// Neighbouring unknown characters make one unknown token.
    pub const FUSE_UNK: u32 = 8;
    /// Merges or single characters can make a special token's id.
    pub const SPECIAL_REACHABLE: u32 = 16;
}

/// Bits of [`Section::TokenFlags`].
pub mod token {
    /// The id is used.
    pub const PRESENT: u8 = 1;
    /// Control token: left out of text when asked, never made of a user's text.
    pub const SPECIAL: u8 = 2;
    /// The stored bytes are the token's spelling, not bytes it stands for.
    pub const LITERAL: u8 = 4;
    /// Merging the token's own symbols gives the token.
    pub const CLOSED: u8 = 8;
    /// In the model's vocabulary (others are only added tokens).
    pub const MODEL: u8 = 16;
}

/// Bits that say how an added token is matched, in a [`Trie`]'s payload above the id.
pub mod added {
    /// Only where no word character touches it.
    pub const SINGLE_WORD: u32 = 1;
    /// Takes the white space before it.
    pub const LSTRIP: u32 = 2;
    /// Takes the white space after it.
    pub const RSTRIP: u32 = 4;
    /// Control token.
    pub const SPECIAL: u32 = 8;
}
