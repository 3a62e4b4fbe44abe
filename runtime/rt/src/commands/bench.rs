//! `bench`: how fast the artifact prefills and decodes here, next to how fast this machine reads memory.

use std::time::{Duration, Instant};

use llmc_abi::Manifest;

use super::bench_batch::{self, Batch};
use super::bench_energy::Joules;
use super::bench_report::{Measured, print};
use super::engine_options;
use crate::artifact::Artifact;
use crate::bandwidth::{self, Ceiling, Speed};
use crate::cli::Bench;
use crate::cuda;
use crate::decode::Decoder;
use crate::engine::{Engine, Options};
use crate::error::{Error, Result};
use crate::limits;
use crate::output::Progress;
use crate::peak::Peaks;
use crate::sampler::{Sampling, SplitMix64};
use crate::sys::{mmap, signals};

/// Tokens of a prompt unless told otherwise, and tokens decoded.
const PREFILL: usize = 512;
const DECODE: usize = 128;

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
    let (mut engine, populating) = artifact.engine(&args.machine, options(args, &artifact.manifest)?)?;
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
    let peaks_before = peaks(&mut work, &artifact.manifest, variant);
    let resettable = mmap::reset_peak();
    let mut prefill = Vec::new();
    let mut ttft = Vec::new();
    let mut decode = Vec::new();
    let mut readable = Vec::new();
    let counters = Joules::of(work.engine);
    let mut joules = counters.start().map(|_| Vec::new());
    for round in 1..=args.repetitions {
        progress.show(|| format!("round {round} of {}", args.repetitions));
        let (whole, tokens) = work.prefill()?;
        prefill.push(sizes.prefill as f64 / tokens.as_secs_f64());
        ttft.push(whole.as_secs_f64() * 1e3);
        work.fill()?;
        let reading = counters.start();
        let decoded = work.decode(Some(before.mapped))?;
        decode.push(sizes.decode as f64 / decoded.time.as_secs_f64());
        readable.push(decoded.readable / decoded.time.as_nanos().max(1) as f64);
        if let (Ok(list), Some(used)) = (&mut joules, reading.ok().and_then(|start| counters.since(&start))) {
            list.push(used / sizes.decode as f64);
        }
    }
    let batches = work.batches(args, &mut progress)?;
    let usage = limits::usage();
    let ceiling: Ceiling = before.or(work.ceiling()?);
    let peaks = peaks(&mut work, &artifact.manifest, variant).or(&peaks_before);
    let profile = if args.profile { Some(work.profile(&artifact, variant)?) } else { None };
    drop(progress);
    let measured = Measured {
        sizes,
        device: engine.gpu().map(|step| step.gpu().info().name.clone()),
        threads: engine.threads(),
        prefill,
        ttft,
        decode,
        readable,
        kv_bytes_per_token: kv_bytes(&artifact, variant, sizes),
        ceiling,
        peaks,
        load,
        start_to_first,
        cold_prefill: first,
        peak_rss: if resettable { usage.peak_rss.max(before_peak) } else { usage.peak_rss },
        peak_includes_buffer: !resettable,
        anonymous: usage.anonymous,
        planned: engine.memory().total().unwrap_or(usize::MAX),
        joules: joules.and_then(|list| if list.is_empty() { Err("the counters stopped".into()) } else { Ok(list) }),
        profile,
        batches,
    };
    print(args, &artifact.manifest, variant, &measured)
}

/// How the engine is made: with room for as many sequences as run at once, each of them no longer than needed.
fn options(args: &Bench, manifest: &Manifest) -> Result<Options> {
    let mut options = engine_options(&args.machine);
    let Some(parallel) = args.parallel else { return Ok(options) };
    if manifest.kv.keep.is_some() {
        return Err(Error::usage("--parallel: compile with --ctx-policy full to run several sequences at once"));
    }
    let decode = args.decode.unwrap_or(DECODE);
    let needed = args.prefill.unwrap_or(PREFILL).max(args.depth).saturating_add(decode).min(manifest.model.context);
    options.context.get_or_insert(needed);
    options.sequences = parallel.into();
    Ok(options)
}

