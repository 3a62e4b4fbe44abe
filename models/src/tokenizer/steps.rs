//! Normalizers and pre-tokenizers to [`Step`]s.

use llmc_abi::tokenizer::{self as abi, MAX_STEPS, Section, Step, StepKind};
use tokenizers::normalizers::StripAccents;
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::tokenizer::{NormalizedString, Normalizer as _, PreTokenizedString, PreTokenizer as _};
use tokenizers::{OffsetReferential, OffsetType, SplitDelimiterBehavior};

use super::TokenizerError;
use super::alphabet::{CharSet, char_set};
use super::json::{Behavior, Metaspace, Normalizer, Pattern, PreTokenizer, PrependScheme};
use super::pattern;
use super::sections::Sections;

/// GPT-2's pattern, which ByteLevel uses unless told otherwise.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Steps of the normalizer.
pub fn normalizer(out: &mut Sections, root: Option<Normalizer>) -> Result<Vec<Step>, TokenizerError> {
    let mut steps = Vec::new();
    if let Some(root) = root {
        add_normalizer(out, root, &mut steps)?;
    }
    put(out, Section::Normalizer, "normalizer", &steps)?;
    Ok(steps)
}

pub(super) fn put(
    out: &mut Sections,
    section: Section,
    part: &'static str,
    steps: &[Step],
) -> Result<(), TokenizerError> {
    if steps.len() > MAX_STEPS {
        let found = format!("of {} steps", steps.len());
        return Err(TokenizerError::Unsupported { part, found, supported: "64 steps" });
    }
    out.put(section, steps.iter().flat_map(Step::to_bytes).collect());
    Ok(())
}

fn add_normalizer(out: &mut Sections, n: Normalizer, steps: &mut Vec<Step>) -> Result<(), TokenizerError> {
    let mut plain = |kind| steps.push(Step { kind, options: [0; 3], argument: 0, text_at: 0, text_len: 0 });
    match n {
        Normalizer::Nfc => plain(StepKind::Nfc),
        Normalizer::Nfd => plain(StepKind::Nfd),
        Normalizer::Nfkc => plain(StepKind::Nfkc),
        Normalizer::Nfkd => plain(StepKind::Nfkd),
        Normalizer::Lowercase => plain(StepKind::Lowercase),
        Normalizer::Strip { strip_left, strip_right } => {
            steps.push(out.step(StepKind::Trim, [strip_left.into(), strip_right.into(), 0], 0, ""));
        }
        Normalizer::Prepend { prepend } => steps.push(out.step(StepKind::Prepend, [0; 3], 0, &prepend)),
        Normalizer::Replace { pattern, content } => steps.push(replace(out, &pattern, &content)?),
        Normalizer::StripAccents => steps.push(replace_set(out, &combining_marks(), "", "StripAccents")?),
        Normalizer::Nmt => {
            steps.push(replace_set(out, &nmt_removed(), "", "Nmt")?);
            steps.push(replace_set(out, &nmt_spaces(), " ", "Nmt")?);
        }
        Normalizer::Sequence { normalizers } => {
            normalizers.into_iter().try_for_each(|n| add_normalizer(out, n, steps))?;
        }
    }
    Ok(())
}

fn dfa_of(out: &mut Sections, pattern: &Pattern) -> Result<u32, TokenizerError> {
    match pattern {
        Pattern::String(text) => out.add_literal(text),
        Pattern::Regex(regex) => out.add_pattern(regex),
    }
}

pub(super) fn replace(out: &mut Sections, pattern: &Pattern, content: &str) -> Result<Step, TokenizerError> {
    let dfa = dfa_of(out, pattern)?;
    Ok(out.step(StepKind::Replace, [0; 3], dfa, content))
}

fn replace_set(out: &mut Sections, set: &CharSet, content: &str, shown: &str) -> Result<Step, TokenizerError> {
    let dfa = out.add_dfa(&pattern::one_of(set), shown)?;
    Ok(out.step(StepKind::Replace, [0; 3], dfa, content))
}

/// What the library's Nmt drops.
fn nmt_removed() -> CharSet {
    vec![(1, 8), (0xB, 0xB), (0xE, 0x1F), (0x7F, 0x7F), (0x8F, 0x8F), (0x9F, 0x9F)]
}

