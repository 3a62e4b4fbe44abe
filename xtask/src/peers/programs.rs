//! How each program is asked for its speeds.

use super::Peers;
use super::speeds::Speeds;
use crate::{output, root};
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Tokens of the prompt that is answered by the first token after the start of a process.
const FIRST_PROMPT: usize = 16;

/// llama.cpp, or what was made from it.
pub(super) struct Llama<'a> {
    pub name: &'static str,
    /// Where its programs are.
    programs: &'a Path,
    /// What makes it fastest.
    options: &'static [&'static str],
    /// What keeps it from running once before it measures.
    cold: &'static [&'static str],
    /// Ways of attention to take the better of, where it can decode at a depth.
    attention: &'static [&'static str],
}

impl<'a> Llama<'a> {
    pub(super) fn of_ggml(programs: &'a Path) -> Llama<'a> {
        Llama { name: "llama.cpp", programs, options: &[], cold: &["--no-warmup"], attention: &["on", "off"] }
    }

    pub(super) fn of_ik(programs: &'a Path) -> Llama<'a> {
        Llama { name: "ik_llama.cpp", programs, options: &["-rtr", "1"], cold: &["-w", "0"], attention: &[] }
    }

    /// Its `llama-bench`, once.
    fn bench(&self, args: &Peers, file: &Path, [prefill, decode]: [usize; 2]) -> Command {
        let mut command = Command::new(self.programs.join("llama-bench"));
        command.args(self.options).args(["-o", "json", "-r", "1", "-t", &args.threads.to_string()]);
        command.args(["-p", &prefill.to_string(), "-n", &decode.to_string(), "-m"]).arg(file);
        command
    }

    /// Tokens per second that a run of it tells.
    fn speed(&self, command: &mut Command) -> Result<f64> {
        let answer: Value = serde_json::from_slice(&output(command)?)?;
        let speed = answer.as_array().and_then(|tests| tests.first()?["avg_ts"].as_f64());
        speed.with_context(|| format!("{}'s llama-bench gives no speed", self.name))
    }

    /// One turn. Its share of the bandwidth counts all bytes of the file for each token, as llmc counts all weights.
    pub(super) fn turn(&self, args: &Peers, file: &Path, beside: &Artifact, speeds: &mut Speeds) -> Result<()> {
        speeds.prefill.push(self.speed(&mut self.bench(args, file, [args.prefill, 0]))?);
        let before = beside.readable(args)?;
        let decode = self.speed(&mut self.bench(args, file, [0, args.decode]))?;
        let readable = (before + beside.readable(args)?) / 2.0;
        speeds.decode.push(decode);
        speeds.readable.push(readable);
        speeds.bandwidth_percent.push(100.0 * decode * std::fs::metadata(file)?.len() as f64 / 1e9 / readable);
        speeds.start.push(seconds(self.bench(args, file, [FIRST_PROMPT, 0]).args(self.cold))?);
        Ok(())
    }

    /// Decoding with so many tokens in the cache, by its better attention; nothing where that is 0.
    pub(super) fn turn_at(&self, args: &Peers, file: &Path, depth: usize, speeds: &mut Speeds) -> Result<()> {
        let ways = self.attention.iter().filter(|_| depth > 0);
        let run = |way: &&str| {
            let mut command = self.bench(args, file, [0, args.decode]);
            self.speed(command.args(["-d", &depth.to_string(), "-fa", way]))
        };
        let found: Vec<f64> = ways.map(run).collect::<Result<_>>()?;
        speeds.deep.extend(found.into_iter().max_by(f64::total_cmp));
        Ok(())
    }
}

/// OpenVINO GenAI, by a script.
pub(super) struct OpenVino<'a> {
    /// A Python that has it.
    pub python: &'a Path,
}

impl OpenVino<'_> {
    /// One turn, with decoding behind so many tokens too unless that is 0.
    pub(super) fn turn(&self, args: &Peers, (format, depth): (&str, usize), speeds: &mut Speeds) -> Result<()> {
        let mut command = Command::new(self.python);
        command.arg(root().join("tests/perf/openvino_speeds.py")).arg(&args.model).arg(format);
        command.arg(root().join("target/peers").join(format!("openvino-{format}")));
        command.args([args.threads, args.prefill, args.decode, depth].map(|n| n.to_string()));
        let answer: Value = serde_json::from_slice(&output(&mut command)?)?;
        speeds.prefill.push(number(&answer, "prefill_tok_s")?);
        speeds.decode.push(number(&answer, "decode_tok_s")?);
        speeds.deep.extend(answer["decode_at_depth_tok_s"].as_f64());
        speeds.start.push(number(&answer, "start_to_first_token_s")?);
        Ok(())
    }
}

/// What llmc made.
pub(super) struct Artifact(pub PathBuf);

impl Artifact {
    /// What its `bench` says of itself and of this machine.
    fn bench(&self, args: &Peers, [prefill, decode, depth]: [usize; 3]) -> Result<Value> {
        let mut command = Command::new(&self.0);
        command.args(["bench", "-q", "--json", "-r", "1", "-t", &args.threads.to_string()]);
        command.args(["-p", &prefill.to_string(), "-n", &decode.to_string(), "--depth", &depth.to_string()]);
        Ok(serde_json::from_slice(&output(&mut command)?)?)
    }

    /// GB/s at which its mapped weights can be read now, found as `bench` finds it around a decoding.
    fn readable(&self, args: &Peers) -> Result<f64> {
        number(&self.bench(args, [1, 4, 0])?, "bandwidth_ceiling_gb_s")
    }

    /// One turn.
    pub(super) fn turn(&self, args: &Peers, speeds: &mut Speeds) -> Result<()> {
        let answer = self.bench(args, [args.prefill, args.decode, 0])?;
        speeds.prefill.push(number(&answer, "prefill_tok_s")?);
        speeds.decode.push(number(&answer, "decode_tok_s")?);
        speeds.readable.push(number(&answer, "bandwidth_ceiling_gb_s")?);
        speeds.bandwidth_percent.push(number(&answer, "bandwidth_percent")?);
        speeds.peak_percent.extend(answer["prefill_peak_percent"].as_f64());
        let prompt: Vec<String> = (1..=FIRST_PROMPT).map(|id| id.to_string()).collect();
        let mut first = Command::new(&self.0);
        first.args(["run", "-q", "-n", "1", "-t", &args.threads.to_string(), "--tokens", &prompt.join(",")]);
        speeds.start.push(seconds(&mut first)?);
        Ok(())
    }

    /// Decoding with so many tokens in the cache; nothing where that is 0.
    pub(super) fn turn_at(&self, args: &Peers, depth: usize, speeds: &mut Speeds) -> Result<()> {
        if depth > 0 {
            speeds.deep.push(number(&self.bench(args, [1, args.decode, depth])?, "decode_tok_s")?);
        }
        Ok(())
    }
}

fn number(answer: &Value, key: &str) -> Result<f64> {
    answer[key].as_f64().with_context(|| format!("bench gives no {key}"))
}

/// How long a process takes, from its start to its end.
fn seconds(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    output(command)?;
    Ok(start.elapsed().as_secs_f64())
}
