//! `run`: one prompt, one answer, streamed.

use std::ffi::OsStr;

use serde_json::json;

use super::{engine_options, sampling, text_argument, token_list};
use crate::artifact::Artifact;
use crate::chat::Message;
use crate::cli::Run;
use crate::error::Result;
use crate::generate::{Finish, Numbers, Outcome, Request, Stream, generate};
use crate::output;
use crate::sys::signals::Busy;
use crate::text::Text;

/// Runs the command.
pub fn run(args: &Run) -> Result<()> {
    let sampling = sampling(&args.choice)?;
    let prompt_text = args.prompt.as_deref().map(prompt_text).transpose()?;
    let artifact = Artifact::open()?;
    // Tokens need no tokenizer; their answer is then printed as tokens too.
    let text = match prompt_text {
        Some(_) => Some(Text::open(&artifact)?),
        None => Text::open(&artifact).ok(),
    };
    let prompt = match (&prompt_text, &text) {
        (Some(prompt), Some(text)) if args.raw || !text.has_template() => text.encode_prompt(prompt),
        (Some(prompt), Some(text)) => text.encode_chat(&[Message::new("user", prompt)])?,
        _ => token_list(args.tokens.as_deref().unwrap_or(""))?,
    };
    let (mut engine, _populating) = artifact.engine(&args.machine, engine_options(&args.machine))?;
    let end: &[u32] = if args.choice.ignore_eos { &[] } else { &artifact.manifest.text.eos };
    let request =
        Request { prompt: &prompt, max_tokens: args.choice.max_tokens, sampling, stops: &args.choice.stop, end };
    let mut stream: Box<dyn Stream + '_> = match &text {
        Some(text) => Box::new(text.stream()),
        None => Box::new(Numbers::default()),
    };
    let (mut whole, mut printed) = (String::new(), false);
    let mut emit = |piece: &str| -> Result<()> {
        if args.json {
            whole.push_str(piece);
            return Ok(());
        }
        printed = true;
        output::print(piece)
    };
    let busy = Busy::begin();
    let outcome = generate(&mut engine, 0, &request, &mut *stream, &mut emit);
    drop(busy);
    if args.json {
        let object = report(&whole, &prompt, &outcome?, sampling.seed);
        return output::print_line(&object.to_string());
    }
    if printed || outcome.is_ok() {
        output::print("\n")?;
    }
    let outcome = outcome?;
    if outcome.finish == Finish::Context && !args.machine.quiet {
        output::note(&format!("note: the context of {} positions is full", engine.context()));
    }
    Ok(())
}

/// The prompt; a newline that ends standard input is the shell's, not the user's.
fn prompt_text(argument: &OsStr) -> Result<String> {
    let mut text = text_argument(argument)?;
    if argument == "-" && text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

fn report(text: &str, prompt: &[u32], outcome: &Outcome, seed: u64) -> serde_json::Value {
    let decoded = outcome.tokens.len().saturating_sub(1);
    let seconds = outcome.rest.as_secs_f64();
    json!({
        "text": text,
        "tokens": outcome.tokens,
        "prompt_tokens": prompt,
        "finish_reason": outcome.finish.name(),
        "seed": seed,
        "ttft_ms": outcome.first.as_secs_f64() * 1e3,
        "decode_tok_s": if decoded > 0 && seconds > 0.0 { Some(decoded as f64 / seconds) } else { None },
    })
}
