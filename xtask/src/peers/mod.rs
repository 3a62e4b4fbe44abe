//! llmc beside llama.cpp on this machine: the same shape and random weights, the same numbers of threads and
//! tokens, the programs taking turns, with the read bandwidth measured around each decoding.
//!
//! llama.cpp's sources come with the package `llama-cpp-python` (`vendor/llama.cpp`); `cmake -B build
//! -DGGML_NATIVE=ON -DLLAMA_CURL=OFF` and `cmake --build build --target llama-bench llama-quantize` build what
//! is needed here.

mod gguf;

use crate::{cargo, output, root, sh};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is compared: llama.cpp's format, and the schemes beside it.
const PAIRS: [(&str, &[&str]); 3] = [("Q4_0", &["w4", "int4"]), ("Q8_0", &["w8", "w8a8"]), ("BF16", &["none"])];

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Peers {
    /// Folder with llama-bench and llama-quantize
    #[arg(long)]
    llama_cpp: PathBuf,
    /// Folder with ik_llama.cpp's llama-bench
    #[arg(long)]
    ik_llama_cpp: Option<PathBuf>,
    /// A checkpoint that `make-model` wrote, of Llama's architecture and in one file
    #[arg(long, default_value = "target/models/llama-1b")]
    model: PathBuf,
    /// Turns that each program takes
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Tokens of a prompt
    #[arg(short, default_value_t = 512)]
    prefill: usize,
    /// Tokens decoded
    #[arg(short = 'n', default_value_t = 48)]
    decode: usize,
    /// Threads
    #[arg(short, default_value_t = 2)]
    threads: usize,
    /// Where every number goes, as JSON
    #[arg(short)]
    output: Option<PathBuf>,
}

/// A program to compare with.
#[derive(Clone, Copy)]
struct Peer<'a> {
    name: &'static str,
    /// Where its programs are.
    programs: &'a Path,
    /// What makes it fastest.
    options: &'static [&'static str],
}

impl Peers {
    fn peers(&self) -> Vec<Peer<'_>> {
        let first = Peer { name: "llama.cpp", programs: &self.llama_cpp, options: &[] };
        let second = self.ik_llama_cpp.as_deref();
        let second = second.map(|programs| Peer { name: "ik_llama.cpp", programs, options: &["-rtr", "1"] });
        std::iter::once(first).chain(second).collect()
    }
}

/// Speeds in each turn, and shares of what the machine could do meanwhile.
#[derive(Default)]
struct Speeds {
    name: String,
    prefill: Vec<f64>,
    decode: Vec<f64>,
    /// GB/s that could be read while it decoded.
    readable: Vec<f64>,
    bandwidth_percent: Vec<f64>,
    peak_percent: Vec<f64>,
}

/// Measures and prints the table.
pub fn run(args: &Peers) -> Result<()> {
    sh(cargo().args(["build", "--release", "-p", "llmc"]))?;
    let folder = root().join("target/peers");
    std::fs::create_dir_all(&folder)?;
    let plain = folder.join("BF16.gguf");
    gguf::write(&args.model, &plain)?;
    let mut all: Vec<Value> = Vec::new();
    println!("| | prefill, tokens/s | of peak | decode, tokens/s | of bandwidth |\n|---|---|---|---|---|");
    for (format, schemes) in PAIRS {
        let file = quantized(args, &plain, format)?;
        let artifacts: Vec<PathBuf> = schemes.iter().map(|s| compiled(args, &folder, s)).collect::<Result<_>>()?;
        let named = |name: String| Speeds { name, ..Speeds::default() };
        let mut peers: Vec<(Peer, Speeds)> =
            args.peers().into_iter().map(|p| (p, named(format!("{} {format}", p.name)))).collect();
        let mut ours: Vec<Speeds> = schemes.iter().map(|s| named(format!("llmc {s}"))).collect();
        for _ in 0..args.rounds {
            for (peer, speeds) in &mut peers {
                speeds.turn_of_llama(args, *peer, &file, &artifacts[0])?;
            }
            for (speeds, artifact) in ours.iter_mut().zip(&artifacts) {
                speeds.turn_of_llmc(args, artifact)?;
            }
        }
        for speeds in peers.iter().map(|(_, speeds)| speeds).chain(&ours) {
            println!("{}", speeds.row(&peers[0].1));
            all.push(speeds.json());
        }
    }
    match &args.output {
        Some(path) => std::fs::write(path, format!("{:#}\n", Value::from(all))).context("the output"),
        None => Ok(()),
    }
}

