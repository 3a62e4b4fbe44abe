//! The artifact's commands.

use llmc_tests::command::{Ended, artifact, folder, names, piped, run, tinywiki, tinywiki_model};
use std::fs;
use std::io::Read;
use std::process::Command;

const MIXED: &str = "안녕하세요 😀👩‍👩‍👧 héllo 日本 x";

#[test]
fn run_generates() {
    let args = ["run", "The river", "-n", "12"];
    let text = artifact(&args).ok().to_owned();
    let object = artifact(&[&args[..], &["--json"]].concat()).json();
    assert_eq!(text.trim_end_matches('\n'), object["text"].as_str().expect("text").trim_end_matches('\n'));
    let tokens = object["tokens"].as_array().expect("tokens").len();
    assert!((1..=12).contains(&tokens));
    assert!(object["finish_reason"] == "length" || tokens < 12, "{object}");
    let long = artifact(&["run", "The river", "--raw", "-n", "30", "--ignore-eos", "--json"]).json();
    assert_eq!(long["tokens"].as_array().expect("tokens").len(), 30);
    assert_eq!(artifact(&["run", "a", "-n", "0"]).ok(), "\n");
}

#[test]
fn prompts_from_standard_input() {
    let direct = artifact(&["run", "The river", "-n", "8"]);
    for input in ["The river", "The river\n"] {
        assert_eq!(run(tinywiki(), &["run", "-", "-n", "8"], input.as_bytes()).ok(), direct.ok());
    }
    run(tinywiki(), &["run", "-"], b"ab\xffcd").failed(3, &["standard input is not UTF-8", "byte 2"]);
}

#[test]
fn stop_strings() {
    let text = artifact(&["run", "The river", "--raw", "-n", "24", "--ignore-eos"]).ok().to_owned();
    let stop: String = text.chars().skip(text.chars().count() / 2).take(5).collect();
    let object = artifact(&["run", "The river", "--raw", "-n", "24", "--ignore-eos", "--stop", &stop, "--json"]).json();
    assert_eq!(object["finish_reason"], "stop_string");
    let expected = text.split(&stop).next().expect("a beginning");
    assert_eq!(object["text"], expected, "{text:?} up to {stop:?}");
}

#[test]
fn sampling() {
    let sample = |args: &[&str]| {
        let base = ["run", "The river", "--raw", "-n", "16", "--ignore-eos"];
        artifact(&[&base, args].concat()).ok().to_owned()
    };
    let greedy = sample(&[]);
    assert_eq!(sample(&["--temp", "1", "--seed", "7"]), sample(&["--temp", "1", "--seed", "7"]));
    assert_ne!(sample(&["--temp", "1", "--seed", "7"]), sample(&["--temp", "1", "--seed", "8"]));
    for one in [["--top-k", "1"], ["--top-p", "0.000001"], ["--min-p", "1"]] {
        assert_eq!(sample(&[&["--temp", "1.5"], &one[..]].concat()), greedy, "{one:?} leaves one token");
    }
    assert_ne!(sample(&["--repeat-penalty", "3"]), greedy, "the greedy answer repeats tokens");
    for bad in [["--temp", "-1"], ["--temp", "nan"], ["--top-p", "2"], ["--min-p", "-1"], ["--repeat-penalty", "0"]] {
        let ended = artifact(&["run", "a", "-n", "1", bad[0], bad[1]]);
        assert_eq!(ended.code, 2, "{bad:?}: {}", ended.err);
    }
}

#[test]
fn threads_and_context() {
    let greedy = |args: &[&str]| artifact(&[&["run", "The river", "-n", "8"], args].concat()).ok().to_owned();
    assert_eq!(greedy(&["-t", "1"]), greedy(&["-t", "3"]));
    artifact(&["run", "a", "--ctx-size", "100000"]).failed(4, &["--ctx-size 100000", "512"]);
    let long = "word ".repeat(600);
    artifact(&["run", &long]).failed(4, &["tokens", "context", "512"]);
    artifact(&["run", "one two three four five six seven", "--ctx-size", "4"]).failed(4, &["context"]);
    let full =
        artifact(&["run", "The river", "--raw", "--ctx-size", "32", "-n", "100", "--ignore-eos", "--json"]).json();
    assert_eq!(full["finish_reason"], "context_full");
}

