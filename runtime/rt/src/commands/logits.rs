//! `logits`: the logits of every position, to a file or as a summary.

use std::path::Path;

use serde_json::{Value, json};

use super::{engine_options, text_argument, token_list};
use crate::artifact::Artifact;
use crate::cli::Logits;
use crate::engine::{Engine, Rows};
use crate::error::{Error, Result};
use crate::output;
use crate::safetensors::{Tensor, Writer};
use crate::sys::signals::{self, Busy};
use crate::text::Text;

/// Likeliest tokens shown of the last position.
const TOP: usize = 5;

/// Runs the command.
pub fn run(args: &Logits) -> Result<()> {
    let text = args.text.as_deref().map(text_argument).transpose()?;
    let artifact = Artifact::open()?;
    let tokens = match &text {
        Some(text) => Text::open(&artifact)?.encode_prompt(text),
        None => token_list(args.tokens.as_deref().unwrap_or(""))?,
    };
    if tokens.is_empty() {
        return Err(Error::usage("there are no tokens; give --text or --tokens 1,2,3"));
    }
    let (mut engine, _populating) = artifact.engine(&args.machine, engine_options(&args.machine))?;
    if tokens.len() > engine.context() {
        return Err(Error::fit(format!(
            "{} tokens do not fit into the context of {} positions",
            tokens.len(),
            engine.context()
        )));
    }
    let chunk = chunk(args.chunk, &engine)?;
    let _busy = Busy::begin();
    let mut best = Vec::with_capacity(tokens.len());
    let mut last = Vec::new();
    let mut writer = args.output.as_deref().map(|path| open(path, tokens.len(), engine.vocab())).transpose()?;
    let vocab = engine.vocab();
    each_row_of(&mut engine, &tokens, chunk, &mut |rows| {
        best.extend(rows.chunks_exact(vocab).map(|row| likeliest(row, 1)[0].0));
        if let Some(row) = rows.chunks_exact(vocab).next_back() {
            last = likeliest(row, TOP);
        }
        writer.as_mut().map_or(Ok(()), |w| w.floats(rows))
    })?;
    if let Some(mut writer) = writer {
        writer.integers(tokens.iter().map(|t| i64::from(*t)))?;
        writer.finish()?;
    }
    summary(args, &tokens, vocab, &best, &last)
}

/// Tokens per step: those asked for, or as many as a step can give the logits of.
fn chunk(asked: Option<usize>, engine: &Engine) -> Result<usize> {
    match asked {
        None => Ok(engine.step_tokens().min(engine.step_rows())),
        Some(n) if (1..=engine.step_tokens()).contains(&n) => Ok(n),
        Some(n) => Err(Error::usage(format!("--chunk {n} is not a step's size; give 1 to {}", engine.step_tokens()))),
    }
}

fn open(path: &Path, len: usize, vocab: usize) -> Result<Writer> {
    Writer::create(
        path,
        &[
            Tensor { name: "logits", dtype: "F32", shape: &[len, vocab] },
            Tensor { name: "input_ids", dtype: "I64", shape: &[len] },
        ],
    )
}

/// Gives the logits of all tokens to `each`, a few rows at a time. A step gives a limited number of
/// rows, so a chunk of more tokens is computed again for each further part of its rows.
fn each_row_of(
    engine: &mut Engine,
    tokens: &[u32],
    chunk: usize,
    each: &mut dyn FnMut(&[f32]) -> Result<()>,
) -> Result<()> {
    let most = engine.step_rows();
    let mut start = 0;
    while start < tokens.len() {
        let part = &tokens[start..tokens.len().min(start + chunk.min(engine.room(0)))];
        for first in (0..part.len()).step_by(most) {
            signals::check()?;
            engine.truncate(0, start);
            each(engine.extend(0, part, Rows::Range(first, (first + most).min(part.len())))?)?;
        }
        start += part.len();
    }
    Ok(())
}

/// The `n` largest logits with their tokens, largest first; at least one.
fn likeliest(row: &[f32], n: usize) -> Vec<(u32, f32)> {
    let mut top: Vec<(u32, f32)> = Vec::with_capacity(n + 1);
    for (token, &logit) in row.iter().enumerate() {
        if top.len() < n || top.last().is_some_and(|t| logit > t.1) {
            let at = top.iter().position(|t| logit > t.1).unwrap_or(top.len());
            top.insert(at, (token as u32, logit));
            top.truncate(n);
        }
    }
    top
}

fn summary(args: &Logits, tokens: &[u32], vocab: usize, best: &[u32], last: &[(u32, f32)]) -> Result<()> {
    if args.json {
        let top: Vec<Value> = last.iter().map(|(token, logit)| json!({ "token": token, "logit": logit })).collect();
        let object = json!({
            "len": tokens.len(), "vocab": vocab, "input_ids": tokens, "argmax": best, "last_top": top,
            "output": args.output.as_ref().map(|p| p.display().to_string()),
        });
        return output::print_line(&object.to_string());
    }
    if let Some(path) = &args.output {
        return output::print_line(&format!("logits [{}, {vocab}] written to {}", tokens.len(), path.display()));
    }
    let list = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    output::print_line(&format!("tokens   {}\nlikeliest next after each   {}", list(tokens), list(best)))?;
    last.iter()
        .try_for_each(|(token, logit)| output::print_line(&format!("last   token {token:>7}   logit {logit:.5}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeliest_first() {
        assert_eq!(likeliest(&[1.0, 3.0, 2.0, 3.0], 3), [(1, 3.0), (3, 3.0), (2, 2.0)]);
        assert_eq!(likeliest(&[f32::NAN, 1.0], 1).len(), 1);
        assert_eq!(likeliest(&[f32::NEG_INFINITY], 5), [(0, f32::NEG_INFINITY)]);
    }
}
