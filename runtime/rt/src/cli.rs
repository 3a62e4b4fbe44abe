//! The command line of an artifact: every flag has a variable `LLMC_<FLAG>`, and the flag wins.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::error::{Error, Kind};
use crate::sys::signals;

/// A language model compiled by llmc.
#[derive(Parser, Debug)]
#[command(version, about, disable_help_subcommand = true, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Generate text from a prompt
    Run(Run),
    /// Have a conversation in the terminal
    Chat(Chat),
    /// Measure prefill and decode speed against this machine's memory bandwidth
    Bench(Bench),
    /// Measure perplexity on a text file, in windows that do not overlap
    Perplexity(Perplexity),
    /// Compute the logits of every position
    Logits(Logits),
    /// Print the tokens of a text
    Tokenize(Tokenize),
    /// Print the text of tokens
    Detokenize(Detokenize),
    /// Print what this artifact is and how it would run here
    Info(Info),
    /// Check every byte of this file
    Verify(Verify),
}

/// How to run the model.
#[derive(Args, Debug, Clone)]
pub struct Machine {
    /// Worker threads [default: what affinity and cgroups allow]
    #[arg(short, long, value_name = "N", env = "LLMC_THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Device to run on
    #[arg(long, env = "LLMC_DEVICE", default_value = "auto")]
    pub device: String,
    /// Positions to keep room for [default: the model's, capped to memory]
    #[arg(long, value_name = "N", env = "LLMC_CTX_SIZE")]
    pub ctx_size: Option<usize>,
    /// Say nothing on standard error but errors
    #[arg(short, long, env = "LLMC_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,
}

/// How to choose tokens.
#[derive(Args, Debug, Clone)]
pub struct Choice {
    /// Most tokens to generate
    #[arg(short = 'n', long, value_name = "N", env = "LLMC_MAX_TOKENS", default_value_t = 128)]
    pub max_tokens: usize,
    /// Temperature; 0 always takes the likeliest token
    #[arg(long, env = "LLMC_TEMP", default_value_t = 0.0)]
    pub temp: f32,
    /// Keep the K likeliest tokens; 0 keeps all
    #[arg(long, value_name = "K", env = "LLMC_TOP_K", default_value_t = 0)]
    pub top_k: usize,
    /// Keep the likeliest tokens that together have probability P
    #[arg(long, value_name = "P", env = "LLMC_TOP_P", default_value_t = 1.0)]
    pub top_p: f32,
    /// Keep tokens at least P times as likely as the likeliest
    #[arg(long, value_name = "P", env = "LLMC_MIN_P", default_value_t = 0.0)]
    pub min_p: f32,
    /// Make tokens that occurred less likely; 1 does nothing
    #[arg(long, value_name = "X", env = "LLMC_REPEAT_PENALTY", default_value_t = 1.0)]
    pub repeat_penalty: f32,
    /// Seed of the random choices [default: another one each time]
    #[arg(long, value_name = "N", env = "LLMC_SEED")]
    pub seed: Option<u64>,
    /// Stop before this text (repeatable)
    #[arg(long, value_name = "S", env = "LLMC_STOP")]
    pub stop: Vec<String>,
    /// Go on past the end of a text
    #[arg(long, env = "LLMC_IGNORE_EOS", value_parser = FalseyValueParser::new())]
    pub ignore_eos: bool,
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct Run {
    /// The prompt; - reads standard input, without one newline at its end
    #[arg(required_unless_present = "tokens", conflicts_with = "tokens")]
    pub prompt: Option<OsString>,
    /// Token ids in place of text: 1,2,3
    #[arg(long, value_name = "IDS", env = "LLMC_TOKENS")]
    pub tokens: Option<String>,
    /// Continue the prompt as it is, without the chat template
    #[arg(long, env = "LLMC_RAW", value_parser = FalseyValueParser::new())]
    pub raw: bool,
    /// Print one JSON object when done
    #[arg(long, env = "LLMC_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub choice: Choice,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub machine: Machine,
}

/// Arguments of `chat`.
#[derive(Args, Debug)]
pub struct Chat {
    /// What the assistant is told before the conversation
    #[arg(long, value_name = "TEXT", env = "LLMC_SYSTEM")]
    pub system: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub choice: Choice,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub machine: Machine,
}

/// Arguments of `bench`.
#[derive(Args, Debug)]
pub struct Bench {
    /// Tokens of the prompt [default: 512, or the context]
    #[arg(short = 'p', long, value_name = "N", env = "LLMC_PREFILL")]
    pub prefill: Option<usize>,
    /// Tokens to decode [default: 128, or what the context leaves]
    #[arg(short = 'n', long, value_name = "N", env = "LLMC_DECODE")]
    pub decode: Option<usize>,
    /// Repetitions; medians are reported
    #[arg(short, long, value_name = "N", env = "LLMC_REPETITIONS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub repetitions: u16,
    /// Tokens in the cache before decoding begins
    #[arg(long, value_name = "N", env = "LLMC_DEPTH", default_value_t = 0)]
    pub depth: usize,
    /// Also run N sequences at once: prompts, one of five long, packed and padded; and decoding
    #[arg(long, value_name = "N", env = "LLMC_PARALLEL", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub parallel: Option<u16>,
    /// Add time, bytes and GB/s of each kernel
    #[arg(long, env = "LLMC_PROFILE", value_parser = FalseyValueParser::new())]
    pub profile: bool,
    /// Price of this machine per hour, for the price per million tokens
    #[arg(long, value_name = "P", env = "LLMC_HOURLY_PRICE")]
    pub hourly_price: Option<f64>,
    /// Print one JSON object
    #[arg(long, env = "LLMC_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub machine: Machine,
}

/// Arguments of `perplexity`.
#[derive(Args, Debug)]
pub struct Perplexity {
    /// A UTF-8 text file; - reads standard input
    pub file: PathBuf,
    /// Tokens per window
    #[arg(long, value_name = "N", env = "LLMC_CTX", default_value_t = 512)]
    pub ctx: usize,
    /// Print one JSON object
    #[arg(long, env = "LLMC_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub machine: Machine,
}

/// Arguments of `logits`.
#[derive(Args, Debug)]
pub struct Logits {
    /// Token ids: 1,2,3
    #[arg(long, value_name = "IDS", env = "LLMC_TOKENS", required_unless_present = "text", conflicts_with = "text")]
    pub tokens: Option<String>,
    /// A text, encoded as `run --raw` does
    #[arg(long, value_name = "S", env = "LLMC_TEXT")]
    pub text: Option<OsString>,
    /// Tokens per step [default: as many as a step gives logits of]
    #[arg(long, value_name = "N", env = "LLMC_CHUNK")]
    pub chunk: Option<usize>,
    /// Write f32 [len, vocab] as `logits` and i64 [len] as `input_ids` to a safetensors file
    #[arg(short, long, value_name = "FILE", env = "LLMC_OUTPUT")]
    pub output: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long, env = "LLMC_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub machine: Machine,
}

/// Arguments of `tokenize`.
#[derive(Args, Debug)]
pub struct Tokenize {
    /// The text; - reads standard input as it is
    pub text: OsString,
    /// Add the tokens that the tokenizer puts around a text
    #[arg(long, env = "LLMC_SPECIAL", value_parser = FalseyValueParser::new())]
    pub special: bool,
    /// Take spelled control tokens as mere text
    #[arg(long, env = "LLMC_PLAIN", value_parser = FalseyValueParser::new())]
    pub plain: bool,
    /// Print one JSON object
    #[arg(long, env = "LLMC_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
}

/// Arguments of `detokenize`.
#[derive(Args, Debug)]
pub struct Detokenize {
    /// Token ids, separated by commas or spaces
    #[arg(required = true)]
    pub ids: Vec<String>,
    /// Leave control tokens out
    #[arg(long, env = "LLMC_SKIP_SPECIAL", value_parser = FalseyValueParser::new())]
    pub skip_special: bool,
    /// Print one JSON object
    #[arg(long, env = "LLMC_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
}

/// Arguments of `info`.
#[derive(Args, Debug)]
pub struct Info {
    /// Print one JSON object
    #[arg(long, env = "LLMC_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub machine: Machine,
}

/// Arguments of `verify`.
#[derive(Args, Debug)]
pub struct Verify {
    /// Print one JSON object
    #[arg(long, env = "LLMC_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    /// Say nothing on standard error but errors
    #[arg(short, long, env = "LLMC_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,
}

/// Runs the command that the process's arguments name and returns its exit code.
pub fn main() -> i32 {
    crate::clock_start();
    signals::install();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output, errors to standard error; nobody may be listening.
            let _ = error.print();
            return error.exit_code();
        }
    };
    match dispatch(&cli.command) {
        Ok(()) => 0,
        Err(error) => report(&error),
    }
}