#[test]
fn bad_usage() {
    for (args, code, words) in [
        (&["run"][..], 2, &["PROMPT"][..]),
        (&["run", "a", "--no-such-flag"], 2, &["--no-such-flag"]),
        (&["fly"], 2, &["fly"]),
        (&["run", "--tokens", "1,x"], 2, &["\"x\"", "no token id"]),
        (&["run", "--tokens", ""], 2, &["empty"]),
        (&["run", "--tokens", "8192"], 2, &["8192", "8191"]),
        (&["detokenize", "8192"], 2, &["8192", "8191"]),
        (&["run", "a", "-t", "0"], 2, &["--threads"]),
        (&["run", "a", "--device", "cuda"], 5, &["CPU alone", "--device cpu"]),
        (&["logits", "--text", "a", "-o", "/nowhere/l"], 1, &["/nowhere/l"]),
        (&["perplexity", "/nowhere/t"], 3, &["/nowhere/t"]),
        (&["perplexity", "-"], 3, &["fewer than one window"]),
    ] {
        artifact(args).failed(code, words);
    }
    assert_eq!(artifact(&["--help"]).code, 0);
    // The tokenizer puts a token before every text: an empty one can be continued.
    assert!(artifact(&["run", "", "--raw", "-n", "2"]).ok().len() > 1);
}

#[test]
fn variables_stand_for_flags() {
    let run = |vars: &[(&str, &str)], args: &[&str]| {
        let mut command = Command::new(tinywiki());
        command.args(["run", "The river", "--raw", "--ignore-eos", "--json"]).args(args).env_clear();
        let ended = Ended::of(command.envs(vars.iter().copied()), b"");
        ended.json()["tokens"].as_array().expect("tokens").len()
    };
    assert_eq!(run(&[("LLMC_MAX_TOKENS", "5")], &[]), 5);
    assert_eq!(run(&[("LLMC_MAX_TOKENS", "5")], &["-n", "3"]), 3);
}

#[test]
fn chat_from_a_pipe() {
    let ended = run(tinywiki(), &["chat", "-n", "6"], "Hello\n\n안녕하세요\n".as_bytes());
    assert_eq!(ended.ok().lines().count(), 2, "{:?}", ended.text());
    run(tinywiki(), &["chat"], b"\xff\n").failed(3, &["not UTF-8"]);
    assert_eq!(run(tinywiki(), &["chat"], b"").ok(), "");
}

#[test]
fn tokens_and_back() {
    let ids = artifact(&["tokenize", MIXED]).ok().trim().to_owned();
    assert_eq!(artifact(&["detokenize", &ids]).ok(), format!("{MIXED}\n"));
    let object = run(tinywiki(), &["tokenize", "-", "--json"], MIXED.as_bytes()).json();
    let listed: Vec<_> = object["ids"].as_array().expect("ids").iter().map(ToString::to_string).collect();
    assert_eq!(listed.join(","), ids);
    assert_eq!(artifact(&["detokenize", "--json", &ids]).json()["text"], MIXED);
    let control = artifact(&["tokenize", "<|im_end|>"]).ok().trim().to_owned();
    assert!(!control.contains(','), "a control token that is spelled: {control}");
    assert!(artifact(&["tokenize", "--plain", "<|im_end|>"]).ok().contains(','));
}

#[test]
fn logits_file() {
    let folder = folder("logits");
    let path = folder.join("l.safetensors");
    let name = path.to_str().expect("text");
    artifact(&["logits", "--tokens", "1,2,3,4", "-o", name]).ok();
    let file = llmc_models::TensorFile::open(&path).expect("safetensors");
    assert_eq!(file.i64s("input_ids").expect("ids"), [1, 2, 3, 4]);
    let (shape, whole) = file.f32s("logits").expect("logits");
    assert_eq!(shape, [4, 8192]);
    artifact(&["logits", "--tokens", "1,2,3,4", "--chunk", "1", "-o", name]).ok();
    let (_, single) = llmc_models::TensorFile::open(&path).expect("safetensors").f32s("logits").expect("logits");
    assert!(whole == single, "logits depend on the chunks");
    assert_eq!(names(&folder), ["l.safetensors"]);
}

#[test]
fn logits_that_do_not_fit_the_disk() {
    let dir = folder("logits-limit");
    // In blocks of 512 bytes: less than a row.
    let script = "ulimit -f 10; exec \"$1\" logits --text 'The river' -o \"$2/l\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(tinywiki()).arg(&*dir);
    Ended::of(&mut command, b"").failed(1, &["/l: File too large"]);
    assert!(names(&dir).is_empty(), "{:?}", names(&dir));
}

