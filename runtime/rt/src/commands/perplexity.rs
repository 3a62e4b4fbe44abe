//! `perplexity`: how well the model predicts a text. The text is encoded as mere text; windows of `ctx`
//! tokens do not overlap, a last shorter one is dropped, nothing is put before a window, and each window
//! scores its tokens from the second on.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::{engine_options, text_file};
use crate::artifact::Artifact;
use crate::cli::Perplexity;
use crate::engine::{Engine, Rows};
use crate::error::{Error, Result};
use crate::output::{self, Progress};
use crate::sys::signals::{self, Busy};
use crate::text::Text;

/// Runs the command.
pub fn run(args: &Perplexity) -> Result<()> {
    if args.ctx < 2 {
        return Err(Error::usage("--ctx must be 2 or more: the first token of a window is not scored"));
    }
    let input = text_file(&args.file)?;
    let artifact = Artifact::open()?;
    let tokens = Text::open(&artifact)?.encode_plain(&input);
    let mut options = engine_options(&args.machine);
    if artifact.manifest.kv.keep.is_none() {
        options.context = Some(options.context.unwrap_or(args.ctx).max(args.ctx));
    }
    if tokens.len() < args.ctx {
        return Err(Error::input(format!(
            "{} has {} tokens, fewer than one window of {}; give a longer text or a smaller --ctx",
            args.file.display(),
            tokens.len(),
            args.ctx
        )));
    }
    let (mut engine, _populating) = artifact.engine(&args.machine, options)?;
    let _busy = Busy::begin();
    let windows = tokens.len() / args.ctx;
    let mut progress = Progress::new(args.machine.quiet);
    let (mut sum, mut scored) = (0.0, 0usize);
    for (done, window) in tokens.chunks_exact(args.ctx).enumerate() {
        sum += score_window(&mut engine, window)?;
        scored += window.len() - 1;
        progress.show(|| format!("window {} of {windows}, perplexity {:.4}", done + 1, (sum / scored as f64).exp()));
    }
    drop(progress);
    let perplexity = (sum / scored as f64).exp();
    if args.json {
        let object = json!({
            "perplexity": perplexity, "nll": sum, "tokens": scored, "windows": windows, "ctx": args.ctx,
            "text_tokens": tokens.len(),
        });
        return output::print_line(&object.to_string());
    }
    output::print_line(&format!("perplexity {perplexity:.4} over {scored} tokens in {windows} windows of {}", args.ctx))
}

/// Summed negative log likelihood of a window's tokens from the second on.
fn score_window(engine: &mut Engine, window: &[u32]) -> Result<f64> {
    engine.truncate(0, 0);
    let (mut start, mut sum) = (0, 0.0);
    while start < window.len() - 1 {
        signals::check()?;
        let step = engine.room(0).min(engine.step_rows());
        let end = (start + step).min(window.len() - 1);
        engine.extend(0, &window[start..end], Rows::Range(0, end - start))?;
        sum += score_rows(engine, &window[start + 1..end + 1]);
        start = end;
    }
    Ok(sum)
}

/// Summed negative log likelihood of `targets` under the rows of the last step, row by row in parallel.
fn score_rows(engine: &mut Engine, targets: &[u32]) -> f64 {
    let scores: Vec<AtomicU64> = targets.iter().map(|_| AtomicU64::new(0)).collect();
    engine.each_row(targets.len(), &|row, logits| {
        scores[row].store(negative_log_likelihood(logits, targets[row]).to_bits(), Ordering::Relaxed);
    });
    // In the order of the rows, so that the sum does not depend on the workers.
    scores.iter().map(|s| f64::from_bits(s.load(Ordering::Relaxed))).sum()
}

/// Minus the log-softmax of `target`, in f64.
fn negative_log_likelihood(logits: &[f32], target: u32) -> f64 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x));
    let sum: f64 = logits.iter().map(|x| f64::from(x - largest).exp()).sum();
    let target = logits.get(target as usize).copied().unwrap_or(f32::NEG_INFINITY);
    sum.ln() + f64::from(largest) - f64::from(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihoods() {
        let third = negative_log_likelihood(&[5.0, 5.0, 5.0], 1);
        assert!((third - 3f64.ln()).abs() < 1e-12);
        let far = negative_log_likelihood(&[1000.0, 0.0], 1);
        assert!((far - 1000.0).abs() < 1e-9);
        assert!(negative_log_likelihood(&[0.0], 7).is_infinite());
    }
}
