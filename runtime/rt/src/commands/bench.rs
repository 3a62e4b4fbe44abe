//! `bench`: how fast the artifact prefills and decodes here, next to how fast this machine reads memory.

use std::time::{Duration, Instant};

use super::bench_report::{Measured, PhaseRow, print};
use super::engine_options;
use crate::artifact::Artifact;
use crate::bandwidth::{self, Ceiling, Speed};
use crate::cli::Bench;
use crate::energy::Reading;
use crate::engine::{Engine, Rows};
use crate::error::{Error, Result};
use crate::limits;
use crate::output::Progress;
use crate::sampler::{Sampler, Sampling, SplitMix64};
use crate::sys::{mmap, signals};

/// Sizes of the work.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Tokens of the prompt.
    pub prefill: usize,
    /// Tokens decoded.
    pub decode: usize,
    /// Tokens in the cache before decoding.
    pub depth: usize,
}

/// Runs the command.
pub fn run(args: &Bench) -> Result<()> {
    let artifact = Artifact::open()?;
    let (mut engine, populating) = artifact.engine(&args.machine, engine_options(&args.machine))?;
    let load = crate::clock_start().elapsed();
    let sizes = sizes(args, engine.context())?;
    let _busy = signals::Busy::begin();
    let mut progress = Progress::new(args.machine.quiet);
    let variant = engine.variant();
    let mut work = Work::new(&mut engine, sizes);
    let (first, _) = work.prefill()?;
    let start_to_first = crate::clock_start().elapsed();
    if let Some(thread) = populating {
        // It returns nothing that matters.
        let _ = thread.join();
    }
    progress.show(|| "measuring the read bandwidth".into());
    let before_peak = limits::usage().peak_rss;
    let before = work.ceiling()?;
    let resettable = mmap::reset_peak();
    let mut prefill = Vec::new();
    let mut ttft = Vec::new();
    let mut decode = Vec::new();
    let mut readable = Vec::new();
    let mut joules = Reading::now().map(|_| Vec::new());
    for round in 1..=args.repetitions {
        progress.show(|| format!("round {round} of {}", args.repetitions));
        let (whole, tokens) = work.prefill()?;
        prefill.push(sizes.prefill as f64 / tokens.as_secs_f64());
        ttft.push(whole.as_secs_f64() * 1e3);
        work.fill()?;
        let reading = Reading::now();
        let decoded = work.decode(Some(before.mapped))?;
        decode.push(sizes.decode as f64 / decoded.time.as_secs_f64());
        readable.push(decoded.readable / decoded.time.as_nanos().max(1) as f64);
        if let (Ok(list), Some(used)) = (&mut joules, reading.ok().and_then(|r| r.joules_since())) {
            list.push(used / sizes.decode as f64);
        }
    }
    let usage = limits::usage();
    let ceiling: Ceiling = before.or(work.ceiling()?);
    let profile = if args.profile { Some(work.profile(&artifact, variant)?) } else { None };
    drop(progress);
    let measured = Measured {
        sizes,
        threads: engine.threads(),
        prefill,
        ttft,
        decode,
        readable,
        kv_bytes_per_token: kv_bytes(&artifact, variant, sizes),
        ceiling,
        load,
        start_to_first,
        cold_prefill: first,
        peak_rss: if resettable { usage.peak_rss.max(before_peak) } else { usage.peak_rss },
        peak_includes_buffer: !resettable,
        anonymous: usage.anonymous,
        planned: engine.memory().total().unwrap_or(usize::MAX),
        joules: joules.and_then(|list| if list.is_empty() { Err("the counters stopped".into()) } else { Ok(list) }),
        profile,
    };
    print(args, &artifact.manifest, variant, &measured)
}

/// Bytes of the KV cache that a token reads on average.
fn kv_bytes(artifact: &Artifact, variant: usize, sizes: Sizes) -> f64 {
    let phases = artifact.manifest.variants.get(variant).map_or(&[][..], |v| &v.phases[..]);
    let per_position: u64 = phases.iter().map(|p| p.kv_bytes_per_position).sum();
    per_position as f64 * (sizes.depth as f64 + sizes.decode as f64 / 2.0)
}

/// The sizes asked for; those not asked for are cut to the context.
fn sizes(args: &Bench, context: usize) -> Result<Sizes> {
    let left = context.saturating_sub(args.depth);
    let sizes = Sizes {
        prefill: args.prefill.unwrap_or(512.min(context)),
        decode: args.decode.unwrap_or(128.min(left)),
        depth: args.depth,
    };
    if sizes.prefill == 0 || sizes.decode == 0 {
        return Err(Error::usage(
            "there is nothing to measure: -p and -n must be 1 or more, and --depth within the context",
        ));
    }
    let most = sizes.prefill.max(sizes.depth.saturating_add(sizes.decode));
    if most > context {
        return Err(Error::fit(format!(
            "{most} positions are needed, the context has {context}; give smaller -p, -n or --depth, or a larger --ctx-size"
        )));
    }
    Ok(sizes)
}