/// What the library's Nmt makes a space.
fn nmt_spaces() -> CharSet {
    let singles = [0x9, 0xA, 0xC, 0xD, 0x1680].map(|c| (c, c));
    let rest = [(0x200B, 0x200F), (0x2028, 0x2029), (0x2581, 0x2581), (0xFEFF, 0xFEFF), (0xFFFD, 0xFFFD)];
    singles.into_iter().chain(rest).collect()
}

/// Characters that the library's own tables make `strip` leave out: its Unicode version decides.
fn left_out(strip: impl Fn(&str) -> Option<String>) -> CharSet {
    let all: Vec<char> = ('\0'..=char::MAX).collect();
    let mut kept = vec![false; 0x11_0000];
    for chunk in all.chunks(4096) {
        let rest = strip(&chunk.iter().collect::<String>()).unwrap_or_default();
        rest.chars().for_each(|c| kept[c as usize] = true);
    }
    char_set(|c| !kept[c as usize])
}

fn combining_marks() -> CharSet {
    left_out(|text| {
        let mut text = NormalizedString::from(text);
        StripAccents.normalize(&mut text).ok()?;
        Some(text.get().to_owned())
    })
}

fn punctuation() -> CharSet {
    left_out(|text| {
        let mut text = PreTokenizedString::from(text);
        Punctuation::new(SplitDelimiterBehavior::Removed).pre_tokenize(&mut text).ok()?;
        let splits = text.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        Some(splits.into_iter().map(|(piece, ..)| piece).collect())
    })
}

/// Steps of the pre-tokenizer, and whether words are bytes.
pub fn pre_tokenizer(out: &mut Sections, root: Option<PreTokenizer>, before: &[Step]) -> Result<bool, TokenizerError> {
    let mut flat = Vec::new();
    root.into_iter().for_each(|p| flatten(p, &mut flat));
    let byte_level = flat.iter().filter(|p| matches!(p, PreTokenizer::ByteLevel { .. })).count();
    if byte_level > 1 {
        return Err(unsupported_pre_tokenizer("Sequence with two ByteLevel"));
    }
    let mut steps = Vec::new();
    let last = flat.len().saturating_sub(1);
    for (i, p) in flat.into_iter().enumerate() {
        add_pre_tokenizer(out, p, i == last, &mut steps)?;
    }
    check_first_only(&steps, before)?;
    put(out, Section::PreTokenizer, "pre_tokenizer", &steps)?;
    Ok(byte_level == 1)
}

fn unsupported_pre_tokenizer(found: &str) -> TokenizerError {
    let supported =
        "ByteLevel, Split, Metaspace, Digits, Punctuation, Whitespace, CharDelimiterSplit and Sequence of these";
    TokenizerError::Unsupported { part: "pre_tokenizer", found: found.to_owned(), supported }
}

fn flatten(p: PreTokenizer, flat: &mut Vec<PreTokenizer>) {
    match p {
        PreTokenizer::Sequence { pretokenizers } => pretokenizers.into_iter().for_each(|p| flatten(p, flat)),
        other => flat.push(other),
    }
}

/// A prefix for the first word only needs to know which word is first: no step may drop or add
/// characters in front of it before.
fn check_first_only(steps: &[Step], before: &[Step]) -> Result<(), TokenizerError> {
    let first_only = |s: &Step| s.kind == StepKind::PrependMissing && s.options[0] == 1;
    let Some(at) = steps.iter().position(first_only) else { return Ok(()) };
    let shifts = |s: &Step| match s.kind {
        StepKind::Trim => s.options[0] == 1,
        StepKind::Replace => s.text_len == 0,
        StepKind::Prepend | StepKind::PrependMissing => true,
        StepKind::Split => s.options[0] == abi::Behavior::Removed as u8,
        _ => false,
    };
    if before.iter().chain(&steps[..at]).any(shifts) {
        return Err(unsupported_pre_tokenizer(
            "Metaspace with prepend_scheme first after steps that move the text's start",
        ));
    }
    Ok(())
}