fn dispatch(command: &Command) -> Result<(), Error> {
    match command {
        Command::Run(args) => commands::run::run(args),
        Command::Chat(args) => commands::chat::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Perplexity(args) => commands::perplexity::run(args),
        Command::Logits(args) => commands::logits::run(args),
        Command::Tokenize(args) => commands::tokenize::run(args),
        Command::Detokenize(args) => commands::detokenize::run(args),
        Command::Info(args) => commands::info::run(args),
        Command::Verify(args) => commands::verify::run(args),
    }
}

/// Says what went wrong, unless the user asked for the end, and gives the exit code.
fn report(error: &Error) -> i32 {
    if !matches!(error.kind, Kind::Interrupted | Kind::Terminated) {
        crate::output::note(&format!("error: {error}"));
    }
    error.code()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable() {
        for command in Cli::command().get_subcommands() {
            for arg in command.get_arguments().filter(|a| a.get_long().is_some_and(|l| l != "help")) {
                let expected = format!("LLMC_{}", arg.get_long().unwrap_or("").replace('-', "_").to_uppercase());
                let got = arg.get_env().map(|e| e.to_string_lossy().into_owned());
                assert_eq!(got, Some(expected), "{} {:?}", command.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn command_lines() {
        let code = |line: &str| Cli::try_parse_from(line.split(' ')).map_or_else(|e| e.exit_code(), |_| 0);
        let cases = [
            ("m run hello -n 5 --temp 0.7 --stop a --stop b -t 2", 0),
            ("m run - --raw --json", 0),
            ("m run --tokens 1,2,3 --ignore-eos", 0),
            ("m run", 2),
            ("m run a --tokens 1", 2),
            ("m run a -t 0", 2),
            ("m run a --temp x", 2),
            ("m logits --text a -o f.safetensors --chunk 5", 0),
            ("m logits", 2),
            ("m bench -p 512 -n 128 -t 2 -r 5 --depth 3 --profile --hourly-price 1.5 --json", 0),
            ("m perplexity f --ctx 256 --json", 0),
            ("m detokenize 1,2 3", 0),
            ("m serve", 2),
            ("m --help", 0),
            ("m", 2),
        ];
        for (line, expected) in cases {
            assert_eq!(code(line), expected, "{line}");
        }
    }
}
