//! What each quantization scheme and pruning costs in quality, measured on the bundled model: the table in
//! `docs/quantization.md`; and what a window of the context costs, see [`context`].
//!
//! The reference is the model in f32. Windows of held-out text are scored by the divergence of the next
//! token's distribution, KL(reference || quantized) in f64, averaged over all positions. Each scheme
//! is measured twice: its weights alone, as the reference encoder decodes them, with everything else in
//! f32; and the compiled artifact as it runs.

mod context;

use crate::{cargo, output, root, sh};
use anyhow::{Context, Result, bail};
use llmc_ir::Scheme;
use llmc_models::TensorFile;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tokens of a window.
const WINDOW: usize = 512;
/// Windows of each text.
const WINDOWS: usize = 10;
const TEXTS: [&str; 3] = ["test_wiki", "test_books", "test_ko"];
/// The schemes as the command line spells them.
const SCHEMES: [&str; 14] = [
    "w8a8",
    "w8",
    "w8:group=128",
    "fp8",
    "w6",
    "w5",
    "int4",
    "int4:group=32,asym",
    "int4:group=128",
    "w4",
    "nf4",
    "nf4:group=32",
    "w3",
    "w2",
];
/// What else loses something, alone and together with a scheme.
const OTHERS: [&str; 10] = [
    "none --kv int8",
    "none --kv fp8",
    "w4 --kv int8",
    "none --prune layers=1",
    "w4 --prune layers=1",
    "none --prune layers=2",
    "none --prune ffn=15%",
    "w4 --prune ffn=15%",
    "none --prune ffn=30%",
    "w4 --prune layers=1,ffn=15%",
];
/// Texts that pruning is calibrated on, none of them a text that is scored.
const CALIBRATION: [&str; 3] = ["valid_wiki", "valid_books", "valid_ko"];
/// Begin and end of the part of the page that is measured.
const MARKS: [&str; 2] = ["<!-- measured -->", "<!-- end -->"];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Schemes, prunings and caches.
    Schemes,
    /// Policies of the context.
    Context,
}

/// Measures and writes the tables into their pages.
pub fn run(what: Option<What>) -> Result<()> {
    sh(cargo().args(["build", "--release", "-p", "llmc"]))?;
    let folder = root().join("target/quality");
    std::fs::create_dir_all(&folder)?;
    if what != Some(What::Schemes) {
        context::run(&folder)?;
    }
    if what != Some(What::Context) { schemes(folder) } else { Ok(()) }
}

fn schemes(folder: PathBuf) -> Result<()> {
    let bench = Bench::new(folder)?;
    let mut table = String::from(
        "| `--quantize` | bits per weight | KL, weights alone | KL, as it runs | perplexity | same first choice |\n\
         |---|---|---|---|---|---|\n",
    );
    let exact = bench.score(&bench.exact)?;
    writeln!(table, "| none, in f32 | 16.01 | 0 | 0 | {:.2} | 100 % |", exact.perplexity)?;
    bench.row(&mut table, "none", Some("0".into()))?;
    for scheme in SCHEMES {
        let alone = bench.score(&bench.weights_alone(scheme)?)?;
        bench.row(&mut table, scheme, Some(alone.kl_text()))?;
    }
    for flags in OTHERS {
        bench.row(&mut table, flags, None)?;
    }
    write_page("quantization.md", &table)
}

/// Puts a table between the marks of a page in `docs`.
fn write_page(name: &str, table: &str) -> Result<()> {
    let path = root().join("docs").join(name);
    let page = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let [begin, end] = MARKS.map(|mark| page.find(mark));
    let (Some(begin), Some(end)) = (begin, end) else { bail!("docs/{name} has lost its marks {MARKS:?}") };
    let text = format!("{}{}\n{table}{}", &page[..begin], MARKS[0], &page[end..]);
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}

/// Logits of every window, `[WINDOW, vocab]` each.
type Logits = Vec<Vec<f32>>;