fn behavior_byte(behavior: Behavior) -> u8 {
    (match behavior {
        Behavior::Isolated => abi::Behavior::Isolated,
        Behavior::Removed => abi::Behavior::Removed,
        Behavior::MergedWithPrevious => abi::Behavior::MergedWithPrevious,
        Behavior::MergedWithNext => abi::Behavior::MergedWithNext,
        Behavior::Contiguous => abi::Behavior::Contiguous,
    }) as u8
}

fn add_pre_tokenizer(
    out: &mut Sections,
    p: PreTokenizer,
    last: bool,
    steps: &mut Vec<Step>,
) -> Result<(), TokenizerError> {
    let mut split = |out: &mut Sections, dfa: u32, behavior: Behavior, invert: bool| {
        steps.push(out.step(StepKind::Split, [behavior_byte(behavior), invert.into(), 0], dfa, ""));
    };
    match p {
        PreTokenizer::ByteLevel { add_prefix_space, use_regex } => {
            byte_level(out, add_prefix_space, use_regex, last, steps)?
        }
        PreTokenizer::Metaspace(m) => metaspace(out, &m, steps)?,
        PreTokenizer::Split { pattern, behavior, invert } => {
            let dfa = dfa_of(out, &pattern)?;
            split(out, dfa, behavior, invert);
        }
        PreTokenizer::Digits { individual_digits } => {
            let dfa = out.add_dfa(&pattern::one_of(&char_set(char::is_numeric)), "Digits")?;
            split(out, dfa, if individual_digits { Behavior::Isolated } else { Behavior::Contiguous }, false);
        }
        PreTokenizer::Punctuation { behavior } => {
            let dfa = out.add_dfa(&pattern::one_of(&punctuation()), "Punctuation")?;
            split(out, dfa, behavior, false);
        }
        PreTokenizer::Whitespace => {
            let dfa = out.add_rust_pattern(r"\w+|[^\w\s]+")?;
            split(out, dfa, Behavior::Removed, true);
        }
        PreTokenizer::WhitespaceSplit => {
            let dfa = out.add_dfa(&pattern::one_of(&char_set(char::is_whitespace)), "WhitespaceSplit")?;
            split(out, dfa, Behavior::Removed, false);
        }
        PreTokenizer::CharDelimiterSplit { delimiter } => {
            let dfa = out.add_literal(&delimiter.to_string())?;
            split(out, dfa, Behavior::Removed, false);
        }
        PreTokenizer::Sequence { .. } => {}
    }
    Ok(())
}

fn byte_level(
    out: &mut Sections,
    prefix: bool,
    regex: bool,
    last: bool,
    steps: &mut Vec<Step>,
) -> Result<(), TokenizerError> {
    if prefix {
        steps.push(out.step(StepKind::PrependMissing, [0; 3], 0, " "));
    }
    if regex {
        let dfa = out.add_pattern(GPT2)?;
        steps.push(out.step(StepKind::Split, [abi::Behavior::Isolated as u8, 0, 0], dfa, ""));
    }
    if !last {
        steps.push(out.step(StepKind::Spell, [0; 3], 0, ""));
    }
    Ok(())
}

/// The scheme that the older field `add_prefix_space` may override.
pub(super) fn scheme(m: &Metaspace) -> Result<PrependScheme, TokenizerError> {
    match m.add_prefix_space {
        Some(false) if m.prepend_scheme != PrependScheme::Never => {
            Err(TokenizerError::Inconsistent("Metaspace: add_prefix_space false contradicts its prepend_scheme".into()))
        }
        _ => Ok(m.prepend_scheme),
    }
}

fn metaspace(out: &mut Sections, m: &Metaspace, steps: &mut Vec<Step>) -> Result<(), TokenizerError> {
    let text = m.replacement.to_string();
    steps.push(replace(out, &Pattern::String(" ".into()), &text)?);
    match scheme(m)? {
        PrependScheme::Always => steps.push(out.step(StepKind::PrependMissing, [0; 3], 0, &text)),
        PrependScheme::First => steps.push(out.step(StepKind::PrependMissing, [1, 0, 0], 0, &text)),
        PrependScheme::Never => {}
    }
    if m.split.unwrap_or(true) {
        let dfa = out.add_literal(&text)?;
        steps.push(out.step(StepKind::Split, [abi::Behavior::MergedWithNext as u8, 0, 0], dfa, ""));
    }
    Ok(())
}
