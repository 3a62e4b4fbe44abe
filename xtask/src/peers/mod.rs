//! llmc beside llama.cpp and others on this machine: the same shape and random weights, the same numbers of threads and
//! tokens, the programs taking turns, with the read bandwidth measured around each decoding.
//!
//! llama.cpp's sources come with the package `llama-cpp-python` (`vendor/llama.cpp`); `cmake -B build
//! -DGGML_NATIVE=ON -DLLAMA_CURL=OFF` and `cmake --build build --target llama-bench llama-quantize` build what
//! is needed here. OpenVINO GenAI is measured by `tests/perf/openvino_speeds.py`.

mod gguf;
mod programs;
mod speeds;

use crate::{cargo, output, root, sh};
use anyhow::{Context, Result};
use programs::{Artifact, Llama, OpenVino};
use serde_json::Value;
use speeds::Speeds;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is compared: llama.cpp's format, OpenVINO's, and the schemes beside them.
const GROUPS: [(&str, &str, &[&str]); 3] =
    [("Q4_0", "int4", &["w4", "int4"]), ("Q8_0", "int8", &["w8", "w8a8"]), ("BF16", "fp16", &["none"])];

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Peers {
    /// Folder with llama-bench and llama-quantize
    #[arg(long)]
    llama_cpp: PathBuf,
    /// Folder with ik_llama.cpp's llama-bench
    #[arg(long)]
    ik_llama_cpp: Option<PathBuf>,
    /// A Python that has OpenVINO GenAI and what converts models for it
    #[arg(long)]
    openvino: Option<PathBuf>,
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
    /// Tokens in the cache where decoding is measured once more, in the first round; 0 leaves it out
    #[arg(long, default_value_t = 4096)]
    depth: usize,
    /// Threads
    #[arg(short, default_value_t = 2)]
    threads: usize,
    /// Where every number goes, as JSON
    #[arg(short)]
    output: Option<PathBuf>,
}

impl Peers {
    fn llamas(&self) -> Vec<Llama<'_>> {
        let first = Llama::of_ggml(&self.llama_cpp);
        let second = self.ik_llama_cpp.as_deref().map(Llama::of_ik);
        std::iter::once(first).chain(second).collect()
    }
}

/// Measures and prints the table.
pub fn run(args: &Peers) -> Result<()> {
    sh(cargo().args(["build", "--release", "-p", "llmc"]))?;
    let folder = root().join("target/peers");
    std::fs::create_dir_all(&folder)?;
    let plain = folder.join("BF16.gguf");
    gguf::write(&args.model, &plain)?;
    let mut all: Vec<Value> = Vec::new();
    println!("{}", Speeds::header(args.depth));
    for group in GROUPS {
        let rows = turns(args, &plain, group)?;
        for speeds in &rows {
            println!("{}", speeds.row(&rows[0]));
            all.push(speeds.json());
        }
    }
    match &args.output {
        Some(path) => std::fs::write(path, format!("{:#}\n", Value::from(all))).context("the output"),
        None => Ok(()),
    }
}

/// All programs in turns, in one format of llama.cpp's and what is beside it.
fn turns(args: &Peers, plain: &Path, (format, other, schemes): (&str, &str, &[&str])) -> Result<Vec<Speeds>> {
    let file = quantized(args, plain, format)?;
    let folder = plain.parent().context("a folder")?;
    let artifacts: Vec<Artifact> = schemes.iter().map(|s| compiled(args, folder, s)).collect::<Result<_>>()?;
    let llamas = args.llamas();
    let openvino = args.openvino.as_deref().map(|python| OpenVino { python });
    let names = |names: Vec<String>| names.into_iter().map(Speeds::new).collect::<Vec<_>>();
    let mut of_llamas = names(llamas.iter().map(|p| format!("{} {format}", p.name)).collect());
    let mut of_openvino = names(openvino.iter().map(|_| format!("OpenVINO {other}")).collect());
    let mut ours = names(schemes.iter().map(|s| format!("llmc {s}")).collect());
    for round in 0..args.rounds {
        let depth = if round == 0 { args.depth } else { 0 };
        for (program, speeds) in llamas.iter().zip(&mut of_llamas) {
            program.turn(args, &file, &artifacts[0], speeds)?;
            program.turn_at(args, &file, depth, speeds)?;
        }
        for (program, speeds) in openvino.iter().zip(&mut of_openvino) {
            program.turn(args, (other, depth), speeds)?;
        }
        for (artifact, speeds) in artifacts.iter().zip(&mut ours) {
            artifact.turn(args, speeds)?;
            artifact.turn_at(args, depth, speeds)?;
        }
    }
    Ok(of_llamas.into_iter().chain(of_openvino).chain(ours).collect())
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

fn compiled(args: &Peers, folder: &Path, scheme: &str) -> Result<Artifact> {
    let artifact = folder.join(scheme);
    let llmc = root().join("target/release/llmc");
    output(Command::new(llmc).args(["compile", "-q", "--quantize", scheme, "-o"]).arg(&artifact).arg(&args.model))?;
    Ok(Artifact(artifact))
}
