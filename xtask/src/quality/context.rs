//! What keeping a part of a text costs: the table in `docs/context.md`.
//!
//! Texts are scored in stretches longer than the bundled model's context. Full attention has to begin anew
//! whenever its memory is full; a window goes on with the first and the last positions in the same memory, a score with
//! those used most.

use super::{compile, model, write_page};
use crate::output;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Positions held in memory.
const HELD: [usize; 3] = [128, 256, 512];
/// Positions of a page, which are the least that is kept at a text's beginning.
const PAGE: usize = 32;
/// Tokens that both are scored over at a time.
const STRETCH: usize = 4096;
const TEXTS: [&str; 3] = ["test_wiki", "test_books", "test_ko"];

/// Measures the policies and writes the table into the page.
pub(super) fn run(folder: &Path) -> Result<()> {
    let mut table = String::from("| positions held | `full`, begun anew | `window` | `score` |\n|---|---|---|---|\n");
    let full = compile(&model(), &folder.join("full"), &[])?;
    for held in HELD {
        eprintln!("{held} positions");
        // In its page a token may be the first: then a page less than are kept is whole before it.
        let (window, sinks) = (held - 2 * PAGE, PAGE);
        let policies = [format!("window={window},sinks={sinks}"), format!("score={}", held - PAGE)];
        write!(table, "| {held} | {:.2} |", perplexity(&full, held)?)?;
        for policy in policies {
            let kept = compile(&model(), &folder.join("kept"), &["--ctx-policy", &policy])?;
            write!(table, " {:.2} (`{policy}`) |", perplexity(&kept, STRETCH)?)?;
        }
        table.push('\n');
    }
    write_page("context.md", &table)
}

/// Perplexity over all texts in stretches of `ctx` tokens.
fn perplexity(artifact: &Path, ctx: usize) -> Result<f64> {
    let (mut sum, mut tokens) = (0.0, 0.0);
    for text in TEXTS {
        let path = model().join("reference").join(format!("{text}.txt"));
        let mut command = Command::new(artifact);
        let answer = output(command.arg("perplexity").arg(path).args(["-q", "--json", "--ctx", &ctx.to_string()]))?;
        let answer: Value = serde_json::from_slice(&answer)?;
        sum += answer["nll"].as_f64().context("perplexity prints its sum")?;
        tokens += answer["tokens"].as_f64().context("perplexity prints its tokens")?;
    }
    Ok((sum / tokens).exp())
}