struct Compiled {
    logits: Logits,
    /// Bits of all weights, scales and tables for each parameter of the model.
    bits: f64,
}

struct Bench {
    folder: PathBuf,
    windows: Vec<Vec<u32>>,
    /// Logits of the model in f32.
    exact: Logits,
}

/// The bundled model.
fn model() -> PathBuf {
    root().join("tests/models/tinywiki")
}

const EXACT: [&str; 4] = ["--activations", "f32", "--kv", "f32"];

impl Bench {
    fn new(folder: PathBuf) -> Result<Bench> {
        let texts = CALIBRATION.map(|text| model().join("reference").join(format!("{text}.txt")));
        let texts: Vec<String> = texts.iter().map(std::fs::read_to_string).collect::<Result<_, _>>()?;
        std::fs::write(folder.join("calibration.txt"), texts.concat())?;
        let artifact = compile(&model(), &folder.join("exact"), &EXACT)?;
        let windows = windows(&artifact)?;
        let exact = logits(&artifact, &windows, &folder)?;
        Ok(Bench { folder, windows, exact })
    }

    fn compiled(&self, flags: &[&str]) -> Result<Compiled> {
        let artifact = compile(&model(), &self.folder.join("quantized"), flags)?;
        let info: Value = serde_json::from_slice(&output(Command::new(&artifact).args(["info", "--json"]))?)?;
        let number = |v: &Value| v.as_f64().context("info has the numbers");
        let bits = 8.0 * number(&info["weights"]["bytes"])? / number(&info["model"]["parameters"])?;
        Ok(Compiled { logits: logits(&artifact, &self.windows, &self.folder)?, bits })
    }

    /// Logits of the model in f32 with the weights that a scheme's codes stand for.
    fn weights_alone(&self, flag: &str) -> Result<Logits> {
        let scheme = Scheme::parse_flag(flag)?;
        let folder = self.folder.join("decoded");
        std::fs::create_dir_all(&folder)?;
        for file in ["config.json", "tokenizer.json"] {
            std::fs::copy(model().join(file), folder.join(file))?;
        }
        decoded_checkpoint(scheme, &folder.join("model.safetensors"))?;
        let artifact = compile(&folder, &self.folder.join("alone"), &EXACT)?;
        logits(&artifact, &self.windows, &self.folder)
    }

    /// Measures the artifact that `--quantize` with these flags gives, and adds a row to the table.
    fn row(&self, table: &mut String, flags: &str, alone: Option<String>) -> Result<()> {
        eprintln!("{flags}");
        let calibration = self.folder.join("calibration.txt").display().to_string();
        let mut given = vec!["--quantize"];
        given.extend(flags.split(' '));
        if flags.contains("--prune") {
            given.extend(["--calibrate", &calibration]);
        }
        let runs = self.compiled(&given)?;
        let score = self.score(&runs.logits)?;
        let (alone, kl) = (alone.unwrap_or_default(), score.kl_text());
        let (bits, agreement) = (runs.bits, 100.0 * score.agreement);
        writeln!(table, "| {flags} | {bits:.2} | {alone} | {kl} | {:.2} | {agreement:.1} % |", score.perplexity)?;
        Ok(())
    }

    fn score(&self, found: &Logits) -> Result<Score> {
        let each: Vec<Score> = self
            .windows
            .par_iter()
            .zip(&self.exact)
            .zip(found)
            .map(|((ids, exact), found)| Score::of_window(ids, exact, found))
            .collect();
        Ok(Score::mean(&each))
    }
}

/// Averages over positions.
#[derive(Clone, Copy, Debug, Default)]
struct Score {
    kl: f64,
    /// Standard error of `kl` over windows.
    kl_error: f64,
    nll: f64,
    perplexity: f64,
    agreement: f64,
}

impl Score {
    fn kl_text(&self) -> String {
        format!("{:.5} ± {:.5}", self.kl, self.kl_error)
    }