impl Peer<'_> {
    /// Tokens per second of a prefill or a decoding: so many tokens of each, one of them none.
    fn speed(&self, args: &Peers, file: &Path, [prefill, decode]: [usize; 2]) -> Result<f64> {
        let mut command = Command::new(self.programs.join("llama-bench"));
        command.args(self.options).args(["-o", "json", "-r", "1", "-t", &args.threads.to_string()]);
        command.args(["-p", &prefill.to_string(), "-n", &decode.to_string(), "-m"]).arg(file);
        let answer: Value = serde_json::from_slice(&output(&mut command)?)?;
        let speed = answer.as_array().and_then(|tests| tests.first()?["avg_ts"].as_f64());
        speed.with_context(|| format!("{}'s llama-bench gives no speed", self.name))
    }
}

/// What an artifact's `bench` says of itself and of this machine.
fn bench(args: &Peers, artifact: &Path, [prefill, decode]: [usize; 2]) -> Result<Value> {
    let mut command = Command::new(artifact);
    command.args(["bench", "-q", "--json", "-r", "1", "-t", &args.threads.to_string()]);
    command.args(["-p", &prefill.to_string(), "-n", &decode.to_string()]);
    Ok(serde_json::from_slice(&output(&mut command)?)?)
}

/// GB/s at which an artifact's mapped weights can be read now, found as `bench` finds it around a decoding.
fn readable(args: &Peers, artifact: &Path) -> Result<f64> {
    let answer = bench(args, artifact, [1, 4])?;
    answer["bandwidth_ceiling_gb_s"].as_f64().context("bench gives no ceiling")
}

/// The model in a format of llama.cpp, everything in that format.
fn quantized(args: &Peers, plain: &Path, format: &str) -> Result<PathBuf> {
    let file = plain.with_file_name(format!("{format}.gguf"));
    if file != plain {
        let program = args.llama_cpp.join("llama-quantize");
        output(Command::new(program).arg("--pure").args([plain, &file]).args([format, &args.threads.to_string()]))?;
    }
    Ok(file)
}

fn compiled(args: &Peers, folder: &Path, scheme: &str) -> Result<PathBuf> {
    let artifact = folder.join(scheme);
    let llmc = root().join("target/release/llmc");
    output(Command::new(llmc).args(["compile", "-q", "--quantize", scheme, "-o"]).arg(&artifact).arg(&args.model))?;
    Ok(artifact)
}

impl Speeds {
    /// Its share of the bandwidth counts all bytes of the file for each token, as llmc counts all weights.
    fn turn_of_llama(&mut self, args: &Peers, peer: Peer<'_>, file: &Path, artifact: &Path) -> Result<()> {
        self.prefill.push(peer.speed(args, file, [args.prefill, 0])?);
        let before = readable(args, artifact)?;
        let decode = peer.speed(args, file, [0, args.decode])?;
        let readable = (before + readable(args, artifact)?) / 2.0;
        self.decode.push(decode);
        self.readable.push(readable);
        self.bandwidth_percent.push(100.0 * decode * std::fs::metadata(file)?.len() as f64 / 1e9 / readable);
        Ok(())
    }

    fn turn_of_llmc(&mut self, args: &Peers, artifact: &Path) -> Result<()> {
        let answer = bench(args, artifact, [args.prefill, args.decode])?;
        let number = |key: &str| answer[key].as_f64().with_context(|| format!("bench gives no {key}"));
        self.prefill.push(number("prefill_tok_s")?);
        self.decode.push(number("decode_tok_s")?);
        self.readable.push(number("bandwidth_ceiling_gb_s")?);
        self.bandwidth_percent.push(number("bandwidth_percent")?);
        self.peak_percent.extend(answer["prefill_peak_percent"].as_f64());
        Ok(())
    }

    /// A line of the table, with medians and their ratios to those of `peer`.
    fn row(&self, peer: &Speeds) -> String {
        let speed = |own: &[f64], other: &[f64]| format!("{:.1} ({:.2})", median(own), median(own) / median(other));
        let share = |list: &[f64]| if list.is_empty() { String::new() } else { format!("{:.0} %", median(list)) };
        format!(
            "| {} | {} | {} | {} | {} of {:.0} GB/s |",
            self.name,
            speed(&self.prefill, &peer.prefill),
            share(&self.peak_percent),
            speed(&self.decode, &peer.decode),
            share(&self.bandwidth_percent),
            median(&self.readable)
        )
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "prefill_tok_s": self.prefill, "decode_tok_s": self.decode,
            "readable_gb_s": self.readable, "bandwidth_percent": self.bandwidth_percent, "prefill_peak_percent": self.peak_percent,
        })
    }
}

fn median(list: &[f64]) -> f64 {
    let mut sorted = list.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