/// Peaks of the units that a variant's products use; a GPU's are not measured.
fn peaks(work: &mut Work<'_>, manifest: &Manifest, variant: usize) -> Peaks {
    match manifest.variants.get(variant).filter(|v| v.group.is_none()) {
        Some(code) => Peaks::measure(work.engine.workers(), code.features, &code.phases),
        None => Peaks::default(),
    }
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
        prefill: args.prefill.unwrap_or(PREFILL.min(context)),
        decode: args.decode.unwrap_or(DECODE.min(left)),
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
pub struct Decoded {
    /// Without the probes.
    pub time: Duration,
    /// Bytes that could have been read in that time.
    readable: f64,
}

/// The work that is measured.
pub struct Work<'a> {
    /// What runs it.
    pub engine: &'a mut Engine,
    /// Its sizes.
    pub sizes: Sizes,
    prompt: Vec<u32>,
    decoder: Decoder,
}

impl<'a> Work<'a> {
    fn new(engine: &'a mut Engine, sizes: Sizes) -> Self {
        let mut random = SplitMix64(1);
        let vocab = engine.vocab().max(1) as u64;
        let prompt = (0..sizes.prefill.max(sizes.depth)).map(|_| (random.bits() % vocab) as u32).collect();
        let decoder = Decoder::new(engine, Sampling::default());
        Self { engine, sizes, prompt, decoder }
    }

    fn ceiling(&mut self) -> Result<Ceiling> {
        signals::check()?;
        if let Some(step) = self.engine.gpu() {
            let mapped = cuda::bandwidth::measure(step.gpu())?;
            return Ok(Ceiling { anonymous: Speed::default(), mapped });
        }
        let weights = self.engine.weights();
        bandwidth::measure(self.engine.workers(), weights)
    }

    /// Runs many sequences at once, once for each repetition; nothing where that is not asked for.
    fn batches(&mut self, args: &Bench, progress: &mut Progress) -> Result<Vec<Batch>> {
        let Some(parallel) = args.parallel else { return Ok(vec![]) };
        let batch = |round| {
            progress.show(|| format!("batch {round} of {}", args.repetitions));
            bench_batch::run(self.engine, parallel.into(), self.sizes, &self.prompt)
        };
        (1..=args.repetitions).map(batch).collect()
    }

    /// Prefills an empty sequence: time to the first token chosen, and without the choice.
    pub fn prefill(&mut self) -> Result<(Duration, Duration)> {
        self.engine.truncate(0, 0);
        let start = Instant::now();
        let logits = self.engine.prefill(0, &self.prompt[..self.sizes.prefill], 0, signals::check)?;
        let computed = start.elapsed();
        self.decoder.first(logits)?;
        Ok((start.elapsed(), computed))
    }

    /// Fills the cache to the depth.
    pub fn fill(&mut self) -> Result<()> {
        self.engine.truncate(0, self.sizes.depth.min(self.sizes.prefill));
        let have = self.engine.positions(0);
        if self.sizes.depth > have {
            self.engine.prefill(0, &self.prompt[have..self.sizes.depth], 0, signals::check)?;
        }
        Ok(())
    }

    /// Decodes from the depth on, choice of the tokens included. With `best` the bandwidth is probed before and
    /// after, and now and then in between; a GPU's does not change meanwhile.
    pub fn decode(&mut self, best: Option<Speed>) -> Result<Decoded> {
        let mut token = self.prompt[0];
        let mut decoded = Decoded { time: Duration::ZERO, readable: 0.0 };
        let probes = best.is_some() && self.engine.gpu().is_none();
        let mut before = self.probe(best);
        let mut start = Instant::now();
        for i in 1..=self.sizes.decode {
            signals::check()?;
            token = self.decoder.next(self.engine, 0, token, i < self.sizes.decode)?;
            let slice = start.elapsed();
            if i == self.sizes.decode || probes && slice >= SLICE {
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
        match best {
            None => 0.0,
            Some(best) if self.engine.gpu().is_some() => best.gb_s,
            Some(best) => bandwidth::probe(self.engine.workers(), weights, best),
        }
    }
}
