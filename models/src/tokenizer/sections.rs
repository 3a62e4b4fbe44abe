//! The sections of a compiled tokenizer while they are made.

use llmc_abi::tokenizer::{FIELDS, Field, HEADER_BYTES, MAGIC, NONE, SECTIONS, Section, Step, StepKind};

use super::pattern::{self, Alternative};
use super::{TokenizerError, dfa};

/// Header fields and section bytes.
pub struct Sections {
    fields: [u32; FIELDS],
    bytes: [Vec<u8>; SECTIONS],
}

impl Sections {
    pub fn new() -> Self {
        let mut sections = Sections { fields: [0; FIELDS], bytes: Default::default() };
        for field in [Field::Unk, Field::CutBefore, Field::WordDfa] {
            sections.set(field, NONE);
        }
        sections
    }

    pub fn set(&mut self, field: Field, value: u32) {
        self.fields[field as usize] = value;
    }

    pub fn put(&mut self, section: Section, bytes: Vec<u8>) {
        self.bytes[section as usize] = bytes;
    }

    pub fn put_u32s(&mut self, section: Section, values: impl IntoIterator<Item = u32>) {
        self.put(section, values.into_iter().flat_map(u32::to_le_bytes).collect());
    }

    /// Offset of a table for the alternatives; equal tables are stored once.
    pub fn add_dfa(&mut self, alternatives: &[Alternative], shown: &str) -> Result<u32, TokenizerError> {
        let table =
            dfa::build(alternatives).map_err(|reason| TokenizerError::Pattern { pattern: shown.to_owned(), reason })?;
        let pool = &mut self.bytes[Section::Dfas as usize];
        let known = (0..pool.len()).step_by(4).find(|&at| pool[at..].starts_with(&table));
        Ok(known.unwrap_or_else(|| {
            let at = pool.len();
            pool.extend(table);
            at
        }) as u32)
    }

    pub fn add_pattern(&mut self, pattern: &str) -> Result<u32, TokenizerError> {
        self.add_dfa(&pattern::parse(pattern)?, pattern)
    }

    pub fn add_rust_pattern(&mut self, pattern: &str) -> Result<u32, TokenizerError> {
        self.add_dfa(&pattern::parse_rust(pattern)?, pattern)
    }

    pub fn add_literal(&mut self, text: &str) -> Result<u32, TokenizerError> {
        self.add_dfa(&pattern::literal(text)?, text)
    }

    /// A step that names `text`.
    pub fn step(&mut self, kind: StepKind, options: [u8; 3], argument: u32, text: &str) -> Step {
        let pool = &mut self.bytes[Section::Text as usize];
        let text_at = pool.len() as u32;
        pool.extend(text.as_bytes());
        Step { kind, options, argument, text_at, text_len: text.len() as u32 }
    }

    /// The whole: header and sections.
    pub fn finish(self) -> Result<Vec<u8>, TokenizerError> {
        let mut out = MAGIC.to_vec();
        out.extend(self.fields.iter().flat_map(|f| f.to_le_bytes()));
        let mut at = HEADER_BYTES;
        for section in &self.bytes {
            let fit = |v: usize| {
                u32::try_from(v)
                    .map_err(|_| TokenizerError::Inconsistent("the compiled tokenizer would pass 4 GiB".into()))
            };
            out.extend(fit(at)?.to_le_bytes());
            out.extend(fit(section.len())?.to_le_bytes());
            at += section.len().next_multiple_of(4);
        }
        for section in self.bytes {
            out.extend(section);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        Ok(out)
    }
}
