//! What the passes are worth on whole models: with rewriting off the same numbers come out, of more
//! kernels, more slowly.

use llmc::compile::{Front, front, plan};
use llmc::options::Options;
use llmc::progress::Progress;
use llmc_tests::artifact::{Artifact, BACKENDS, defaults, exact};
use llmc_tests::reference::{prompts, relative_error};
use llmc_tests::weights;
use std::path::{Path, PathBuf};

const TEMPORARY: &str = env!("CARGO_TARGET_TMPDIR");
const TOLERANCE: f32 = 1e-4;
const MODELS: [&str; 3] = ["llama2", "gpt2", "qwen3"];

fn model(name: &str) -> PathBuf {
    weights::model(name, "config.json", &Path::new(TEMPORARY).join("rewriting"))
}

fn unfused(options: Options) -> Options {
    Options { fuel: Some(0), ..options }
}

fn optimized(options: &Options) -> Front {
    front(options, &Progress::Quiet).unwrap_or_else(|e| panic!("{e}"))
}

/// Number of kernels of each block.
fn kernels(options: &Options) -> Vec<usize> {
    let front = optimized(options);
    let plan = plan(&front, options).unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<&str> = plan.variants[0].program.functions.iter().map(|f| f.name.as_str()).collect();
    let of = |block: &str| names.iter().filter(|n| n.contains(&format!("_{block}_"))).count();
    front.module.blocks.iter().map(|b| of(&b.name)).collect()
}

#[test]
fn a_layer_is_five_kernels_and_more_without_rewriting() {
    for name in MODELS {
        let options = exact(&model(name), BACKENDS[0]);
        let (fused, unfused) = (kernels(&options), kernels(&unfused(options)));
        println!("{name}: {fused:?} kernels in embed, layer and head; {unfused:?} without rewriting");
        assert_eq!(fused[1], 5, "{name}: kernels of a layer");
        assert!(unfused[1] >= 15, "{name}: {unfused:?}");
        assert!(fused.iter().zip(&unfused).all(|(f, u)| f <= u), "{name}: {fused:?}, {unfused:?}");
    }
}

#[test]
fn without_fuel_no_op_is_fused() {
    for name in MODELS {
        let front = optimized(&unfused(exact(&model(name), BACKENDS[0])));
        let mut ops = front.module.blocks.iter().flat_map(|b| b.graph.nodes().map(|n| b.graph.op(n)));
        assert!(ops.all(|op| !op.is_fused()), "{name}");
    }
}

#[test]
fn without_rewriting_the_numbers_stay() {
    for name in MODELS {
        for backend in BACKENDS {
            let options = unfused(exact(&model(name), *backend));
            let artifact = Artifact::compile(&options, Path::new(TEMPORARY), &format!("unfused-{name}-{backend:?}"));
            for (n, prompt) in prompts(&weights::fixtures().join(name)).iter().enumerate() {
                let error = relative_error(&artifact.logits(&prompt.ids, &[]), &prompt.logits);
                assert!(error <= TOLERANCE, "{name}, {backend:?}: prompt {n}: error {error}");
            }
        }
    }
}

/// Tokens per second of decoding on one thread, the best of several times.
fn decode(artifact: &Artifact) -> f64 {
    let report = artifact.json(&["bench", "-p", "8", "-n", "50", "-r", "9", "-t", "1"]);
    let all = report["decode_tok_s_all"].as_array().expect("bench reports decode_tok_s_all");
    all.iter().filter_map(|v| v.as_f64()).fold(0.0, f64::max)
}

#[test]
fn without_rewriting_decoding_is_slower() {
    const RUNS: usize = 4;
    let options = defaults(&model(MODELS[0]), BACKENDS[0]);
    let compile = |options: &Options, name: &str| Artifact::compile(options, Path::new(TEMPORARY), name);
    let fused = compile(&options, "speed-fused");
    let unfused = compile(&unfused(options), "speed-unfused");
    // In turns, and the best of each: what else a machine does only ever slows down.
    let (mut fast, mut slow) = (0.0f64, 0.0f64);
    for _ in 0..RUNS {
        (fast, slow) = (fast.max(decode(&fused)), slow.max(decode(&unfused)));
    }
    println!("decode: {fast:.0} tokens/s, {slow:.0} without rewriting");
    let ratio = fast / slow;
    println!("rewriting makes decoding {ratio:.2} times as fast");
    assert!(ratio > 1.0, "rewriting makes decoding slower: {ratio:.3}");
}
