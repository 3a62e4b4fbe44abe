//! The command line of llmc.

use crate::emit::Emit;
use crate::isolate::Product;
use crate::options::{Activations, BackendName, CtxPolicy, Kv, Options, Prune};
use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};
use llmc_ir::quant::Scheme;
use std::path::PathBuf;

/// Ahead-of-time compiler for language models: a checkpoint goes in, a standalone executable comes out.
#[derive(Debug, Parser)]
#[command(name = "llmc", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile a model into an executable.
    Compile(CompileArgs),
    /// Show what a model or an artifact consists of.
    Inspect(InspectArgs),
    /// Show what `compile` would make: sizes, memory, and tokens per second by the roofline.
    Plan(PlanArgs),
    /// Show what this machine can build and run.
    Doctor(DoctorArgs),
    /// Generate code for another llmc, which waits for it.
    #[command(hide = true)]
    GenerateCode(GenerateArgs),
    /// Print a completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Flags that decide what is compiled.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// model.safetensors (its folder supplies the rest), a model folder, or org/name[@rev] in the hub cache
    pub model: PathBuf,
    /// Targets, best first: cpu (this machine), x86-64-v2, x86-64-v3, x86-64-v4, x86-64-amx, aarch64,
    /// aarch64-dotprod, aarch64-i8mm, cuda (NVIDIA GPUs of compute capability 8.0 and up).
    /// A list makes one artifact that picks at start
    #[arg(long, env = "LLMC_TARGET", default_value = "cpu", value_delimiter = ',')]
    pub target: Vec<String>,
    /// Code generator [default: llvm where built in]
    #[arg(long, env = "LLMC_BACKEND", value_enum)]
    pub backend: Option<BackendName>,
    /// Type of the values that products read
    #[arg(long, env = "LLMC_ACTIVATIONS", value_enum, default_value_t)]
    pub activations: Activations,
    /// How weights are stored: none, w8, w8a8, fp8, w6, w5, w4, w3, w2, int4, nf4; w8, int4 and nf4 take a group, as
    /// in int4:group=128 [default: none]
    #[arg(long, env = "LLMC_QUANTIZE", value_parser = quantize)]
    pub quantize: Option<Quantize>,
    /// What is left out: layers=N, the N layers of least influence; ffn=30%, the feed-forward channels worth
    /// least; or both. Needs --calibrate
    #[arg(long, env = "LLMC_PRUNE", value_delimiter = ',', value_parser = prune)]
    pub prune: Vec<PruneArg>,
    /// A text file like what the model will read, on which its parts are measured
    #[arg(long, env = "LLMC_CALIBRATE", value_name = "FILE")]
    pub calibrate: Option<PathBuf>,
    /// Element type of the KV cache
    #[arg(long, env = "LLMC_KV", value_enum, default_value_t)]
    pub kv: Kv,
    /// Positions that one sequence may have [default: the model's]
    #[arg(long, env = "LLMC_CTX_SIZE")]
    pub ctx_size: Option<usize>,
    /// What happens to a text that passes the context: full, it ends; window=N,sinks=K, it goes on with its K
    /// first and N last positions in sight (K is 4 if left out); score=N, with the N that attention has used most.
    /// All in whole pages of 32
    #[arg(long, env = "LLMC_CTX_POLICY", value_name = "POLICY", default_value = "full", value_parser = ctx_policy)]
    pub ctx_policy: CtxPolicy,
    /// Rewrite rule applications allowed; 0 turns rewriting off
    #[arg(long, env = "LLMC_FUEL")]
    pub fuel: Option<u32>,
    /// A rewrite rule that is not used (repeatable)
    #[arg(long, env = "LLMC_DISABLE_RULE", value_delimiter = ',')]
    pub disable_rule: Vec<String>,
    /// Threads of the compiler [default: all]
    #[arg(short, long, env = "LLMC_JOBS")]
    pub jobs: Option<usize>,
    /// No progress
    #[arg(short, long, env = "LLMC_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// Name each rewrite rule that fired, with what it saves
    #[arg(short, long, env = "LLMC_VERBOSE", value_parser = FalseyValueParser::new())]
    pub verbose: bool,
}

/// `llmc compile`.
#[derive(Debug, Args)]
pub struct CompileArgs {
    /// What is compiled.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Where the result goes [default: the model's name; text: standard output]
    #[arg(short, long, env = "LLMC_OUTPUT")]
    pub output: Option<PathBuf>,
    /// What to make
    #[arg(long, env = "LLMC_EMIT", value_enum, default_value_t)]
    pub emit: Emit,
    /// A linker to run in place of the one inside llmc; it takes GNU ld's flags
    #[arg(long, env = "LLMC_LINKER")]
    pub linker: Option<PathBuf>,
    /// NVIDIA's assembler, for machine code of GPU targets beside their PTX; `auto` looks where it usually is
    #[arg(long, env = "LLMC_PTXAS")]
    pub ptxas: Option<PathBuf>,
}

/// `llmc inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A model or an artifact.
    pub path: PathBuf,
    /// Print JSON
    #[arg(long, env = "LLMC_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
}

