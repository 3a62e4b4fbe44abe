//! View of a whole compiled tokenizer.

use super::bytes::{read_u32, read_u64};
use super::hash::{hash_bytes, hash_pair, slot_of};
use super::*;

/// Bytes of a slot of the lookup table.
const LOOKUP_BYTES: usize = 8;
/// Bytes of a slot of the merge table.
const MERGE_BYTES: usize = 12;
/// Bits of a pair in the first eight bytes of a merge; all of them in an empty slot.
const PAIR_MASK: u64 = (1 << 48) - 1;

/// Why bytes are not a compiled tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The first bytes are not [`MAGIC`].
    Magic,
    /// Shorter than the header.
    Short {
        /// Bytes there are.
        len: usize,
    },
    /// A section reaches beyond the end.
    Bounds {
        /// Index in [`Section`].
        section: usize,
    },
    /// A section's size does not fit the header's numbers.
    Size {
        /// Index in [`Section`].
        section: usize,
    },
    /// A step of unknown kind, or one whose table lies outside.
    Step {
        /// Index in [`Section`].
        section: usize,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Magic => write!(f, "not a compiled tokenizer of this version: the first bytes are not LLMCTOK1"),
            Error::Short { len } => {
                write!(f, "compiled tokenizer is cut off: {len} bytes, its header has {HEADER_BYTES}")
            }
            Error::Bounds { section } => write!(f, "compiled tokenizer is cut off: section {section} ends beyond it"),
            Error::Size { section } => write!(f, "compiled tokenizer is damaged: section {section} has a wrong size"),
            Error::Step { section } => write!(f, "compiled tokenizer is damaged: unknown step in section {section}"),
        }
    }
}

impl std::error::Error for Error {}

/// The tables, borrowed from the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    fields: [u32; FIELDS],
    sections: [&'a [u8]; SECTIONS],
}

