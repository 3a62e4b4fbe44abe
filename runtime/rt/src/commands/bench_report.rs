//! What `bench` prints: a table for people, one JSON object for machines.

use std::time::Duration;

use llmc_abi::Manifest;
use llmc_abi::manifest::{PhaseInfo, Unit};
use serde_json::{Value, json};

use super::bench::Sizes;
use super::bench_batch::{self, Batch};
use crate::bandwidth::{Ceiling, Speed};
use crate::cli::Bench;
use crate::error::Result;
use crate::memory::megabytes;
use crate::output;
use crate::peak::Peaks;
use crate::workers::profile::PhaseTime;

/// Everything measured; lists have one number per repetition.
pub struct Measured {
    /// Sizes of the work.
    pub sizes: Sizes,
    /// The GPU's name, if one runs the model.
    pub device: Option<String>,
    /// Workers of the CPU.
    pub threads: usize,
    /// Tokens per second.
    pub prefill: Vec<f64>,
    /// Milliseconds from the prompt to the first token.
    pub ttft: Vec<f64>,
    /// Tokens per second.
    pub decode: Vec<f64>,
    /// Bytes per nanosecond that could be read while decoding, probed in between.
    pub readable: Vec<f64>,
    /// Bytes of the KV cache that a token reads.
    pub kv_bytes_per_token: f64,
    /// Read speeds, the better of before and after.
    pub ceiling: Ceiling,
    /// What the units that multiply do from registers, the better of before and after; a GPU's are not measured.
    pub peaks: Peaks,
    /// From the start of the process until the model was ready.
    pub load: Duration,
    /// From the start of the process to the first token of the first prompt.
    pub start_to_first: Duration,
    /// The first prompt, with cold caches and pages not yet mapped.
    pub cold_prefill: Duration,
    /// Most memory resident, mapped files included.
    pub peak_rss: u64,
    /// Whether the peak counts the buffer that bandwidth was measured with.
    pub peak_includes_buffer: bool,
    /// Anonymous memory resident after the work.
    pub anonymous: u64,
    /// Anonymous memory planned; on a GPU the device's, the weights left out.
    pub planned: usize,
    /// Joules per token decoded, or why they are not known.
    pub joules: std::result::Result<Vec<f64>, String>,
    /// Phases of prefill and of decoding.
    pub profile: Option<[Vec<PhaseRow>; 2]>,
    /// Many sequences at once, where that is asked for.
    pub batches: Vec<Batch>,
}

/// One line of a profile, for one step on average.
pub struct PhaseRow {
    kernels: String,
    runs: f64,
    microseconds: f64,
    bytes: f64,
    flops: f64,
    unit: Option<Unit>,
}

impl PhaseRow {
    /// A phase that took `time` in `steps` steps with `tokens` tokens together, each of which saw
    /// `positions` cached positions and gave one row of logits.
    pub fn new(phase: &PhaseInfo, time: PhaseTime, steps: usize, tokens: usize, positions: f64) -> Self {
        let steps = steps.max(1) as f64;
        Self {
            kernels: phase.kernels.join(" + "),
            runs: time.runs as f64 / steps,
            microseconds: time.nanos as f64 / 1e3 / steps,
            bytes: phase.weight_bytes as f64 + phase.kv_bytes_per_position as f64 * positions,
            flops: phase.flops_per_token as f64 * tokens as f64 / steps + phase.flops_per_row as f64,
            unit: phase.unit,
        }
    }

    /// What came after the last barriers.
    pub fn rest(nanos: u64, steps: usize) -> Self {
        let microseconds = nanos as f64 / 1e3 / steps.max(1) as f64;
        Self { kernels: "(end of step)".into(), runs: 1.0, microseconds, bytes: 0.0, flops: 0.0, unit: None }
    }

    fn gb_s(&self) -> f64 {
        if self.microseconds > 0.0 { self.bytes / self.microseconds / 1e3 } else { 0.0 }
    }

    fn gflop_s(&self) -> f64 {
        if self.microseconds > 0.0 { self.flops / self.microseconds / 1e3 } else { 0.0 }
    }

    /// Share of what the unit does from registers, in percent.
    fn peak_percent(&self, peaks: &Peaks) -> Option<f64> {
        let peak = peaks.of(self.unit?)?.gflop_s;
        (self.flops > 0.0 && peak > 0.0).then(|| 100.0 * self.gflop_s() / peak)
    }

    fn json(&self, peaks: &Peaks) -> Value {
        json!({
            "kernels": self.kernels, "runs": self.runs, "us_per_step": self.microseconds,
            "bytes_per_step": self.bytes, "gb_s": self.gb_s(), "gflop_s": self.gflop_s(),
            "peak_percent": self.peak_percent(peaks),
        })
    }
}

/// The middle of a list, or the mean of the two in the middle.
pub(super) fn median(list: &[f64]) -> f64 {
    let mut sorted = list.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => 0.0,
        (n, half) if n % 2 == 1 => sorted[half],
        (_, half) => (sorted[half - 1] + sorted[half]) / 2.0,
    }
}

