//! The normalizer's steps.

use std::borrow::Cow;

use llmc_abi::tokenizer::StepKind;
use unicode_normalization::{
    IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfd_quick, is_nfkc_quick, is_nfkd_quick,
};

use super::replace::replace;
use super::{Resolved, Tokenizer};

/// First code point that some normalization form changes or that composes with one before it.
const FIRST_CHANGED: u32 = 0xA0;

impl Tokenizer<'_> {
    /// `text` after all steps of the normalizer.
    pub(super) fn normalize<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        for step in &self.normalizer {
            if let Some(changed) = self.normalize_step(step, &text) {
                text = Cow::Owned(changed);
            }
        }
        text
    }

    /// The changed text, or `None` where it stays the same.
    fn normalize_step(&self, step: &Resolved<'_>, text: &str) -> Option<String> {
        match step.kind {
            StepKind::Nfc | StepKind::Nfd | StepKind::Nfkc | StepKind::Nfkd => self.unicode_form(step.kind, text),
            StepKind::Lowercase => Some(text.chars().flat_map(char::to_lowercase).collect()),
            StepKind::Trim => Some(trim(text, step.options[0] != 0, step.options[1] != 0).to_owned()),
            StepKind::Prepend => (!text.is_empty()).then(|| [step.text, text].concat()),
            StepKind::Replace => step.dfa.and_then(|dfa| replace(text, &dfa, step.text)),
            _ => None,
        }
    }

    fn unicode_form(&self, kind: StepKind, text: &str) -> Option<String> {
        if text.bytes().all(|b| b.is_ascii()) || is_normalized(kind, text) {
            return None;
        }
        let mut out = String::with_capacity(text.len());
        let mut start = 0;
        for (i, c) in text.char_indices().filter(|(_, c)| *c as u32 >= FIRST_CHANGED) {
            if self.tables.is_inert(c) {
                put_form(kind, &text[start..i], &mut out);
                out.push(c);
                start = i + c.len_utf8();
            }
        }
        put_form(kind, &text[start..], &mut out);
        Some(out)
    }
}

fn is_normalized(kind: StepKind, text: &str) -> bool {
    let chars = text.chars();
    let quick = match kind {
        StepKind::Nfc => is_nfc_quick(chars),
        StepKind::Nfd => is_nfd_quick(chars),
        StepKind::Nfkc => is_nfkc_quick(chars),
        _ => is_nfkd_quick(chars),
    };
    quick == IsNormalized::Yes
}

fn put_form(kind: StepKind, text: &str, out: &mut String) {
    match kind {
        StepKind::Nfc => out.extend(text.nfc()),
        StepKind::Nfd => out.extend(text.nfd()),
        StepKind::Nfkc => out.extend(text.nfkc()),
        _ => out.extend(text.nfkd()),
    }
}

fn trim(text: &str, start: bool, end: bool) -> &str {
    let text = if start { text.trim_start() } else { text };
    if end { text.trim_end() } else { text }
}
