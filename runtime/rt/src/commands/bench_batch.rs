//! Many sequences at once in `bench`: prompts of different lengths packed together, against the same prompts padded
//! to one length, and decoding one token of each in a step.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bench::Sizes;
use super::bench_report::median;
use crate::engine::Engine;
use crate::error::Result;
use crate::sys::signals;

/// Of the prompts one in so many is long.
const LONG: usize = 5;
/// How much longer than the others it is.
const LONGER: usize = 16;

/// What a batch took.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of all prompts, and of all when they are padded to the longest.
    pub tokens: [usize; 2],
    /// Time of all prompts, packed and padded.
    pub prefill: [Duration; 2],
    /// Steps of decoding.
    pub steps: usize,
    /// Time of all of them.
    pub decode: Duration,
}

impl Batch {
    /// Tokens of the prompts per second, packed and padded.
    pub fn prefill_tok_s(&self) -> [f64; 2] {
        self.prefill.map(|time| self.tokens[0] as f64 / time.as_secs_f64())
    }

    /// Tokens per second of all sequences together.
    pub fn decode_tok_s(&self) -> f64 {
        (self.steps * self.sequences) as f64 / self.decode.as_secs_f64()
    }

    /// How much faster packing was than padding, as a share of the ratio of their tokens.
    pub fn share(&self) -> f64 {
        let [packed, padded] = self.prefill.map(|time| time.as_secs_f64());
        padded / packed / (self.tokens[1] as f64 / self.tokens[0] as f64)
    }
}

/// Lengths of the prompts: a fifth of them as long as asked for, the others a sixteenth of that.
fn lengths(sequences: usize, longest: usize) -> Vec<usize> {
    (0..sequences).map(|i| if i % LONG == 0 { longest } else { (longest / LONGER).max(1) }).collect()
}

/// Runs the batch once; `prompt` has the tokens of the longest prompt.
///
/// # Errors
///
/// As [`Engine::step`], or an interruption.
pub fn run(engine: &mut Engine, sequences: usize, sizes: Sizes, prompt: &[u32]) -> Result<Batch> {
    let lengths = lengths(sequences, sizes.prefill);
    let padded = vec![sizes.prefill; sequences];
    let tokens = [&lengths, &padded].map(|lengths| lengths.iter().sum());
    let [padded, packed] = [
        prefill(engine, &padded, prompt)?,
        // The last one stays for decoding.
        prefill(engine, &lengths, prompt)?,
    ];
    // What fills the context makes room.
    let most = engine.context().saturating_sub(sizes.decode);
    let lengths: Vec<usize> =
        lengths.iter().enumerate().map(|(seq, length)| engine.truncate(seq, most.min(*length))).collect();
    let start = Instant::now();
    for step in 0..sizes.decode {
        signals::check()?;
        decode(engine, &lengths, step, prompt)?;
    }
    Ok(Batch { sequences, tokens, prefill: [packed, padded], steps: sizes.decode, decode: start.elapsed() })
}

/// Prompts of these lengths, packed into steps; the logits of each one's last token are computed.
fn prefill(engine: &mut Engine, lengths: &[usize], prompt: &[u32]) -> Result<Duration> {
    (0..lengths.len()).for_each(|seq| {
        engine.truncate(seq, 0);
    });
    let start = Instant::now();
    let mut step = Step::default();
    for (seq, length) in lengths.iter().enumerate() {
        for (position, token) in prompt[..*length].iter().enumerate() {
            step.push(*token, position, seq, position + 1 == *length);
            if step.tokens.len() == engine.step_tokens() || step.rows.len() == engine.step_rows() {
                signals::check()?;
                step.run(engine)?;
            }
        }
    }
    step.run(engine)?;
    Ok(start.elapsed())
}

/// One token of each sequence, in as many steps as their number needs.
fn decode(engine: &mut Engine, lengths: &[usize], count: usize, prompt: &[u32]) -> Result<()> {
    let most = engine.step_tokens().min(engine.step_rows());
    let mut step = Step::default();
    for (seq, length) in lengths.iter().enumerate() {
        step.push(prompt[(seq + count) % prompt.len()], length + count, seq, true);
        if step.tokens.len() == most {
            step.run(engine)?;
        }
    }
    step.run(engine)
}

/// Tokens that run together.
#[derive(Default)]
struct Step {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    seqs: Vec<u32>,
    rows: Vec<u32>,
}

impl Step {
    fn push(&mut self, token: u32, position: usize, seq: usize, wanted: bool) {
        self.rows.extend(wanted.then_some(self.tokens.len() as u32));
        self.tokens.push(token);
        self.positions.push(position as u32);
        self.seqs.push(seq as u32);
    }

    /// Runs what there is and begins anew.
    fn run(&mut self, engine: &mut Engine) -> Result<()> {
        if !self.tokens.is_empty() {
            engine.step(&self.tokens, &self.positions, &self.seqs, &self.rows)?;
        }
        for list in [&mut self.tokens, &mut self.positions, &mut self.seqs, &mut self.rows] {
            list.clear();
        }
        Ok(())
    }
}

/// Medians over batches of what each gives.
fn over(batches: &[Batch], of: impl Fn(&Batch) -> f64) -> f64 {
    median(&batches.iter().map(of).collect::<Vec<_>>())
}

/// What batches took, for a program to read; none where there are none.
pub(super) fn json(batches: &[Batch]) -> Option<Value> {
    let first = batches.first()?;
    Some(json!({
        "sequences": first.sequences,
        "prompt_tokens": first.tokens[0],
        "padded_tokens": first.tokens[1],
        "packed_tok_s": over(batches, |b| b.prefill_tok_s()[0]),
        "padded_tok_s": over(batches, |b| b.prefill_tok_s()[1]),
        "share_of_token_ratio": over(batches, Batch::share),
        "decode_tok_s": over(batches, Batch::decode_tok_s),
    }))
}

/// The same in words.
pub(super) fn text(batches: &[Batch]) -> String {
    let Some(Batch { sequences, tokens: [packed, padded], .. }) = batches.first() else { return String::new() };
    format!(
        "parallel     {sequences} prompts of {packed} tokens, a fifth of them long: {:.1} tokens/s packed, {:.1} padded \
         to {padded} tokens\n             ({:.2} of what the tokens suggest); decoding {sequences} at once {:.1} tokens/s\n",
        over(batches, |b| b.prefill_tok_s()[0]),
        over(batches, |b| b.prefill_tok_s()[1]),
        over(batches, Batch::share),
        over(batches, Batch::decode_tok_s)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_prompt_of_five_is_long() {
        assert_eq!(lengths(6, 64), [64, 4, 4, 4, 4, 64]);
        assert_eq!(lengths(2, 8), [8, 1]);
    }

    #[test]
    fn a_share_compares_times_with_tokens() {
        let [packed, padded] = [10, 36].map(Duration::from_millis);
        let decode = Duration::from_millis(100);
        let batch = Batch { sequences: 5, tokens: [100, 400], prefill: [packed, padded], steps: 20, decode };
        assert!((batch.share() - 0.9).abs() < 1e-9);
        assert_eq!(batch.decode_tok_s().round(), 1000.0);
        assert_eq!(batch.prefill_tok_s()[0].round(), 10000.0);
    }
}
