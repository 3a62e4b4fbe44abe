//! Token ids to text and bytes.

use std::borrow::Cow;

use llmc_abi::tokenizer::{StepKind, byte_level, token};

use super::replace::replace;
use super::stream::byte_token;
use super::{StreamDecoder, Tokenizer};

impl<'a> Tokenizer<'a> {
    /// The text of `ids`; unknown ids are left out, and with `skip_special` control tokens too.
    /// What is not UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut decoder = StreamDecoder::new(self, skip_special);
        let mut text = String::with_capacity(ids.len() * 4);
        ids.iter().for_each(|&id| decoder.push_to(id, &mut text));
        decoder.finish_to(&mut text);
        text
    }

    /// The bytes of `ids` one after another, each as [`Tokenizer::id_to_bytes`] gives them: nothing
    /// is repaired, joined or stripped.
    pub fn decode_bytes(&self, ids: &[u32], skip_special: bool) -> Vec<u8> {
        let kept = ids.iter().filter(|&&id| !(skip_special && self.is_special(id)));
        kept.filter_map(|&id| self.id_to_bytes(id)).fold(Vec::new(), |mut all, bytes| {
            all.extend_from_slice(&bytes);
            all
        })
    }

    /// The bytes that a token stands for within a text.
    pub fn id_to_bytes(&self, id: u32) -> Option<Cow<'a, [u8]>> {
        let is_bytes = self.decoder.first().is_some_and(|s| s.kind == StepKind::Unspell);
        if is_bytes && self.tables.token_flags(id) & (token::LITERAL | token::PRESENT) == token::PRESENT {
            return self.tables.token_bytes(id).map(Cow::Borrowed);
        }
        let mut text = self.id_to_token(id)?.into_owned();
        for step in &self.decoder {
            match (step.kind, step.dfa) {
                (StepKind::ByteFallback, _) => {
                    if let Some(byte) = byte_token(&text) {
                        return Some(Cow::Owned(vec![byte]));
                    }
                }
                (StepKind::Replace, Some(dfa)) => text = replace(&text, &dfa, step.text).unwrap_or(text),
                (StepKind::Metaspace, _) if !step.text.is_empty() => text = text.replace(step.text, " "),
                (StepKind::Unspell, _) => {
                    return Some(Cow::Owned(byte_level::bytes_of(&text).unwrap_or_else(|| text.into_bytes())));
                }
                _ => {}
            }
        }
        Some(Cow::Owned(text.into_bytes()))
    }
}