/// `llmc plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// What would be compiled.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Print JSON
    #[arg(long, env = "LLMC_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    /// Threads that the artifact would run on [default: the machine's]
    #[arg(short, long, env = "LLMC_THREADS")]
    pub threads: Option<usize>,
}

/// `llmc doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long, env = "LLMC_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
}

/// `llmc generate-code`: see [`crate::isolate`].
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The target
    #[arg(long)]
    pub target: String,
    /// What to make of the program on standard input
    #[arg(long, value_enum)]
    pub product: Product,
    /// Threads
    #[arg(long)]
    pub jobs: Option<usize>,
}

/// The value of `--quantize`.
#[derive(Clone, Copy, Debug)]
pub struct Quantize(pub Option<Scheme>);

fn quantize(text: &str) -> Result<Quantize, String> {
    match text {
        "none" => Ok(Quantize(None)),
        scheme => Scheme::parse_flag(scheme).map(|s| Quantize(Some(s))).map_err(|e| e.to_string()),
    }
}

/// First positions that a window keeps unless told otherwise (arXiv 2309.17453).
const SINKS: usize = 4;

fn ctx_policy(text: &str) -> Result<CtxPolicy, String> {
    if text == "full" {
        return Ok(CtxPolicy::Full);
    }
    let wrong = || format!("{text} is neither full, window=N,sinks=K nor score=N; N is 1 or more");
    if let Some(positions) = text.strip_prefix("score=") {
        let positions = positions.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
        return Ok(CtxPolicy::Score { positions });
    }
    let (mut window, mut sinks) = (None, None);
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or_else(wrong)?;
        let place = match name {
            "window" => &mut window,
            "sinks" => &mut sinks,
            _ => return Err(wrong()),
        };
        if place.replace(value.parse().map_err(|_| wrong())?).is_some() {
            return Err(wrong());
        }
    }
    let window = window.filter(|w| *w > 0).ok_or_else(wrong)?;
    Ok(CtxPolicy::Window { window, sinks: sinks.unwrap_or(SINKS) })
}

/// One value of `--prune`.
#[derive(Clone, Copy, Debug)]
pub enum PruneArg {
    /// `layers=N`.
    Layers(usize),
    /// `ffn=P%`.
    Ffn(f64),
}

fn prune(text: &str) -> Result<PruneArg, String> {
    let wrong = || format!("{text} is neither layers=N nor ffn=30%");
    if text == "auto" {
        return Err("auto chooses within a --budget, which llmc cannot do yet; give layers=N or ffn=30%".into());
    }
    match text.split_once('=').ok_or_else(wrong)? {
        ("layers", n) => n.parse().map(PruneArg::Layers).map_err(|_| wrong()),
        ("ffn", share) => {
            let percent = share.strip_suffix('%').and_then(|p| p.parse::<f64>().ok()).ok_or_else(wrong)?;
            match (0.0..100.0).contains(&percent) {
                true => Ok(PruneArg::Ffn(percent)),
                false => Err(format!("ffn={share}: at least 0 % and less than 100 % of the channels can go")),
            }
        }
        _ => Err(wrong()),
    }
}

impl ModelArgs {
    /// What all the values of `--prune` ask for together; of two of a kind the last.
    fn pruning(&self) -> Prune {
        self.prune.iter().fold(Prune::default(), |all, arg| match arg {
            PruneArg::Layers(layers) => Prune { layers: *layers, ..all },
            PruneArg::Ffn(ffn_percent) => Prune { ffn_percent: *ffn_percent, ..all },
        })
    }

    /// The options these flags stand for.
    pub fn options(&self) -> Options {
        Options {
            model: self.model.clone(),
            targets: self.target.clone(),
            backend: self.backend,
            activations: self.activations,
            quantize: self.quantize.and_then(|q| q.0),
            prune: self.pruning(),
            calibrate: self.calibrate.clone(),
            kv: self.kv,
            ctx_size: self.ctx_size,
            ctx_policy: self.ctx_policy,
            fuel: self.fuel,
            disabled_rules: self.disable_rule.clone(),
            savings: self.verbose,
            ptxas: None,
            linker: None,
            isolate: std::env::current_exe().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn policies_are_read() {
        let window = |window, sinks| Ok(CtxPolicy::Window { window, sinks });
        assert_eq!(ctx_policy("full"), Ok(CtxPolicy::Full));
        assert_eq!(ctx_policy("window=512,sinks=8"), window(512, 8));
        assert_eq!(ctx_policy("sinks=0,window=1"), window(1, 0));
        assert_eq!(ctx_policy("window=64"), window(64, SINKS));
        for bad in ["", "window", "window=0", "sinks=4", "window=-1", "window=1,window=2", "window=9,tail=1"] {
            assert!(ctx_policy(bad).is_err_and(|e| e.contains("neither")), "{bad}");
        }
        assert_eq!(ctx_policy("score=64"), Ok(CtxPolicy::Score { positions: 64 }));
    }

    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable() {
        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long().filter(|long| *long != "help") else { continue };
                let expected = format!("LLMC_{}", long.to_uppercase().replace('-', "_"));
                let got = arg.get_env().map(|e| e.to_string_lossy().into_owned());
                assert_eq!(got, Some(expected), "{} --{long}", command.get_name());
            }
        }
    }
}
