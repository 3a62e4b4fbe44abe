//! Regular expressions to the tables of [`llmc_abi::tokenizer::Dfa`].
//!
//! The expression is rewritten over classes of characters, one byte each, and determinized by
//! regex-automata with leftmost-first preference, which is what a backtracking matcher finds.

use std::collections::BTreeMap;

use llmc_abi::tokenizer::{ACCEPT, ACCEPT_BEFORE_LAST, DEAD, END_CLASS};
use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_syntax::hir::{self, Hir, HirKind};

use super::alphabet::{Alphabet, CharSet};
use super::pattern::{Alternative, ranges_of};

const NFA_LIMIT: usize = 8 << 20;
const DFA_LIMIT: usize = 16 << 20;
const STATE_LIMIT: usize = 1 << 14;

/// The table's bytes, or why there is none.
pub fn build(alternatives: &[Alternative]) -> Result<Vec<u8>, String> {
    let mut sets = Vec::new();
    for a in alternatives {
        collect_sets(&a.hir, &mut sets)?;
        sets.extend(a.follow.iter().map(|f| f.chars.clone()));
    }
    let alphabet = Alphabet::new(sets).ok_or("it tells more than 255 classes of characters apart")?;
    let hirs: Vec<Hir> = alternatives.iter().map(|a| over_classes(a, &alphabet)).collect();
    let automaton = determinize(&hirs)?;
    let accept = |pattern: usize| if alternatives[pattern].follow.is_some() { ACCEPT_BEFORE_LAST } else { ACCEPT };
    let states = minimize(explore(&automaton, alphabet.classes, accept)?);
    Ok(write(&states, &alphabet))
}

fn collect_sets(hir: &Hir, sets: &mut Vec<CharSet>) -> Result<(), String> {
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Look(_) => return Err("anchors and word boundaries are not supported".into()),
        HirKind::Class(hir::Class::Unicode(class)) => sets.push(ranges_of(class)),
        HirKind::Class(hir::Class::Bytes(_)) => return Err("classes of bytes are not supported".into()),
        HirKind::Literal(literal) => sets.extend(literal_chars(literal).map(|c| vec![(c as u32, c as u32)])),
        HirKind::Repetition(r) => collect_sets(&r.sub, sets)?,
        HirKind::Capture(c) => collect_sets(&c.sub, sets)?,
        HirKind::Concat(subs) | HirKind::Alternation(subs) => {
            subs.iter().try_for_each(|s| collect_sets(s, sets))?;
        }
    }
    Ok(())
}

fn literal_chars(literal: &hir::Literal) -> impl Iterator<Item = char> + '_ {
    std::str::from_utf8(&literal.0).unwrap_or("").chars()
}

fn over_classes(alternative: &Alternative, alphabet: &Alphabet) -> Hir {
    let body = rewrite(&alternative.hir, alphabet);
    let Some(follow) = &alternative.follow else { return body };
    let end = follow.end.then_some(END_CLASS);
    let classes = alphabet.classes_of(&follow.chars).iter().copied().chain(end);
    Hir::concat(vec![body, byte_class(classes)])
}

fn byte_class(classes: impl Iterator<Item = u8>) -> Hir {
    let ranges = classes.map(|c| hir::ClassBytesRange::new(c, c));
    Hir::class(hir::Class::Bytes(hir::ClassBytes::new(ranges)))
}

fn rewrite(hir: &Hir, alphabet: &Alphabet) -> Hir {
    let class_of = |set: CharSet| byte_class(alphabet.classes_of(&set).iter().copied());
    let all = |subs: &[Hir]| subs.iter().map(|s| rewrite(s, alphabet)).collect();
    match hir.kind() {
        HirKind::Class(hir::Class::Unicode(class)) => class_of(ranges_of(class)),
        HirKind::Literal(l) => Hir::concat(literal_chars(l).map(|c| class_of(vec![(c as u32, c as u32)])).collect()),
        HirKind::Repetition(r) => {
            Hir::repetition(hir::Repetition { sub: Box::new(rewrite(&r.sub, alphabet)), ..r.clone() })
        }
        HirKind::Capture(c) => rewrite(&c.sub, alphabet),
        HirKind::Concat(subs) => Hir::concat(all(subs)),
        HirKind::Alternation(subs) => Hir::alternation(all(subs)),
        // `collect_sets` has refused these.
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(hir::Class::Bytes(_)) => Hir::empty(),
    }
}

