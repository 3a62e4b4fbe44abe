//! `gpu-check BUNDLE`: is every kernel and model of the bundle right on this machine's GPU, and how fast are they?
//!
//! Exit codes: 0 where all kernels and models agree, 1 where one does not, 77 where there is no GPU, else those of artifacts.

use clap::Parser;
use gpu_check::agreement::{self, Agreement};
use gpu_check::bundle;
use gpu_check::kernels::{self, Found};
use gpu_check::launch;
use gpu_check::speed::{self, Measured};
use llmc_rt::cuda::Gpu;
use llmc_rt::error::{Error, Kind, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What a test that cannot run exits with.
const SKIPPED: u8 = 77;

#[derive(Parser)]
#[command(about = "Check and measure compiled kernels and models on a GPU")]
struct Cli {
    /// The folder that `cargo xtask gpu-bundle` made
    bundle: PathBuf,
    /// Which GPU
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// File for the results, as JSON
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Only kernels and models whose name has this in it
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(if e.kind == Kind::Device { SKIPPED } else { e.code() as u8 })
        }
    }
}

/// Whether all kernels and models agree.
fn run(cli: &Cli) -> Result<bool> {
    let list = bundle::list(&cli.bundle)?;
    let mut results = Results::default();
    results.check_kernels(cli)?;
    let Results { agreements, failed, .. } = &mut results;
    println!("{:32} {:>9} {:>9} {:>9} {:>9}  bits  greedy", "model", "allowed", "one step", "of five", "of one");
    for model in list.models.iter().filter(|m| m.name.contains(&cli.only)) {
        match agreement::check(&cli.bundle, model, cli.device) {
            Ok(found) => agreements.push(told(found)),
            Err(e) => failed.push(refused(&model.name, e)?),
        }
    }
    println!("\n{:32} {:>12} {:>9} {:>9} {:>7} {:>10}", "model", "prefill/s", "decode/s", "filtered", "of R", "R GB/s");
    for speed in list.speeds.iter().filter(|s| s.name.contains(&cli.only)) {
        match speed::measure(&cli.bundle, speed, cli.device) {
            Ok(found) => results.speeds.push(measured(found)),
            Err(e) => results.failed.push(refused(&speed.name, e)?),
        }
        results.save(cli.output.as_deref())?;
    }
    results.save(cli.output.as_deref())?;
    Ok(results.told())
}

/// What was found.
#[derive(Default, Serialize)]
struct Results {
    kernels: Vec<Found>,
    agreements: Vec<Agreement>,
    speeds: Vec<Measured>,
    /// What could not be run, and why.
    failed: Vec<String>,
}

impl Results {
    /// Checks kernels by themselves; tells of those that are wrong.
    fn check_kernels(&mut self, cli: &Cli) -> Result<()> {
        let all = kernels::read(&cli.bundle)?;
        let wanted: Vec<_> = all.iter().filter(|k| k.name.contains(&cli.only)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let gpu = Gpu::open(cli.device)?;
        for kernel in wanted {
            match launch::check(kernel, &gpu) {
                Ok(found) => self.kernels.push(told_of_kernel(found)),
                Err(e) => self.failed.push(refused(&kernel.name, e)?),
            }
        }
        let worst = self.kernels.iter().map(|k| k.worst).fold(0.0, f64::max);
        println!("{} kernels by themselves, errors up to {worst:.2} of their bounds\n", self.kernels.len());
        Ok(())
    }

    fn save(&self, output: Option<&Path>) -> Result<()> {
        let Some(path) = output else { return Ok(()) };
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::failed(e.to_string()))? + "\n";
        std::fs::write(path, text).map_err(|e| Error::failed(format!("{}: {e}", path.display())))
    }

    /// Says whether all is right.
    fn told(&self) -> bool {
        let right = self.agreements.iter().filter(|a| a.holds()).count();
        let near = self.kernels.iter().filter(|k| k.holds()).count();
        println!(
            "\n{near} of {} kernels and {right} of {} models agree, {} could not be run",
            self.kernels.len(),
            self.agreements.len(),
            self.failed.len()
        );
        right == self.agreements.len() && near == self.kernels.len() && self.failed.is_empty()
    }
}

/// Notes why a kernel or model did not run; without a GPU none does.
fn refused(name: &str, error: Error) -> Result<String> {
    if error.kind == Kind::Device {
        return Err(error);
    }
    println!("{name:32} {error}");
    Ok(format!("{name}: {error}"))
}

fn told_of_kernel(found: Found) -> Found {
    if !found.holds() {
        println!("{:48} WRONG: {}", found.name, found.wrong.as_deref().unwrap_or("a second run has other bits"));
    }
    found
}

fn told(a: Agreement) -> Agreement {
    let [whole, few, one] = a.errors;
    let (bits, verdict) = (if a.same_bits { "same" } else { "OTHER" }, if a.holds() { "" } else { "  WRONG" });
    let greedy = format!("{}/{}", a.greedy.0, a.greedy.1);
    println!("{:32} {:9.1e} {whole:9.1e} {few:9.1e} {one:9.1e}  {bits}  {greedy}{verdict}", a.name, a.tolerance);
    a
}

fn measured(m: Measured) -> Measured {
    let Measured { name, prefill_tok_s, decode_tok_s, filtered_tok_s, percent, ceiling_gb_s, .. } = &m;
    println!(
        "{name:32} {prefill_tok_s:12.0} {decode_tok_s:9.1} {filtered_tok_s:9.1} {percent:6.1}% {ceiling_gb_s:10.0}"
    );
    m
}