#[test]
fn info_and_verify() {
    let info = artifact(&["info", "--json"]).json();
    assert_eq!(info["architecture"], "llama");
    assert_eq!(info["model"]["vocab"], 8192);
    assert!(info["runtime"]["threads"].as_u64().expect("a number") >= 1);
    assert!(artifact(&["info"]).ok().contains("8192"));
    assert_eq!(artifact(&["verify", "--json"]).json()["ok"], true);
    assert!(artifact(&["verify"]).ok().contains("ok"));
}

#[test]
fn bench_reports() {
    let bench = artifact(&["bench", "-p", "16", "-n", "4", "-r", "1", "--profile", "--json"]).json();
    for key in ["prefill_tok_s", "decode_tok_s", "ttft_ms", "weight_bytes_per_token", "bandwidth_gb_s"] {
        assert!(bench[key].as_f64().is_some_and(|v| v > 0.0), "{key}: {bench}");
    }
    for key in ["peak_rss_bytes", "threads", "load_ms", "bandwidth_ceiling_gb_s", "bandwidth_percent"] {
        assert!(bench[key].as_f64().is_some_and(|v| v > 0.0), "{key}: {bench}");
    }
    assert_eq!(bench["device"], "cpu");
    assert!(bench["profile"]["decode"].as_array().is_some_and(|rows| rows.len() > 3), "{bench}");
    let many = artifact(&["bench", "-p", "64", "-n", "4", "-r", "1", "--parallel", "6", "--json"]).json();
    let parallel = &many["parallel"];
    assert_eq!((&parallel["prompt_tokens"], &parallel["padded_tokens"]), (&144.into(), &384.into()));
    for key in ["packed_tok_s", "padded_tok_s", "share_of_token_ratio", "decode_tok_s"] {
        assert!(parallel[key].as_f64().is_some_and(|n| n > 0.0), "{key} in {parallel}");
    }
    let filled = artifact(&["bench", "-p", "512", "-n", "8", "-r", "1", "--parallel", "2", "--json"]).json();
    assert!(filled["parallel"]["decode_tok_s"].as_f64().is_some_and(|n| n > 0.0), "{filled}");
    artifact(&["bench", "-p", "1000"]).failed(4, &["1000 positions", "512"]);
}

#[test]
fn perplexity_of_a_text() {
    let text = fs::read(tinywiki_model().join("reference/test_wiki.txt")).expect("readable");
    let dir = folder("perplexity");
    let path = dir.join("t.txt");
    let end = (0..=6000).rev().find(|n| std::str::from_utf8(&text[..*n]).is_ok()).expect("UTF-8");
    fs::write(&path, &text[..end]).expect("written");
    let object = artifact(&["perplexity", path.to_str().expect("text"), "--ctx", "128", "--json"]).json();
    let windows = object["windows"].as_u64().expect("a number");
    assert!(windows >= 5 && object["tokens"].as_u64() == Some(windows * 127), "{object}");
    let perplexity = object["perplexity"].as_f64().expect("a number");
    assert!((2.0..200.0).contains(&perplexity), "{perplexity}");
}

/// Whatever a read from the pipe gives ends with a whole character: each write is text by itself.
#[test]
fn streams_whole_characters() {
    for (prompt, seed) in [("한국의 역사는", "1"), ("😀 😃 🎉", "2"), ("안녕하세요", "3")] {
        let mut command = Command::new(tinywiki());
        command.args(["run", prompt, "--raw", "-n", "60", "--temp", "1.3", "--ignore-eos", "--seed", seed]);
        let mut child = piped(command.env_clear());
        let mut out = child.stdout.take().expect("piped");
        let (mut buffer, mut reads, mut wide) = ([0; 4096], 0, 0);
        loop {
            let n = out.read(&mut buffer).expect("readable");
            if n == 0 {
                break;
            }
            let piece = std::str::from_utf8(&buffer[..n]).unwrap_or_else(|e| panic!("{prompt}: half a character: {e}"));
            reads += 1;
            wide += piece.chars().filter(|c| c.len_utf8() > 2).count();
        }
        assert!(child.wait().expect("ours").success());
        assert!(reads > 10, "{prompt}: {reads} pieces are no stream");
        assert!(wide > 0, "{prompt}: no wide characters came");
    }
}
