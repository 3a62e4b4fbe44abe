//! The engine over a fake model: chunks, rows, paging, several sequences, limits.

mod support;

use llmc_rt::engine::{Options, Rows};
use support::{VOCAB, engine};

/// What the step computes: a hash of the tokens picks the largest logit.
fn next_token(tokens: &[u32]) -> u32 {
    tokens.iter().fold(7u32, |hash, token| (hash * 31 + token + 1) % VOCAB as u32)
}

fn argmax(row: &[f32]) -> u32 {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("not empty") as u32
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n).map(|i| (i * 13 % VOCAB) as u32).collect()
}

#[test]
fn chunks_and_threads_change_nothing() {
    let prompt = tokens(41);
    for threads in [1, 2, 3, 8] {
        for chunk in [0, 1, 5, 16] {
            let mut engine = engine(Options { threads: Some(threads), ..Default::default() }).expect("fits");
            let mut all = prompt.clone();
            let mut next = argmax(engine.prefill(0, &prompt, chunk, || Ok(())).expect("fits"));
            for _ in 0..9 {
                assert_eq!(next, next_token(&all), "{threads} threads, chunks of {chunk}");
                all.push(next);
                next = argmax(engine.extend(0, &[next], Rows::Last).expect("fits"));
            }
            assert_eq!(engine.positions(0), 50);
        }
    }
}

#[test]
fn rows_are_those_asked_for() {
    let mut engine = engine(Options { threads: Some(2), ..Default::default() }).expect("fits");
    let prompt = tokens(12);
    let logits = engine.extend(0, &prompt, Rows::Range(3, 10)).expect("fits");
    let got: Vec<_> = logits.chunks(VOCAB).map(argmax).collect();
    let expected: Vec<_> = (3..10).map(|i| next_token(&prompt[..=i])).collect();
    assert_eq!(got, expected);
    assert_eq!(engine.extend(0, &prompt[..1], Rows::None).expect("fits").len(), 0);
    assert!(engine.extend(0, &prompt, Rows::Range(0, 9)).is_err(), "more rows than a step gives");
    assert!(engine.extend(0, &tokens(17), Rows::Last).is_err(), "more tokens than a step takes");
    assert!(engine.extend(0, &[], Rows::Last).is_err());
}

#[test]
fn ragged_steps_keep_sequences_apart() {
    let mut engine = engine(Options { threads: Some(3), sequences: 2, ..Default::default() }).expect("fits");
    let (a, b) = (tokens(6), vec![90, 3, 77]);
    let ids: Vec<_> = a.iter().chain(&b).copied().collect();
    let logits = engine.step(&ids, &[0, 1, 2, 3, 4, 5, 0, 1, 2], &[0, 0, 0, 0, 0, 0, 1, 1, 1], &[8, 5]).expect("fits");
    let got: Vec<_> = logits.chunks(VOCAB).map(argmax).collect();
    assert_eq!(got, [next_token(&b), next_token(&a)]);
    let logits = engine.step(&[5, 6], &[3, 6], &[1, 0], &[0, 1]).expect("fits");
    let got: Vec<_> = logits.chunks(VOCAB).map(argmax).collect();
    assert_eq!(got, [next_token(&[90, 3, 77, 5]), next_token(&[&a[..], &[6]].concat())]);
    assert!(engine.step(&[1], &[0], &[2], &[]).is_err(), "a third sequence");
    assert!(engine.step(&[1], &[7], &[0], &[1]).is_err(), "a row outside the step");
}

#[test]
fn a_truncated_sequence_can_go_on() {
    let mut engine = engine(Options { threads: Some(1), ..Default::default() }).expect("fits");
    let prompt = tokens(30);
    engine.prefill(0, &prompt, 0, || Ok(())).expect("fits");
    engine.truncate(0, 11);
    let next = argmax(engine.prefill(0, &[4, 5], 0, || Ok(())).expect("fits"));
    assert_eq!(next, next_token(&[&prompt[..11], &[4, 5]].concat()));
}

#[test]
fn limits_are_errors_with_numbers() {
    let mut engine = engine(Options { threads: Some(1), context: Some(20), ..Default::default() }).expect("fits");
    let error = engine.prefill(0, &tokens(21), 0, || Ok(())).expect_err("too long");
    assert_eq!(error.code(), 4);
    assert!(error.message.contains("21 tokens") && error.message.contains("20 positions"), "{error}");
    let error = engine.prefill(0, &[5, 97], 0, || Ok(())).expect_err("no such token");
    assert_eq!(error.code(), 2);
    assert!(error.message.contains("token 97"), "{error}");
    assert_eq!(engine.positions(0), 0, "a refused step leaves nothing");
    let interrupted = llmc_rt::error::Error::failed("stop");
    assert_eq!(engine.prefill(0, &tokens(20), 0, || Err(interrupted.clone())), Err(interrupted));
    assert!(support::engine(Options { context: Some(51), ..Default::default() }).is_err_and(|e| e.code() == 4));
}

#[test]
fn phases_are_timed() {
    let mut engine = engine(Options { threads: Some(2), ..Default::default() }).expect("fits");
    engine.profile().reset(true);
    engine.prefill(0, &tokens(40), 0, || Ok(())).expect("fits");
    assert_eq!(engine.profile().times().iter().map(|t| t.runs).collect::<Vec<_>>(), [3, 3]);
}