impl<'a> Tables<'a> {
    /// Checks the header and the bounds and sizes of the sections; takes the same time for any vocabulary.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        if !bytes.starts_with(&MAGIC) {
            return Err(Error::Magic);
        }
        let short = Error::Short { len: bytes.len() };
        let mut fields = [0; FIELDS];
        for (i, field) in fields.iter_mut().enumerate() {
            *field = read_u32(bytes, 8 + 4 * i).ok_or(short)?;
        }
        let mut sections: [&[u8]; SECTIONS] = [&[]; SECTIONS];
        for (i, section) in sections.iter_mut().enumerate() {
            let at = 8 + 4 * FIELDS + 8 * i;
            let (start, len) =
                (read_u32(bytes, at).ok_or(short)? as usize, read_u32(bytes, at + 4).ok_or(short)? as usize);
            let end = start.checked_add(len).ok_or(Error::Bounds { section: i })?;
            *section = bytes.get(start..end).ok_or(Error::Bounds { section: i })?;
        }
        let tables = Tables { fields, sections };
        tables.check_sizes()?;
        Ok(tables)
    }

    fn check_sizes(&self) -> Result<(), Error> {
        let vocab = self.vocab_size() as usize;
        let expected = [
            (Section::VocabOffsets, (vocab + 1) * 4),
            (Section::TokenFlags, vocab),
            (Section::Lookup, self.field(Field::LookupSlots) as usize * LOOKUP_BYTES),
            (Section::Merges, self.field(Field::MergeSlots) as usize * MERGE_BYTES),
            (Section::ByteIds, 1024),
        ];
        match expected.iter().find(|(s, len)| self.section(*s).len() != *len) {
            Some((s, _)) => Err(Error::Size { section: *s as usize }),
            None => Ok(()),
        }
    }

    /// A field of the header.
    #[inline]
    pub fn field(&self, field: Field) -> u32 {
        self.fields[field as usize]
    }

    /// Whether a bit of [`flags`] is set.
    #[inline]
    pub fn has(&self, flag: u32) -> bool {
        self.field(Field::Flags) & flag != 0
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> u32 {
        self.field(Field::VocabSize)
    }

    /// Bytes of a section.
    #[inline]
    pub fn section(&self, section: Section) -> &'a [u8] {
        self.sections[section as usize]
    }

    /// Bits of [`token`]; 0 for ids that are not used.
    #[inline]
    pub fn token_flags(&self, id: u32) -> u8 {
        self.section(Section::TokenFlags).get(id as usize).copied().unwrap_or(0)
    }

    /// The stored bytes of a token; see [`token::LITERAL`].
    #[inline]
    pub fn token_bytes(&self, id: u32) -> Option<&'a [u8]> {
        let offsets = self.section(Section::VocabOffsets);
        let at = (id as usize).checked_mul(4)?;
        let (start, end) = (read_u32(offsets, at)?, read_u32(offsets, at.checked_add(4)?)?);
        self.section(Section::VocabBytes).get(start as usize..end as usize)
    }

    /// The token stored as `bytes`, all of whose `mask` flags are as in `want`.
    #[inline]
    pub fn lookup(&self, bytes: &[u8], mask: u8, want: u8) -> Option<u32> {
        let (table, slots) = (self.section(Section::Lookup), self.field(Field::LookupSlots));
        let hash = hash_bytes(bytes);
        let mut slot = slot_of(hash, slots);
        for _ in 0..slots {
            let at = slot as usize * LOOKUP_BYTES;
            let id = read_u32(table, at + 4).filter(|&id| id != NONE)?;
            let same = read_u32(table, at) == Some(hash) && self.token_flags(id) & mask == want;
            if same && self.token_bytes(id) == Some(bytes) {
                return Some(id);
            }
            slot = if slot + 1 == slots { 0 } else { slot + 1 };
        }
        None
    }

    /// What merging two tokens gives: (rank, token); lower ranks merge first.
    #[inline]
    pub fn merge(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let (table, slots) = (self.section(Section::Merges), self.field(Field::MergeSlots));
        let mut slot = slot_of(hash_pair(left, right), slots);
        let wanted = left as u64 | (right as u64) << 24;
        for _ in 0..slots {
            let at = slot as usize * MERGE_BYTES;
            let (low, high) = (read_u64(table, at)?, read_u32(table, at + 8)?);
            let pair = low & PAIR_MASK;
            if pair == wanted {
                return Some(((low >> 48) as u32 | (high & 0xFF) << 16, high >> 8));
            }
            if pair == PAIR_MASK {
                return None;
            }
            slot = if slot + 1 == slots { 0 } else { slot + 1 };
        }
        None
    }

    /// The token of a byte.
    #[inline]
    pub fn byte_id(&self, byte: u8) -> Option<u32> {
        read_u32(self.section(Section::ByteIds), byte as usize * 4).filter(|&id| id != NONE)
    }

    /// The text a step names; empty where it lies outside.
    pub fn text(&self, step: &Step) -> &'a str {
        let end = step.text_at.saturating_add(step.text_len) as usize;
        let bytes = self.section(Section::Text).get(step.text_at as usize..end).unwrap_or(&[]);
        std::str::from_utf8(bytes).unwrap_or("")
    }

    /// The table at a byte of [`Section::Dfas`].
    pub fn dfa(&self, at: u32) -> Option<Dfa<'a>> {
        Dfa::parse(self.section(Section::Dfas), at as usize)
    }

    /// u32s of a section.
    pub fn ids(&self, section: Section) -> impl Iterator<Item = u32> + 'a {
        self.section(section).as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b))
    }

    /// Whether normalization passes `c` unchanged.
    pub fn is_inert(&self, c: char) -> bool {
        let (pairs, _) = self.section(Section::Inert).as_chunks::<8>();
        let first = |p: &[u8; 8]| read_u32(p, 0).unwrap_or(0);
        let i = pairs.partition_point(|p| first(p) <= c as u32);
        i.checked_sub(1).is_some_and(|i| read_u32(&pairs[i], 4).is_some_and(|last| c as u32 <= last))
    }
}