    fn of_window(ids: &[u32], exact: &[f32], found: &[f32]) -> Score {
        let vocab = exact.len() / ids.len();
        let mut score = Score::default();
        let rows = exact.chunks_exact(vocab).zip(found.chunks_exact(vocab));
        for ((p, q), next) in rows.zip(&ids[1..]) {
            let (lp, lq) = (log_softmax(p), log_softmax(q));
            score.kl += lp.iter().zip(&lq).map(|(a, b)| a.exp() * (a - b)).sum::<f64>();
            score.nll -= lq[*next as usize];
            score.agreement += f64::from(u8::from(argmax(p) == argmax(q)));
        }
        let n = (ids.len() - 1) as f64;
        Score { kl: score.kl / n, nll: score.nll / n, agreement: score.agreement / n, ..score }
    }

    fn mean(all: &[Score]) -> Score {
        let n = all.len() as f64;
        let mean = |f: fn(&Score) -> f64| all.iter().map(f).sum::<f64>() / n;
        let kl = mean(|s| s.kl);
        let variance = all.iter().map(|s| (s.kl - kl).powi(2)).sum::<f64>() / (n - 1.0);
        let nll = mean(|s| s.nll);
        let agreement = mean(|s| s.agreement);
        Score { kl, kl_error: (variance / n).sqrt(), nll, perplexity: nll.exp(), agreement }
    }
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let largest = row.iter().fold(f64::MIN, |m, v| m.max(f64::from(*v)));
    let sum: f64 = row.iter().map(|v| (f64::from(*v) - largest).exp()).sum();
    row.iter().map(|v| f64::from(*v) - largest - sum.ln()).collect()
}

fn argmax(row: &[f32]) -> usize {
    row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i)
}

fn compile(model: &Path, artifact: &Path, flags: &[&str]) -> Result<PathBuf> {
    let mut command = Command::new(root().join("target/release/llmc"));
    output(command.args(["compile", "-q"]).args(flags).arg("-o").arg(artifact).arg(model))?;
    Ok(artifact.into())
}

/// The first windows of each text.
fn windows(artifact: &Path) -> Result<Vec<Vec<u32>>> {
    let mut all = Vec::new();
    for text in TEXTS {
        let path = model().join("reference").join(format!("{text}.txt"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        // About four bytes make a token; a few times as many as are needed.
        let end = text.char_indices().map(|(i, _)| i).find(|i| *i >= 8 * WINDOW * WINDOWS).unwrap_or(text.len());
        let answer = output(Command::new(artifact).args(["tokenize", "--json", &text[..end]]))?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let ids = answer["ids"].as_array().or(answer["tokens"].as_array()).or(answer.as_array());
        let ids: Vec<u32> =
            ids.context("tokenize prints ids")?.iter().filter_map(|v| v.as_u64()).map(|v| v as u32).collect();
        all.extend(ids.chunks_exact(WINDOW).take(WINDOWS).map(<[u32]>::to_vec));
    }
    Ok(all)
}

fn logits(artifact: &Path, windows: &[Vec<u32>], folder: &Path) -> Result<Logits> {
    let file = folder.join("logits.safetensors");
    let one = |ids: &Vec<u32>| {
        let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        output(Command::new(artifact).args(["logits", "--tokens", &list, "-o"]).arg(&file))?;
        Ok(TensorFile::open(&file)?.f32s("logits")?.1)
    };
    windows.iter().map(one).collect()
}

/// The bundled checkpoint in f32, its matrices encoded and decoded.
fn decoded_checkpoint(scheme: Scheme, path: &Path) -> Result<()> {
    let stored = TensorFile::open(&model().join("model.safetensors"))?;
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for name in stored.names() {
        let (shape, mut values) = stored.f32s(&name)?;
        if let [_, k] = shape[..] {
            values = scheme.encode(&values, k).decode();
        }
        let start = data.len();
        values.iter().for_each(|v| data.extend(v.to_le_bytes()));
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] }));
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(path, bytes).with_context(|| path.display().to_string())
}
