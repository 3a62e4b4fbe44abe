//! `--ctx-policy` from the outside.

use llmc_tests::command::{Ended, compile, folder, run, tinywiki_model};

const WINDOW: [&str; 2] = ["--ctx-policy", "window=64,sinks=4"];
const SCORE: [&str; 2] = ["--ctx-policy", "score=96"];

#[test]
fn a_window_takes_texts_of_any_length() {
    takes_texts_of_any_length(&WINDOW, "the 32 first and the 96 last are seen");
}

#[test]
fn so_does_a_score() {
    takes_texts_of_any_length(&SCORE, "of which 96 are kept that attention has used most");
}

fn takes_texts_of_any_length(policy: &[&str], words: &str) {
    let dir = folder(if policy == WINDOW { "window" } else { "score" });
    let path = dir.join("m");
    compile(&tinywiki_model(), &path, policy).ok();
    let info = run(&path, &["info"], b"").ok().to_owned();
    assert!(info.contains(words), "{info}");
    let long = run(&path, &["run", "The river", "--raw", "-n", "700", "--ignore-eos", "--json"], b"").json();
    assert_eq!(long["tokens"].as_array().expect("tokens").len(), 700);
    assert_eq!(long["finish_reason"], "length");
    let text = tinywiki_model().join("reference/test_books.txt");
    let file = text.to_str().expect("paths here are text");
    let measured = run(&path, &["perplexity", file, "--ctx", "2048", "--json", "-q"], b"").json();
    assert!(measured["perplexity"].as_f64().is_some_and(|p| p > 30.0 && p < 60.0), "{measured}");
    run(&path, &["run", "a", "--ctx-size", "64"], b"").failed(2, &["--ctx-size", "any length"]);
}

#[test]
fn a_conversation_goes_on() {
    for policy in [WINDOW, SCORE] {
        let dir = folder("conversation");
        let path = dir.join("m");
        compile(&tinywiki_model(), &path, &policy).ok();
        let turns: String =
            (0..6).map(|i| format!("Tell me of river number {i}, and of the hills behind it.\n")).collect();
        let ended = run(&path, &["chat", "-n", "40", "--ignore-eos"], turns.as_bytes());
        assert!(ended.ok().lines().count() >= 6, "{}", ended.text());
        assert!(!ended.err.contains("forgotten"), "turns leave the prompt, where pages should: {}", ended.err);
    }
}

#[test]
fn what_is_no_policy_is_refused() {
    let dir = folder("policies");
    let refused = |args: &[&str], words: &[&str]| {
        let ended: Ended = compile(&tinywiki_model(), &dir.join("m"), args);
        ended.failed(2, words);
        assert!(!dir.join("m").exists(), "nothing is left where nothing was made");
    };
    refused(&["--ctx-policy", "window=0"], &["window=0", "1 or more"]);
    refused(&["--ctx-policy", "last=5"], &["last=5", "window=N,sinks=K", "score=N"]);
    refused(&["--ctx-policy", "score=0"], &["score=0", "1 or more"]);
    refused(&["--ctx-policy", "score=64", "--target", "cuda"], &["GPUs", "window", "full"]);
}
