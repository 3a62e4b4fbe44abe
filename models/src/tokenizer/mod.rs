//! tokenizer.json to the tables of [`llmc_abi::tokenizer`], which artifacts map and use as they are.
//!
//! Byte-pair-encoding models of Hugging Face's `tokenizers` format. What is made encodes and decodes
//! as that library does; a construct that cannot be made to is an error that names it. Truncation
//! and padding are the caller's business and are not looked at.

mod added;
mod alphabet;
mod dfa;
mod error;
#[allow(missing_docs)] // The fields are those of the file.
mod json;
mod output;
mod pattern;
mod sections;
mod steps;
mod synthetic;
mod vocab;

use std::collections::BTreeSet;

use llmc_abi::tokenizer::{Field, NONE, Section, flags, token};
use tokenizers::tokenizer::{Model as _, NormalizedString, Normalizer as _};
use tokenizers::{AddedToken, Tokenizer};

pub use error::TokenizerError;
pub use synthetic::synthetic;

use added::TrieBuilder;
use json::{Body, Bpe, Head, part};
use sections::Sections;
use vocab::{Merge, Vocab};

/// Compiles the bytes of a tokenizer.json; the same bytes always give the same result.
pub fn compile(tokenizer_json: &[u8]) -> Result<Vec<u8>, TokenizerError> {
    let head: Head = serde_json::from_slice(tokenizer_json)?;
    check_model_kind(&head)?;
    check_added(&head)?;
    let model = serde_json::from_slice::<Body>(tokenizer_json)?.model;
    check_model(&model)?;
    let mut out = Sections::new();
    let normalizer = steps::normalizer(&mut out, part("normalizer", head.normalizer)?)?;
    let byte_level = steps::pre_tokenizer(&mut out, part("pre_tokenizer", head.pre_tokenizer)?, &normalizer)?;
    output::decoder(&mut out, part("decoder", head.decoder)?)?;
    let (prefix, suffix) = output::post_processor(part("post_processor", head.post_processor)?)?;
    out.put_u32s(Section::Prefix, prefix);
    out.put_u32s(Section::Suffix, suffix);
    out.put_u32s(Section::Inert, unassigned_in_unicode_9());

    let mut vocab = Vocab::new(&model, byte_level)?;
    let merges = vocab::merges(&model)?;
    let library = Tokenizer::from_bytes(tokenizer_json).map_err(|e| TokenizerError::Library(e.to_string()))?;
    add_tokens(&mut out, &mut vocab, &library, &head.added_tokens)?;
    mark_closed(&mut vocab, &model, &library);
    write_model(&mut out, &model, &vocab, &merges, byte_level)?;
    out.finish()
}

/// Ids of a text by a tokenizer.json, without special tokens.
///
/// # Errors
/// If the library refuses the file or the text.
pub fn encode(tokenizer_json: &[u8], text: &str) -> Result<Vec<u32>, TokenizerError> {
    let failed = |e: tokenizers::Error| TokenizerError::Library(e.to_string());
    let mut library = Tokenizer::from_bytes(tokenizer_json).map_err(failed)?;
    library.with_padding(None).with_truncation(None).map_err(failed)?;
    Ok(library.encode(text, false).map_err(failed)?.get_ids().to_vec())
}

fn check_model_kind(head: &Head) -> Result<(), TokenizerError> {
    match head.model.kind.as_deref() {
        None | Some("BPE") => Ok(()),
        Some(other) => {
            Err(TokenizerError::Unsupported { part: "model", found: format!("of type {other:?}"), supported: "BPE" })
        }
    }
}

fn check_added(head: &Head) -> Result<(), TokenizerError> {
    let mut seen = BTreeSet::new();
    match head.added_tokens.iter().find(|t| !seen.insert(&t.content)) {
        Some(twice) => Err(TokenizerError::Inconsistent(format!("added token {:?} occurs twice", twice.content))),
        None => Ok(()),
    }
}

fn check_model(model: &Bpe) -> Result<(), TokenizerError> {
    let refuse = |found: &str| {
        Err(TokenizerError::Unsupported { part: "model", found: found.to_owned(), supported: "BPE without it" })
    };
    let is_set = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
    if model.dropout.is_some_and(|d| d != 0.0) {
        return refuse("dropout");
    }
    if is_set(&model.continuing_subword_prefix) {
        return refuse("continuing_subword_prefix");
    }
    if is_set(&model.end_of_word_suffix) {
        return refuse("end_of_word_suffix");
    }
    Ok(())
}