/// Prints the measurements.
pub fn print(args: &Bench, manifest: &Manifest, variant: usize, measured: &Measured) -> Result<()> {
    match args.json {
        true => output::print_line(&report(args, manifest, variant, measured).to_string()),
        false => output::print(&table(args, manifest, variant, measured)),
    }
}

/// Numbers derived from the lists.
struct Derived {
    prefill: f64,
    decode: f64,
    bytes: f64,
    gb_s: f64,
    ceiling: f64,
    percent: f64,
    /// Time that the products of a prefill need at least, in percent of the time it took.
    prefill_percent: Option<f64>,
}

impl Derived {
    fn of(manifest: &Manifest, variant: usize, m: &Measured) -> Self {
        let prefill = median(&m.prefill);
        let phases = manifest.variants.get(variant).map_or(&[][..], |v| &v.phases[..]);
        let nanos = m.sizes.prefill as f64 * 1e9 / prefill;
        let prefill_percent = m.peaks.least(phases, m.sizes.prefill).map(|least| 100.0 * least / nanos);
        let decode = median(&m.decode);
        let bytes = manifest.weights.bytes_per_token as f64 + m.kv_bytes_per_token;
        let share = |(tok_s, readable): (&f64, &f64)| 100.0 * tok_s * bytes / 1e9 / readable;
        let percent = median(&m.decode.iter().zip(&m.readable).map(share).collect::<Vec<_>>());
        let gb_s = decode * bytes / 1e9;
        Self { prefill, decode, bytes, gb_s, ceiling: median(&m.readable), percent, prefill_percent }
    }
}

/// Price of a million tokens at `tok_s` on a machine of this price.
fn price(hourly: f64, tok_s: f64) -> f64 {
    hourly / (tok_s * 3600.0) * 1e6
}

fn report(args: &Bench, manifest: &Manifest, variant: usize, m: &Measured) -> Value {
    let d = Derived::of(manifest, variant, m);
    let speed = |s: Speed| json!({ "gb_s": s.gb_s, "streams_per_worker": s.streams, "bytes": s.bytes });
    let code = manifest.variants.get(variant);
    let profile = m.profile.as_ref().map(|[prefill, decode]| {
        let rows = |list: &[PhaseRow]| list.iter().map(|row| row.json(&m.peaks)).collect::<Vec<_>>();
        json!({ "prefill": rows(prefill), "decode": rows(decode) })
    });
    json!({
        "model": manifest.name,
        "device": m.device.as_deref().unwrap_or("cpu"),
        "variant": code.map(|v| &v.target),
        "backend": code.map(|v| &v.backend),
        "threads": m.threads,
        "prefill_tokens": m.sizes.prefill,
        "decode_tokens": m.sizes.decode,
        "depth": m.sizes.depth,
        "prefill_tok_s": d.prefill,
        "prefill_tok_s_all": m.prefill,
        "decode_tok_s": d.decode,
        "decode_tok_s_all": m.decode,
        "prefill_peak_percent": d.prefill_percent,
        "peaks": m.peaks.json(),
        "ttft_ms": median(&m.ttft),
        "load_ms": m.load.as_secs_f64() * 1e3,
        "start_to_first_token_ms": m.start_to_first.as_secs_f64() * 1e3,
        "first_prefill_ms": m.cold_prefill.as_secs_f64() * 1e3,
        "weight_bytes_per_token": manifest.weights.bytes_per_token,
        "bandwidth_gb_s": d.gb_s,
        "kv_bytes_per_token": m.kv_bytes_per_token,
        "bandwidth_ceiling_gb_s": d.ceiling,
        "bandwidth_ceiling_gb_s_all": m.readable,
        "bandwidth_percent": d.percent,
        "ceiling": { "anonymous": speed(m.ceiling.anonymous), "mapped_weights": speed(m.ceiling.mapped) },
        "peak_rss_bytes": m.peak_rss,
        "peak_rss_includes_bandwidth_buffer": m.peak_includes_buffer,
        "rss_anon_bytes": m.anonymous,
        "planned_anon_bytes": m.planned,
        "joules_per_token": m.joules.as_ref().ok().map(|list| median(list)),
        "joules_unknown": m.joules.as_ref().err(),
        "price_per_million_prefill_tokens": args.hourly_price.map(|p| price(p, d.prefill)),
        "price_per_million_decode_tokens": args.hourly_price.map(|p| price(p, d.decode)),
        "profile": profile,
        "parallel": bench_batch::json(&m.batches),
    })
}

