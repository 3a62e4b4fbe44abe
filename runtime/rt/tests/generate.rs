//! Generation over a fake model: limits, ends, stop strings, streams.

mod support;

use llmc_rt::engine::{Engine, Options};
use llmc_rt::error::Error;
use llmc_rt::generate::{Finish, Numbers, Outcome, Request, Stream, generate};
use llmc_rt::sampler::Sampling;

const PROMPT: [u32; 3] = [1, 2, 3];

fn engine() -> Engine {
    support::engine(Options { threads: Some(2), ..Default::default() }).expect("fits")
}

fn request<'a>(max_tokens: usize, stops: &'a [String], end: &'a [u32]) -> Request<'a> {
    Request { prompt: &PROMPT, max_tokens, sampling: Sampling::default(), stops, end }
}

fn answer(request: &Request) -> (Outcome, String) {
    let mut text = String::new();
    let mut emit = |piece: &str| {
        text.push_str(piece);
        Ok(())
    };
    let outcome = generate(&mut engine(), 0, request, &mut Numbers::default(), &mut emit).expect("generates");
    (outcome, text)
}

#[test]
fn length_and_context_end_it() {
    let (outcome, text) = answer(&request(5, &[], &[]));
    assert_eq!((outcome.tokens.len(), outcome.finish), (5, Finish::Length));
    assert_eq!(text, outcome.tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
    let (outcome, _) = answer(&request(1000, &[], &[]));
    // The last token's own position is not needed to choose it.
    assert_eq!((outcome.tokens.len(), outcome.finish), (50 - PROMPT.len() + 1, Finish::Context));
    assert!(answer(&request(0, &[], &[])).0.tokens.is_empty());
}

#[test]
fn end_tokens_are_not_given() {
    let (whole, _) = answer(&request(10, &[], &[]));
    let end = whole.tokens[4];
    let at = whole.tokens.iter().position(|t| *t == end).expect("occurs");
    let (outcome, _) = answer(&request(10, &[], &[end]));
    assert_eq!((outcome.tokens, outcome.finish), (whole.tokens[..at].to_vec(), Finish::EndOfText));
}

#[test]
fn stop_strings_cut_the_text() {
    let (_, whole) = answer(&request(10, &[], &[]));
    let stop = whole[whole.len() / 2..whole.len() / 2 + 4].to_string();
    let at = whole.find(&stop).expect("occurs");
    let (outcome, text) = answer(&request(10, &[stop], &[]));
    assert_eq!((text.as_str(), outcome.finish), (&whole[..at], Finish::Stop));
}

#[test]
fn held_text_is_given_at_the_end() {
    struct Held(String);
    impl Stream for Held {
        fn push(&mut self, token: u32, _: &mut String) {
            self.0.push_str(&token.to_string());
        }
        fn finish(&mut self, out: &mut String) {
            out.push_str(&self.0);
        }
    }
    let mut text = String::new();
    let mut emit = |piece: &str| {
        text.push_str(piece);
        Ok(())
    };
    let outcome =
        generate(&mut engine(), 0, &request(3, &[], &[]), &mut Held(String::new()), &mut emit).expect("generates");
    assert_eq!(text, outcome.tokens.iter().map(u32::to_string).collect::<String>());
}

#[test]
fn bad_prompts_are_refused() {
    let mut emit = |_: &str| Ok(());
    let mut try_prompt = |prompt: &[u32]| {
        let request = Request { prompt, ..request(1, &[], &[]) };
        generate(&mut engine(), 0, &request, &mut Numbers::default(), &mut emit).map(|o| o.tokens.len())
    };
    let error = try_prompt(&[1; 51]).expect_err("too long");
    assert!(error.code() == 4 && error.message.contains("51 tokens, the context 50"), "{error}");
    assert_eq!(try_prompt(&[]).expect_err("empty").code(), 2);
    assert_eq!(try_prompt(&[1; 50]), Ok(1));
}

#[test]
fn a_reader_that_fails_ends_it() {
    let mut emit = |_: &str| Err(Error::failed("closed"));
    let result = generate(&mut engine(), 0, &request(5, &[], &[]), &mut Numbers::default(), &mut emit);
    assert_eq!(result.err(), Some(Error::failed("closed")));
}

#[test]
fn rows_are_shared_out() {
    let mut engine = engine();
    engine.extend(0, &[1, 2, 3, 4, 5], llmc_rt::engine::Rows::Range(0, 5)).expect("fits");
    let seen: Vec<_> = (0..5).map(|_| std::sync::atomic::AtomicUsize::new(0)).collect();
    engine.each_row(5, &|row, logits| {
        seen[row].fetch_add(logits.len(), std::sync::atomic::Ordering::Relaxed);
    });
    assert!(seen.iter().all(|n| n.load(std::sync::atomic::Ordering::Relaxed) == support::VOCAB));
}
