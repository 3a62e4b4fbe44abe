//! The pre-tokenizer's steps: from normalized text to words.

use llmc_abi::tokenizer::{Behavior, Dfa, StepKind, byte_level};

use super::encode::Encoder;
use super::replace::replace;

/// A cut: start, end, and whether the pattern matched there.
type Cut = (usize, usize, bool);

impl Encoder<'_, '_> {
    /// Runs the steps from number `at` on a stretch of text. `first`: it starts the whole input.
    /// `spelled`: its bytes are spelled as characters.
    pub(super) fn pre_tokenize(&mut self, at: usize, text: &str, first: bool, spelled: bool) {
        let Some(&step) = self.tokenizer.pre_tokenizer.get(at).filter(|_| !text.is_empty()) else {
            return self.word(text, spelled);
        };
        match (step.kind, step.dfa) {
            (StepKind::PrependMissing, _) if !text.starts_with(step.text) && (first || step.options[0] == 0) => {
                self.pre_tokenize(at + 1, &[step.text, text].concat(), first, spelled);
            }
            (StepKind::Replace, Some(dfa)) => match replace(text, &dfa, step.text) {
                Some(changed) => self.pre_tokenize(at + 1, &changed, first, spelled),
                None => self.pre_tokenize(at + 1, text, first, spelled),
            },
            (StepKind::Spell, _) => self.pre_tokenize(at + 1, &byte_level::spell(text.as_bytes()), first, true),
            (StepKind::Split, Some(dfa)) => {
                let behavior = Behavior::from_u8(step.options[0]).unwrap_or(Behavior::Isolated);
                let mut emit = |start: usize, end: usize| {
                    self.pre_tokenize(at + 1, &text[start..end], first && start == 0, spelled);
                };
                match behavior {
                    Behavior::Isolated => cut(text, &dfa, |(start, end, _)| emit(start, end)),
                    _ => for_pieces(text, &dfa, behavior, step.options[1] != 0, emit),
                }
            }
            _ => self.pre_tokenize(at + 1, text, first, spelled),
        }
    }
}

/// All matches and the gaps between them, in order.
fn cut(text: &str, dfa: &Dfa<'_>, mut emit: impl FnMut(Cut)) {
    let (mut at, mut gap) = (0, 0);
    while let Some(c) = text[at..].chars().next() {
        match dfa.match_len(&text[at..]) {
            Some(len) => {
                if gap < at {
                    emit((gap, at, false));
                }
                emit((at, at + len, true));
                at += len;
                gap = at;
            }
            None => at += c.len_utf8(),
        }
    }
    if gap < at {
        emit((gap, at, false));
    }
}

fn for_pieces(text: &str, dfa: &Dfa<'_>, behavior: Behavior, invert: bool, mut emit: impl FnMut(usize, usize)) {
    let mut cuts = Vec::new();
    cut(text, dfa, |(start, end, matched)| cuts.push((start, end, matched != invert)));
    match behavior {
        Behavior::Isolated => cuts.iter().for_each(|c| emit(c.0, c.1)),
        Behavior::Removed => cuts.iter().filter(|c| !c.2).for_each(|c| emit(c.0, c.1)),
        Behavior::Contiguous => joined(&cuts, |before, this| before == this).into_iter().for_each(|(s, e)| emit(s, e)),
        Behavior::MergedWithPrevious => {
            joined(&cuts, |before, this| this && !before).into_iter().for_each(|(s, e)| emit(s, e));
        }
        Behavior::MergedWithNext => {
            cuts.reverse();
            let mut pieces = joined(&cuts, |before, this| this && !before);
            pieces.reverse();
            pieces.into_iter().for_each(|(s, e)| emit(s, e));
        }
    }
}

/// Joins each cut to the piece before it where `joins(was the one before a match, is this one)`.
fn joined(cuts: &[Cut], joins: impl Fn(bool, bool) -> bool) -> Vec<(usize, usize)> {
    let mut pieces: Vec<(usize, usize)> = Vec::with_capacity(cuts.len());
    let mut before = false;
    for &(start, end, matched) in cuts {
        match pieces.last_mut() {
            Some(piece) if joins(before, matched) => *piece = (piece.0.min(start), piece.1.max(end)),
            _ => pieces.push((start, end)),
        }
        before = matched;
    }
    pieces
}
