//! The trained model against transformers: logits, 64 greedy tokens of texts and of chats, and the
//! perplexity of texts it has never seen, which falls for no error of a kernel or a format.

use llmc::options::BackendName;
use llmc_models::TensorFile;
use llmc_tests::artifact::{Artifact, BACKENDS, defaults, exact};
use llmc_tests::reference::{Prompt, relative_error};
use llmc_tests::weights;
use serde_json::Value;
use std::path::{Path, PathBuf};

const TEMPORARY: &str = env!("CARGO_TARGET_TMPDIR");
const TOLERANCE: f32 = 1e-4;

fn folder() -> PathBuf {
    weights::fixtures().join("tinywiki")
}

fn reference(name: &str) -> PathBuf {
    folder().join("reference").join(name)
}

fn json(name: &str) -> Value {
    let text = std::fs::read(reference(name)).expect("the fixture has references");
    serde_json::from_slice(&text).expect("references are JSON")
}

fn compile(options: &llmc::options::Options, kind: &str) -> Artifact {
    let backend = options.backend.expect("the test names a back end");
    Artifact::compile(options, Path::new(TEMPORARY), &format!("trained-{kind}-{backend:?}"))
}

fn ids(value: &Value) -> Vec<i32> {
    let list = value.as_array().expect("a list of tokens");
    list.iter().map(|t| t.as_i64().expect("a token is a number") as i32).collect()
}

/// Every prompt with the last row of its logits, or all rows where they are stored.
fn prompts() -> Vec<Prompt> {
    let (list, tensors) = (json("greedy.json"), TensorFile::open(&reference("reference.safetensors")));
    let (list, tensors) = (list["prompts"].as_array().expect("a list of prompts"), tensors.expect("tensors"));
    let kinds: std::collections::BTreeSet<&str> = list.iter().filter_map(|p| p["kind"].as_str()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["chat", "text"]);
    let prompt = |(n, p): (usize, &Value)| {
        let all = tensors.f32s(&format!("prompt{n}.logits"));
        let logits = all.or_else(|_| tensors.f32s(&format!("prompt{n}.last_logits"))).expect("logits are stored").1;
        let (ids, greedy) = (ids(&p["input_ids"]), ids(&p["greedy_ids"]));
        Prompt { ids, logits, vocab: 8192, greedy, hidden: vec![] }
    };
    list.iter().enumerate().map(prompt).collect()
}

#[test]
fn logits_and_64_greedy_tokens() {
    for backend in BACKENDS {
        let artifact = compile(&exact(&folder(), *backend), "greedy");
        let mut worst = 0f32;
        for (n, prompt) in prompts().iter().enumerate() {
            assert_eq!(prompt.greedy.len(), 64);
            let logits = artifact.logits(&prompt.ids, &[]);
            let error = relative_error(&logits[logits.len() - prompt.logits.len()..], &prompt.logits);
            assert!(error <= TOLERANCE, "{backend:?}: prompt {n}: error {error}");
            assert_eq!(artifact.greedy(prompt), prompt.greedy, "{backend:?}: prompt {n}");
            worst = worst.max(error);
        }
        println!("tinywiki {backend:?} f32: error {worst:.1e}");
    }
}

/// Compares a text's perplexity with the stored one; `allowed` is a fraction.
fn perplexity(artifact: &Artifact, kind: &str, text: &str, allowed: f64) {
    let name = format!("test_{text}.txt");
    let expected = json("perplexity.json")["files"][&name]["nobos.fp32"]["ppl"].as_f64().expect("a stored perplexity");
    let path = reference(&name);
    let found = artifact.json(&["perplexity", path.to_str().expect("paths are text"), "--quiet"]);
    let found = found["perplexity"].as_f64().expect("a perplexity");
    let change = found / expected - 1.0;
    println!("{name:<15} {kind}: perplexity {found:.4}, expected {expected:.4}, {:+.4} %", 100.0 * change);
    assert!(change.abs() <= allowed, "{name}, {kind}: {found}, expected {expected}");
}

#[cfg(feature = "llvm")]
#[test]
fn perplexity_in_f32() {
    let artifact = compile(&exact(&folder(), BackendName::Llvm), "f32");
    for text in ["wiki", "books", "ko"] {
        perplexity(&artifact, "LLVM, f32", text, 0.0005);
    }
}

#[cfg(feature = "llvm")]
#[test]
fn perplexity_by_default() {
    let artifact = compile(&defaults(&folder(), BackendName::Llvm), "default");
    for text in ["wiki", "books", "ko"] {
        perplexity(&artifact, "LLVM, default", text, 0.005);
    }
}

#[test]
fn perplexity_through_cranelift() {
    let artifact = compile(&exact(&folder(), BackendName::Cranelift), "f32");
    perplexity(&artifact, "Cranelift, f32", "ko", 0.0005);
}

/// Anonymous memory that the process had is what was planned, to 10 % or 16 MiB.
#[test]
fn memory_is_as_planned() {
    let artifact = compile(&defaults(&folder(), BACKENDS[0]), "memory");
    let report = artifact.json(&["bench", "-p", "400", "-n", "64", "-r", "1"]);
    let bytes = |name: &str| report[name].as_f64().unwrap_or_else(|| panic!("bench reports {name}: {report}"));
    let (planned, measured) = (bytes("planned_anon_bytes"), bytes("rss_anon_bytes"));
    println!("tinywiki: {:.1} MB planned, {:.1} MB measured", planned / 1e6, measured / 1e6);
    let allowed = (planned / 10.0).max(f64::from(16 << 20));
    assert!((measured - planned).abs() <= allowed, "planned {planned} bytes, measured {measured}");
}
