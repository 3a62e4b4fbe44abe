//! Executables of the fixtures against transformers: logits and greedy tokens of both code
//! generators. The graph interpreter is held against the same references in the crate of models.

use llmc::compile::front;
use llmc::options::BackendName;
use llmc::progress::Progress;
use llmc_ir::DType;
use llmc_tests::artifact::{Artifact, BACKENDS, defaults, exact};
use llmc_tests::reference::{prompts, relative_error};
use llmc_tests::weights;
use std::path::{Path, PathBuf};

const TEMPORARY: &str = env!("CARGO_TARGET_TMPDIR");
const TOLERANCE: f32 = 1e-4;

/// The fixture with its config in the older and in the newer form.
fn models(name: &str) -> [PathBuf; 2] {
    ["config.json", "config.v5.json"].map(|config| weights::model(name, config, &Path::new(TEMPORARY).join("fidelity")))
}

/// Largest error of the logits of both prompts, relative to the largest logit.
fn error(artifact: &Artifact, name: &str) -> f32 {
    let all = prompts(&weights::fixtures().join(name));
    assert_eq!(all.len(), 2, "{name}: prompts");
    let errors = all.iter().map(|p| relative_error(&artifact.logits(&p.ids, &[]), &p.logits));
    errors.fold(0.0, f32::max)
}

/// Everything after the passes sees only the module and the checkpoint, so one module means one
/// program and one set of weights. Returns the number of layers and the weights' type.
fn both_configs_give_one_module(name: &str) -> (usize, DType) {
    let [old, new] = models(name).map(|model| {
        let options = exact(&model, BackendName::Cranelift);
        front(&options, &Progress::Quiet).unwrap_or_else(|e| panic!("{name}: {e}"))
    });
    assert_eq!(old.module.to_string(), new.module.to_string(), "{name}: both configs give one module");
    (old.module.kv.len(), old.opened.checkpoint.dtype())
}

fn exact_values_agree(name: &str, backend: BackendName) {
    let [model, _] = models(name);
    let file = format!("fidelity-{name}-{backend:?}-f32");
    let artifact = Artifact::compile(&exact(&model, backend), Path::new(TEMPORARY), &file);
    let error = error(&artifact, name);
    println!("{name:<18} {backend:?} f32: error {error:.1e}");
    assert!(error <= TOLERANCE, "{name}, {backend:?}: error {error}");
    for (n, prompt) in prompts(&weights::fixtures().join(name)).iter().enumerate() {
        assert_eq!(artifact.greedy(prompt), prompt.greedy, "{name}, {backend:?}: prompt {n}");
    }
}

/// How far default activations may move logits, relative to the largest.
///
/// Each product reads values rounded to bf16, 8 significant bits: a relative error of at most 2^-8
/// of each element, hence about that of the product's norm. The residual stream is the sum of two
/// branches of each layer, and the head reads it rounded once more; allowed is the sum of all these
/// errors as if they all pointed the same way. With f32 activations only keys and values are
/// rounded, to the 11 significant bits of f16.
fn default_bound(layers: usize, dtype: DType) -> f32 {
    let roundings = (2 * layers + 1) as f32;
    match dtype {
        DType::F32 => roundings * 2f32.powi(-11),
        _ => roundings * 2f32.powi(-8),
    }
}

fn defaults_stay_close(name: &str, backend: BackendName, bound: f32) {
    let [model, _] = models(name);
    let file = format!("fidelity-{name}-{backend:?}-default");
    let error = error(&Artifact::compile(&defaults(&model, backend), Path::new(TEMPORARY), &file), name);
    println!("{name:<18} {backend:?} default: error {error:.1e}, allowed {bound:.1e}");
    assert!(error > 0.0 && error <= bound, "{name}, {backend:?}: error {error}, allowed {bound}");
}

fn check(name: &str) {
    let (layers, dtype) = both_configs_give_one_module(name);
    for backend in BACKENDS {
        exact_values_agree(name, *backend);
        defaults_stay_close(name, *backend, default_bound(layers, dtype));
    }
}

macro_rules! fixtures {
    ($($test:ident $name:literal)*) => {
        $(#[test]
        fn $test() {
            check($name);
        })*
    };
}

fixtures! {
    llama2             "llama2"
    llama3_rope        "llama3-rope"
    llama_bias         "llama-bias"
    llama_linear_rope  "llama-linear-rope"
    llama_yarn         "llama-yarn"
    mistral            "mistral"
    qwen2              "qwen2"
    qwen2_sliding      "qwen2-sliding"
    qwen3              "qwen3"
    gpt2               "gpt2"
}
