//! How fast a model is whose weights do not matter: they are made up here.

use crate::bundle::{self, Speed};
use crate::phases::{self, Phase};
use llmc_rt::cuda::bandwidth;
use llmc_rt::cuda::step::GpuStep;
use llmc_rt::decode::Decoder;
use llmc_rt::engine::Engine;
use llmc_rt::error::{Error, Result};
use llmc_rt::sampler::{Sampling, SplitMix64};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// Times that prompts and decodings are measured, of which the medians are told.
const ROUNDS: usize = 3;

/// What was measured of a model.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// Seconds from its files to a model that runs.
    pub load_s: f64,
    /// What the device reads: GB/s, in the same process.
    pub ceiling_gb_s: f64,
    /// Tokens of the prompt, those in the cache when others are decoded, and those.
    pub tokens: [usize; 3],
    /// Tokens of prompts per second.
    pub prefill_tok_s: f64,
    /// Tokens decoded per second, chosen with a temperature.
    pub decode_tok_s: f64,
    /// Bytes of weights that a token reads.
    pub weight_bytes: u64,
    /// Share of the ceiling with which a token reads them.
    pub percent: f64,
    /// The same with top-k and top-p.
    pub filtered_tok_s: f64,
    /// Where the time of decoding goes, without those.
    pub phases: Vec<Phase>,
}

/// Measures a model in a folder of the bundle.
pub fn measure(folder: &Path, speed: &Speed, device: usize) -> Result<Measured> {
    let start = Instant::now();
    let context = speed.prefill.max(speed.depth + speed.decode) + 1;
    let folder = folder.join(&speed.name);
    let mut engine = bundle::engine(&folder, device, Some(context))?;
    let load_s = start.elapsed().as_secs_f64();
    let manifest = bundle::manifest(&folder)?;
    let weight_bytes = manifest.weights.bytes_per_token;
    let ceiling_gb_s = bandwidth::measure(on_gpu(&engine)?.gpu())?.gb_s;
    let mut random = SplitMix64(1);
    let vocab = engine.vocab() as u64;
    let prompt: Vec<u32> = (0..speed.prefill).map(|_| (random.bits() % vocab) as u32).collect();
    let prefill = (0..=ROUNDS).map(|_| prefill(&mut engine, &prompt)).collect::<Result<Vec<f64>>>()?;
    let own = Sampling { temperature: 0.7, ..Sampling::default() };
    let filtered = Sampling { top_k: 20, top_p: 0.95, ..own };
    let [plain, filtered] = [own, filtered].map(|sampling| {
        let rounds = (0..=ROUNDS).map(|_| decode(&mut engine, (prompt[0], speed.depth), speed.decode, sampling));
        rounds.collect::<Result<Vec<f64>>>()
    });
    let decode_tok_s = speed.decode as f64 / median(plain?);
    let before = phases::ticks(on_gpu(&engine)?, &manifest)?;
    let seconds = decode(&mut engine, (prompt[0], speed.depth), speed.decode, own)?;
    let step = on_gpu(&engine)?;
    let ticks = [before, phases::ticks(step, &manifest)?];
    let phases = phases::between(step, &manifest, ticks, (speed.decode, seconds));
    Ok(Measured {
        name: speed.name.clone(),
        load_s,
        ceiling_gb_s,
        tokens: [speed.prefill, speed.depth, speed.decode],
        prefill_tok_s: speed.prefill as f64 / median(prefill),
        decode_tok_s,
        weight_bytes,
        percent: 100.0 * decode_tok_s * weight_bytes as f64 / 1e9 / ceiling_gb_s,
        filtered_tok_s: speed.decode as f64 / median(filtered?),
        phases,
    })
}

fn on_gpu(engine: &Engine) -> Result<&GpuStep> {
    engine.gpu().ok_or_else(|| Error::device("the bundle's models run on GPUs alone"))
}

/// Seconds of a prompt.
fn prefill(engine: &mut Engine, prompt: &[u32]) -> Result<f64> {
    engine.truncate(0, 0);
    let start = Instant::now();
    engine.prefill(0, prompt, 0, || Ok(()))?;
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds of some tokens, the first given, behind a part of the prompt.
fn decode(engine: &mut Engine, (first, depth): (u32, usize), count: usize, sampling: Sampling) -> Result<f64> {
    engine.truncate(0, depth);
    let mut decoder = Decoder::new(engine, sampling);
    let (mut token, start) = (first, Instant::now());
    for i in 1..=count {
        token = decoder.next(engine, 0, token, i < count)?;
    }
    let time = start.elapsed().as_secs_f64();
    decoder.finish(engine, 0);
    Ok(time)
}

/// The median of all but the first.
fn median(times: Vec<f64>) -> f64 {
    let mut times = times[1..].to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_round_does_not_count() {
        assert_eq!(median(vec![100.0, 3.0, 1.0, 2.0]), 2.0);
    }
}
