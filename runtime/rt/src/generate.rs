//! Generating: prompt in, tokens out one by one, until a limit, a stop string, the end of text or a signal.

use std::time::{Duration, Instant};

use crate::decode::Decoder;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::sampler::Sampling;
use crate::stop::StopStrings;
use crate::sys::signals;

/// Turns tokens into text piece by piece.
pub trait Stream {
    /// Appends the text that `token` completes.
    fn push(&mut self, token: u32, out: &mut String);
    /// Appends what is left at the end.
    fn finish(&mut self, out: &mut String);
}

/// Tokens as numbers, for models without a tokenizer.
#[derive(Default)]
pub struct Numbers {
    started: bool,
}

impl Stream for Numbers {
    fn push(&mut self, token: u32, out: &mut String) {
        use std::fmt::Write;
        let comma = if std::mem::replace(&mut self.started, true) { "," } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(out, "{comma}{token}");
    }

    fn finish(&mut self, _: &mut String) {}
}

/// Most tokens for which a generation has room from its start.
const MOST_RESERVED: usize = 1 << 20;

/// What to generate.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Tokens to add to the sequence first; at least one.
    pub prompt: &'a [u32],
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// How to choose them.
    pub sampling: Sampling,
    /// Texts that end the generation and are not given.
    pub stops: &'a [String],
    /// Tokens that end the generation and are not given.
    pub end: &'a [u32],
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// As many tokens as asked for.
    Length,
    /// A stop string.
    Stop,
    /// A token that ends a text.
    EndOfText,
    /// The context is full.
    Context,
}

impl Finish {
    /// As services name it.
    pub fn name(self) -> &'static str {
        match self {
            Finish::Length => "length",
            Finish::Stop => "stop_string",
            Finish::EndOfText => "end_of_text",
            Finish::Context => "context_full",
        }
    }
}

/// What a generation gave beside its text.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Tokens generated, without one that ended it.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Time from the start to the first token.
    pub first: Duration,
    /// Time of the rest.
    pub rest: Duration,
}

/// Adds the prompt to sequence `seq` and generates. Text goes to `emit` as soon as it is certain.
///
/// # Errors
///
/// Exit code 4 where the prompt does not fit, 130 and 143 after signals; text generated until then
/// was emitted.
pub fn generate(
    engine: &mut Engine,
    seq: usize,
    request: &Request,
    stream: &mut dyn Stream,
    emit: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Outcome> {
    check_prompt(engine, seq, request.prompt)?;
    let start = Instant::now();
    let mut decoder = Decoder::new(engine, request.sampling);
    request.prompt.iter().for_each(|token| decoder.observe(*token));
    let mut text = Text { stream, stops: StopStrings::new(request.stops), piece: String::new(), out: String::new() };
    let mut tokens = Vec::with_capacity(request.max_tokens.min(engine.context()).min(MOST_RESERVED));
    if request.max_tokens == 0 {
        return Ok(Outcome { tokens, finish: Finish::Length, first: Duration::ZERO, rest: Duration::ZERO });
    }
    let token = decoder.first(engine.prefill(seq, request.prompt, 0, signals::check)?)?;
    let first = start.elapsed();
    let finish = continue_from(token, (engine, seq), request, &mut decoder, &mut tokens, &mut text, emit);
    decoder.finish(engine, seq);
    let finish = finish?;
    if finish != Finish::Stop {
        text.finish(emit)?;
    }
    Ok(Outcome { tokens, finish, first, rest: start.elapsed() - first })
}

/// Generates from the first token on.
fn continue_from(
    mut token: u32,
    (engine, seq): (&mut Engine, usize),
    request: &Request,
    decoder: &mut Decoder,
    tokens: &mut Vec<u32>,
    text: &mut Text,
    emit: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Finish> {
    loop {
        if request.end.contains(&token) {
            return Ok(Finish::EndOfText);
        }
        tokens.push(token);
        decoder.observe(token);
        let stopped = text.push(token);
        text.flush(emit)?;
        if stopped {
            return Ok(Finish::Stop);
        }
        if tokens.len() >= request.max_tokens {
            return Ok(Finish::Length);
        }
        if decoder.positions(engine, seq) >= engine.context() {
            return Ok(Finish::Context);
        }
        if let Err(signal) = signals::check() {
            text.finish(emit)?;
            return Err(signal);
        }
        token = decoder.next(engine, seq, token, tokens.len() + 1 < request.max_tokens)?;
    }
}

fn check_prompt(engine: &Engine, seq: usize, prompt: &[u32]) -> Result<()> {
    let total = engine.positions(seq).saturating_add(prompt.len());
    if total > engine.context() {
        return Err(Error::fit(format!(
            "the prompt has {total} tokens, the context {} positions; shorten the prompt, or give a larger --ctx-size \
             where the model allows it",
            engine.context()
        )));
    }
    if prompt.is_empty() {
        return Err(Error::usage(
            "the prompt is empty and the tokenizer puts no token before it; give some text or --tokens",
        ));
    }
    Ok(())
}

/// Tokens on their way to the reader.
struct Text<'a> {
    stream: &'a mut dyn Stream,
    stops: StopStrings,
    piece: String,
    out: String,
}

impl Text<'_> {
    /// True once a stop string is complete.
    fn push(&mut self, token: u32) -> bool {
        self.piece.clear();
        self.stream.push(token, &mut self.piece);
        self.stops.push(&self.piece, &mut self.out)
    }

    fn finish(&mut self, emit: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        self.piece.clear();
        self.stream.finish(&mut self.piece);
        if !self.stops.push(&self.piece, &mut self.out) {
            self.stops.finish(&mut self.out);
        }
        self.flush(emit)
    }

    fn flush(&mut self, emit: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        if !self.out.is_empty() {
            emit(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }
}