/// Time between two probes of the bandwidth while decoding.
const SLICE: Duration = Duration::from_millis(200);

/// A decoding.
struct Decoded {
    /// Without the probes.
    time: Duration,
    /// Bytes that could have been read in that time.
    readable: f64,
}

/// The work that is measured.
struct Work<'a> {
    engine: &'a mut Engine,
    sizes: Sizes,
    prompt: Vec<u32>,
    sampler: Sampler,
}

impl<'a> Work<'a> {
    fn new(engine: &'a mut Engine, sizes: Sizes) -> Self {
        let mut random = SplitMix64(1);
        let vocab = engine.vocab().max(1) as u64;
        let prompt = (0..sizes.prefill.max(sizes.depth)).map(|_| (random.bits() % vocab) as u32).collect();
        let sampler = Sampler::new(Sampling::default(), engine.vocab());
        Self { engine, sizes, prompt, sampler }
    }

    fn ceiling(&mut self) -> Result<Ceiling> {
        signals::check()?;
        let weights = self.engine.weights();
        bandwidth::measure(self.engine.workers(), weights)
    }

    /// Prefills an empty sequence: time to the first token chosen, and without the choice.
    fn prefill(&mut self) -> Result<(Duration, Duration)> {
        self.engine.truncate(0, 0);
        let start = Instant::now();
        let logits = self.engine.prefill(0, &self.prompt[..self.sizes.prefill], 0, signals::check)?;
        let computed = start.elapsed();
        self.sampler.sample(logits)?;
        Ok((start.elapsed(), computed))
    }

    /// Fills the cache to the depth.
    fn fill(&mut self) -> Result<()> {
        self.engine.truncate(0, self.sizes.depth.min(self.sizes.prefill));
        let have = self.engine.positions(0);
        if self.sizes.depth > have {
            self.engine.prefill(0, &self.prompt[have..self.sizes.depth], 0, signals::check)?;
        }
        Ok(())
    }

    /// Decodes from the depth on. With `best` the bandwidth is probed before and after, and now and
    /// then in between.
    fn decode(&mut self, best: Option<Speed>) -> Result<Decoded> {
        let mut token = self.prompt[0];
        let mut decoded = Decoded { time: Duration::ZERO, readable: 0.0 };
        let mut before = self.probe(best);
        let mut start = Instant::now();
        for i in 1..=self.sizes.decode {
            signals::check()?;
            token = self.sampler.sample(self.engine.extend(0, &[token], Rows::Last)?)?;
            let slice = start.elapsed();
            if i == self.sizes.decode || best.is_some() && slice >= SLICE {
                let after = self.probe(best);
                decoded.time += slice;
                decoded.readable += slice.as_nanos() as f64 * (before + after) / 2.0;
                (before, start) = (after, Instant::now());
            }
        }
        Ok(decoded)
    }

    fn probe(&mut self, best: Option<Speed>) -> f64 {
        let weights = self.engine.weights();
        best.map_or(0.0, |best| bandwidth::probe(self.engine.workers(), weights, best))
    }

    /// Times of the phases of one prefill and one decoding.
    fn profile(&mut self, artifact: &Artifact, variant: usize) -> Result<[Vec<PhaseRow>; 2]> {
        self.engine.profile().reset(true);
        self.prefill()?;
        let steps = self.sizes.prefill.div_ceil(self.engine.step_tokens());
        let prefill = self.rows(artifact, variant, steps, self.sizes.prefill, self.sizes.prefill);
        self.fill()?;
        self.engine.profile().reset(true);
        self.decode(None)?;
        let positions = 2 * self.sizes.depth + self.sizes.decode;
        let decode = self.rows(artifact, variant, self.sizes.decode, self.sizes.decode, positions);
        self.engine.profile().reset(false);
        Ok([prefill, decode])
    }

    /// One row for each phase of `steps` steps with `tokens` tokens together, which saw half of
    /// `positions` cached positions on average.
    fn rows(
        &self,
        artifact: &Artifact,
        variant: usize,
        steps: usize,
        tokens: usize,
        positions: usize,
    ) -> Vec<PhaseRow> {
        let phases = artifact.manifest.variants.get(variant).map_or(&[][..], |v| &v.phases[..]);
        let profile = self.engine.profile();
        let row = |(phase, time): (&llmc_abi::manifest::PhaseInfo, _)| {
            PhaseRow::new(phase, time, steps, tokens, positions as f64 / 2.0)
        };
        let mut rows: Vec<_> = phases.iter().zip(profile.times()).map(row).collect();
        rows.push(PhaseRow::rest(profile.tail_nanos(), steps));
        rows
    }
}