fn determinize(hirs: &[Hir]) -> Result<dense::DFA<Vec<u32>>, String> {
    let nfa = thompson::Compiler::new()
        .configure(thompson::Config::new().utf8(false).nfa_size_limit(Some(NFA_LIMIT)))
        .build_many_from_hir(hirs)
        .map_err(|e| e.to_string())?;
    let config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .dfa_size_limit(Some(DFA_LIMIT))
        .determinize_size_limit(Some(DFA_LIMIT));
    dense::Builder::new().configure(config).build_from_nfa(&nfa).map_err(|e| e.to_string())
}

/// Acceptance and next states by class; the first state is dead, the second the start.
type State = (u8, Vec<u16>);

fn explore(dfa: &dense::DFA<Vec<u32>>, classes: usize, accept: impl Fn(usize) -> u8) -> Result<Vec<State>, String> {
    let start = dfa.universal_start_state(Anchored::Yes).ok_or("it has no single start")?;
    let mut index: BTreeMap<StateID, u16> = BTreeMap::from([(start, 1)]);
    let mut queue = vec![start];
    let mut states = vec![(0, vec![DEAD; classes])];
    let mut at = 0;
    while let Some(&state) = queue.get(at) {
        at += 1;
        let mut next = Vec::with_capacity(classes);
        for class in 0..classes {
            let to = dfa.next_state(state, class as u8);
            next.push(if dfa.is_dead_state(to) {
                DEAD
            } else {
                *index.entry(to).or_insert_with(|| {
                    queue.push(to);
                    queue.len() as u16
                })
            });
        }
        // A match shows one input later than it ends: here, at the end of the input.
        let last = dfa.next_eoi_state(state);
        let accepts = if dfa.is_match_state(last) { accept(dfa.match_pattern(last, 0).as_usize()) } else { 0 };
        states.push((accepts, next));
        if queue.len() > STATE_LIMIT {
            return Err(format!("its table has more than {STATE_LIMIT} states"));
        }
    }
    Ok(states)
}

/// Merges states that no text tells apart (Moore's algorithm).
fn minimize(states: Vec<State>) -> Vec<State> {
    let mut block: Vec<u16> = vec![0; states.len()];
    let mut blocks = 0;
    loop {
        let mut index: BTreeMap<(u16, u8, Vec<u16>), u16> = BTreeMap::new();
        let refined: Vec<u16> = states
            .iter()
            .enumerate()
            .map(|(i, (accepts, next))| {
                let key = (block[i], *accepts, next.iter().map(|&n| block[n as usize]).collect());
                let fresh = index.len() as u16;
                *index.entry(key).or_insert(fresh)
            })
            .collect();
        block = refined;
        if index.len() == blocks {
            break;
        }
        blocks = index.len();
    }
    let mut merged: Vec<State> = vec![(0, Vec::new()); blocks];
    for (i, (accepts, next)) in states.iter().enumerate() {
        merged[block[i] as usize] = (*accepts, next.iter().map(|&n| block[n as usize]).collect());
    }
    if merged.len() == 1 {
        // Nothing matches: the start is dead too, and still needs its place.
        merged.push(merged[0].clone());
    }
    merged
}

fn write(states: &[State], alphabet: &Alphabet) -> Vec<u8> {
    let (page_of, pages) = alphabet.pages();
    let mut out = Vec::new();
    for v in [states.len(), alphabet.classes, pages.len() / 256, 0] {
        out.extend((v as u32).to_le_bytes());
    }
    out.extend(states.iter().map(|(accepts, _)| accepts));
    pad(&mut out);
    out.extend(states.iter().flat_map(|(_, next)| next).flat_map(|n| n.to_le_bytes()));
    pad(&mut out);
    out.extend(page_of.iter().flat_map(|p| p.to_le_bytes()));
    out.extend(pages);
    out
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}