fn table(args: &Bench, manifest: &Manifest, variant: usize, m: &Measured) -> String {
    let d = Derived::of(manifest, variant, m);
    let target = manifest.variants.get(variant).map_or("?", |v| &v.target);
    let speed = |s: Speed| match s.streams {
        0 => "not measured".to_string(),
        n => format!("{:.1} GB/s over {} ({n} streams per thread)", s.gb_s, megabytes(s.bytes as u64)),
    };
    let sizes = m.sizes;
    let mut rows = vec![
        ("model", format!("{}, {target}, {}", manifest.name, place(m))),
        (
            "load",
            format!(
                "{:.1} ms; start to first token {:.1} ms",
                m.load.as_secs_f64() * 1e3,
                m.start_to_first.as_secs_f64() * 1e3
            ),
        ),
        (
            "prefill",
            format!(
                "{:.1} tokens/s ({} tokens), first token after {:.1} ms",
                d.prefill,
                sizes.prefill,
                median(&m.ttft)
            ),
        ),
        ("  products", products(m, d.prefill_percent)),
        ("decode", format!("{:.2} tokens/s ({} tokens at depth {})", d.decode, sizes.decode, sizes.depth)),
        (
            "bandwidth",
            format!(
                "{:.1} GB/s ({} per token), {:.0} % of {:.1} GB/s that could be read meanwhile",
                d.gb_s,
                megabytes(d.bytes as u64),
                d.percent,
                d.ceiling
            ),
        ),
        ("  anonymous", speed(m.ceiling.anonymous)),
        (if m.device.is_some() { "  device" } else { "  weights" }, speed(m.ceiling.mapped)),
        (
            "memory",
            format!(
                "{} peak, {} anonymous ({} planned)",
                megabytes(m.peak_rss),
                megabytes(m.anonymous),
                megabytes(m.planned as u64)
            ),
        ),
        (
            "energy",
            match &m.joules {
                Ok(list) => format!("{:.2} J per token (whole {})", median(list), part(m)),
                Err(why) => format!("not known: {why}"),
            },
        ),
    ];
    if let Some(hourly) = args.hourly_price {
        rows.push((
            "price",
            format!(
                "{:.3} per million tokens decoded, {:.3} prefilled",
                price(hourly, d.decode),
                price(hourly, d.prefill)
            ),
        ));
    }
    let mut text: String = rows.iter().map(|(name, value)| format!("{name:<12} {value}\n")).collect();
    text.push_str(&bench_batch::text(&m.batches));
    if let Some([prefill, decode]) = &m.profile {
        text.push_str(&profile_table("prefill, one step", prefill, &m.peaks));
        text.push_str(&profile_table("decode, one step", decode, &m.peaks));
    }
    text
}

/// How near prefill comes to what multiplies.
fn products(m: &Measured, percent: Option<f64>) -> String {
    match percent.zip(m.peaks.text()) {
        Some((percent, peaks)) => format!("{percent:.0} % of {peaks} from registers"),
        None => "peak not measured".into(),
    }
}

/// What the model ran on.
fn place(m: &Measured) -> String {
    m.device.clone().unwrap_or_else(|| format!("{} threads", m.threads))
}

/// Whose energy is counted.
fn part(m: &Measured) -> &'static str {
    if m.device.is_some() { "GPU" } else { "package" }
}

fn profile_table(title: &str, rows: &[PhaseRow], peaks: &Peaks) -> String {
    let total: f64 = rows.iter().map(|r| r.microseconds).sum();
    let mut text = format!(
        "\n{title}\n{:>10} {:>6} {:>6} {:>10} {:>8} {:>9} {:>6}  kernels\n",
        "us", "%", "runs", "MB", "GB/s", "GFLOP/s", "% peak"
    );
    // A phase for many tokens and its twin for one: only one of them runs.
    for row in rows.iter().filter(|r| r.runs > 0.0) {
        let share = if total > 0.0 { 100.0 * row.microseconds / total } else { 0.0 };
        let peak = row.peak_percent(peaks).map_or_else(String::new, |p| format!("{p:.1}"));
        text.push_str(&format!(
            "{:>10.1} {share:>6.1} {:>6.0} {:>10.3} {:>8.1} {:>9.1} {peak:>6}  {}\n",
            row.microseconds,
            row.runs,
            row.bytes / 1e6,
            row.gb_s(),
            row.gflop_s(),
            row.kernels
        ));
    }
    text.push_str(&format!("{total:>10.1}  total\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn prices() {
        assert!((price(3.6, 100.0) - 10.0).abs() < 1e-12);
    }

    #[test]
    fn phase_rows() {
        let phase = PhaseInfo {
            kernels: vec!["a".into(), "b".into()],
            count: 2,
            weight_bytes: 4000,
            kv_bytes_per_position: 10,
            flops_per_token: 500,
            flops_per_row: 0,
            unit: None,
        };
        let row = PhaseRow::new(&phase, PhaseTime { nanos: 8000, runs: 8 }, 4, 8, 100.0);
        assert_eq!((row.kernels.as_str(), row.runs, row.microseconds, row.bytes), ("a + b", 2.0, 2.0, 5000.0));
        assert_eq!((row.gb_s(), row.gflop_s()), (2.5, 0.5));
    }
}
