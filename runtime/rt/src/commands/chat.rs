//! `chat`: a conversation in a terminal. Only what is new of each turn is computed; where the context is
//! full, the oldest turns are forgotten.

use std::io::{BufRead, IsTerminal};

use llmc_abi::Manifest;

use super::{engine_options, sampling, utf8};
use crate::artifact::Artifact;
use crate::chat::Message;
use crate::cli::Chat;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::generate::{Request, generate};
use crate::output;
use crate::sampler::Sampling;
use crate::sys::signals::{self, Busy};
use crate::text::Text;

/// Runs the command.
pub fn run(args: &Chat) -> Result<()> {
    let sampling = sampling(&args.choice)?;
    let artifact = Artifact::open()?;
    let text = Text::open(&artifact)?;
    if !text.has_template() {
        return Err(Error::input("this model has no chat template; use run, which continues a text"));
    }
    let (engine, _populating) = artifact.engine(&args.machine, engine_options(&args.machine))?;
    let mut conversation = Conversation {
        engine,
        text: &text,
        manifest: &artifact.manifest,
        args,
        sampling,
        messages: args.system.iter().map(|s| Message::new("system", s)).collect(),
        cached: Vec::new(),
    };
    let terminal = std::io::stdin().is_terminal();
    if terminal && !args.machine.quiet {
        output::note(&format!("{}: end with Ctrl-D or Ctrl-C", artifact.manifest.name));
    }
    while let Some(line) = read_line(terminal)? {
        if !line.trim().is_empty() {
            conversation.turn(line)?;
        }
        signals::check()?;
    }
    Ok(())
}

/// The next line of standard input, without its end; none at the end of input.
fn read_line(terminal: bool) -> Result<Option<String>> {
    if terminal {
        output::print("> ")?;
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().read_until(b'\n', &mut bytes);
    let read = read.map_err(|e| Error::input(format!("cannot read standard input: {e}")))?;
    if read == 0 {
        if terminal {
            output::print("\n")?;
        }
        return Ok(None);
    }
    let line = utf8(bytes, "the line")?;
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_string()))
}

struct Conversation<'a> {
    engine: Engine,
    text: &'a Text,
    manifest: &'a Manifest,
    args: &'a Chat,
    sampling: Sampling,
    messages: Vec<Message>,
    /// Tokens in the KV cache.
    cached: Vec<u32>,
}

impl Conversation<'_> {
    /// Answers one line.
    fn turn(&mut self, line: String) -> Result<()> {
        let _busy = Busy::begin();
        self.messages.push(Message::new("user", line));
        let prompt = self.prompt()?;
        let shared = common_prefix(&self.cached, &prompt).min(prompt.len().saturating_sub(1));
        let shared = self.engine.truncate(0, shared);
        let end: &[u32] = if self.args.choice.ignore_eos { &[] } else { &self.manifest.text.eos };
        let request = Request {
            prompt: &prompt[shared..],
            max_tokens: self.args.choice.max_tokens,
            sampling: self.sampling,
            stops: &self.args.choice.stop,
            end,
        };
        let mut answer = String::new();
        let mut emit = |piece: &str| {
            answer.push_str(piece);
            output::print(piece)
        };
        let outcome = generate(&mut self.engine, 0, &request, &mut self.text.stream(), &mut emit);
        output::print("\n")?;
        self.cached = prompt;
        self.cached.extend(outcome?.tokens);
        // The last token may not have been computed.
        self.cached.truncate(self.engine.positions(0));
        self.messages.push(Message::new("assistant", answer));
        // Another turn draws other numbers.
        self.sampling.seed = self.sampling.seed.wrapping_add(1);
        Ok(())
    }

    /// The whole conversation as tokens, with room for an answer; forgets the oldest turns until it fits.
    fn prompt(&mut self) -> Result<Vec<u32>> {
        loop {
            let prompt = self.text.encode_chat(&self.messages)?;
            let room = self.args.choice.max_tokens.min(self.engine.context() / 4);
            let first = self.messages.iter().position(|m| m.role != "system").unwrap_or(0);
            let rest = self.messages.len() - first;
            if prompt.len() + room <= self.engine.context() || rest <= 1 {
                return Ok(prompt);
            }
            self.messages.drain(first..first + 2.min(rest - 1));
            if !self.args.machine.quiet {
                output::note("note: the context is full; the oldest turn is forgotten");
            }
        }
    }
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