/// The library normalizes by Unicode 9: later characters pass unchanged, whatever the runtime's
/// tables know of them.
fn unassigned_in_unicode_9() -> Vec<u32> {
    let assigned = regex_syntax::parse(r"\P{age=9.0}").expect("a fixed pattern");
    match assigned.kind() {
        regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => {
            pattern::ranges_of(class).into_iter().flat_map(|(first, last)| [first, last]).collect()
        }
        _ => Vec::new(),
    }
}

/// Added tokens into the vocabulary and the three trees.
fn add_tokens(
    out: &mut Sections,
    vocab: &mut Vocab,
    library: &Tokenizer,
    listed: &[json::AddedToken],
) -> Result<(), TokenizerError> {
    let mut tries: [TrieBuilder; 3] = Default::default();
    // The library looks for special tokens first, each kind in the file's order.
    let ordered = listed.iter().filter(|t| t.special).chain(listed.iter().filter(|t| !t.special));
    for token in ordered.filter(|t| !t.content.is_empty()) {
        let Some(id) = library.token_to_id(&token.content) else { continue };
        vocab.add(&token.content, id, token.special)?;
        let flags = added::flags_of(&library_token(token));
        if token.normalized {
            tries[1].insert(&normalized(library, &token.content)?, id, flags);
        } else {
            tries[0].insert(&token.content, id, flags);
        }
        if token.special {
            tries[2].insert(&token.content, id, flags);
        }
    }
    if listed.iter().any(|t| t.single_word) {
        let word = out.add_rust_pattern(r"\w")?;
        out.set(Field::WordDfa, word);
    }
    for (section, trie) in [Section::AddedRaw, Section::AddedNormalized, Section::AddedSpecial].into_iter().zip(tries) {
        out.put(section, trie.finish());
    }
    Ok(())
}

fn library_token(token: &json::AddedToken) -> AddedToken {
    AddedToken::from(token.content.clone(), token.special)
        .single_word(token.single_word)
        .lstrip(token.lstrip)
        .rstrip(token.rstrip)
        .normalized(token.normalized)
}

fn normalized(library: &Tokenizer, content: &str) -> Result<String, TokenizerError> {
    let mut text = NormalizedString::from(content);
    if let Some(normalizer) = library.get_normalizer() {
        normalizer.normalize(&mut text).map_err(|e| TokenizerError::Library(e.to_string()))?;
    }
    if text.is_empty() {
        return Err(TokenizerError::Inconsistent(format!("added token {content:?} is empty once normalized")));
    }
    Ok(text.get().to_owned())
}

/// Marks the tokens that their own text is encoded to: such words need no merging.
fn mark_closed(vocab: &mut Vocab, model: &Bpe, library: &Tokenizer) {
    for (text, &id) in &model.vocab {
        let whole = library.get_model().tokenize(text).is_ok_and(|tokens| matches!(&tokens[..], [t] if t.id == id));
        if whole {
            vocab.tokens[id as usize].flags |= token::CLOSED;
        }
    }
}

fn write_model(
    out: &mut Sections,
    model: &Bpe,
    vocab: &Vocab,
    merges: &[Merge],
    byte_level: bool,
) -> Result<(), TokenizerError> {
    let byte_ids = vocab.byte_ids(model);
    let fallback = model.byte_fallback.unwrap_or(false);
    if byte_level && fallback && byte_ids.contains(&NONE) {
        let found = "byte_fallback with a ByteLevel pre-tokenizer and an incomplete alphabet".to_owned();
        return Err(TokenizerError::Unsupported { part: "model", found, supported: "one or the other" });
    }
    let ignore_merges = model.ignore_merges.unwrap_or(false);
    let bits = [
        (byte_level, flags::BYTE_LEVEL),
        (fallback && !byte_level, flags::BYTE_FALLBACK),
        (ignore_merges, flags::IGNORE_MERGES),
        (model.fuse_unk.unwrap_or(false), flags::FUSE_UNK),
        (vocab.special_reachable(merges, ignore_merges), flags::SPECIAL_REACHABLE),
    ];
    out.set(Field::Flags, bits.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum());
    out.set(Field::VocabSize, vocab.tokens.len() as u32);
    out.set(Field::Unk, model.unk_token.as_ref().and_then(|t| model.vocab.get(t)).copied().unwrap_or(NONE));
    out.set(Field::CutBefore, vocab::cut_before(model, merges, vocab).map_or(NONE, u32::from));
    out.put_u32s(Section::ByteIds, byte_ids);
    let slots = vocab.write(out);
    out.set(Field::LookupSlots, slots);
    let slots = vocab::write_merges(out, merges);
    out.set(Field::MergeSlots, slots);
    Ok(())
}
