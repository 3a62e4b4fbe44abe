//! The graph interpreter on opened fixtures agrees with transformers' stored logits.

use crate::reference::{Prompt, argmax, prompts, relative_error};
use crate::weights;
use llmc_ir::interp::Interp;
use llmc_ir::{DType, Module, Tensor};
use llmc_models::{Activations, BuildOptions, Opened};
use std::path::Path;

const F32: BuildOptions = BuildOptions { activations: Activations::F32, kv: DType::F32, ctx: 64, keep: None };
const TOLERANCE: f32 = 1e-4;

fn open(name: &str, config: &str) -> Opened {
    let folder = weights::model(name, config, Path::new(env!("CARGO_TARGET_TMPDIR")));
    llmc_models::open(&folder).unwrap_or_else(|e| panic!("{name} {config}: {e}"))
}

fn build(opened: &Opened, options: &BuildOptions) -> Module {
    let module = llmc_models::build(opened, options).expect("the fixture builds");
    llmc_ir::verify(&module).expect("the builder makes valid modules");
    assert!(module.blocks.iter().all(|b| b.graph.nodes().all(|n| !b.graph.op(n).is_fused())), "no fused op");
    module
}

fn row(logits: &Tensor, i: usize) -> &[f32] {
    let vocab = logits.shape[1];
    &logits.as_f32().expect("logits are f32")[i * vocab..(i + 1) * vocab]
}

/// Runs a prompt in one chunk and returns the logits of all rows; the cache keeps the prompt.
fn prefill(interp: &mut Interp, prompt: &Prompt, observe: &mut dyn FnMut(usize, &str, &Tensor)) -> Tensor {
    let positions: Vec<i32> = (0..prompt.ids.len() as i32).collect();
    let seqs = vec![0; prompt.ids.len()];
    interp.step_observed(&prompt.ids, &positions, &seqs, &positions, observe).expect("the interpreter runs")
}

fn greedy(interp: &mut Interp, prompt: &Prompt, mut next: i32) -> Vec<i32> {
    let mut tokens = vec![next];
    while tokens.len() < prompt.greedy.len() {
        let position = (prompt.ids.len() + tokens.len() - 1) as i32;
        let logits = interp.step(&[next], &[position], &[0], &[0]).expect("the interpreter runs");
        next = argmax(row(&logits, 0));
        tokens.push(next);
    }
    tokens
}

/// Opens both forms of the config, compares logits, hidden states and greedy tokens; returns the
/// number of blocks.
fn check(name: &str) -> usize {
    let opened = open(name, "config.json");
    let module = build(&opened, &F32);
    let v5 = build(&open(name, "config.v5.json"), &F32);
    assert_eq!(module.to_string(), v5.to_string(), "{name}: both forms of the config give one module");

    let all = prompts(&weights::fixtures().join(name));
    assert_eq!(all.len(), 2, "{name}: prompts");
    let mut interp = Interp::new(&module, &opened.checkpoint);
    for (n, prompt) in all.iter().enumerate() {
        interp.reset();
        let mut hidden = Vec::new();
        let logits = prefill(&mut interp, prompt, &mut |_, value, tensor| {
            if value == "hidden" {
                hidden.push(tensor.as_f32().expect("hidden is f32").to_vec());
            }
        });
        for (l, expected) in prompt.hidden.iter().enumerate() {
            let error = relative_error(&hidden[l], expected);
            assert!(error <= TOLERANCE, "{name}: prompt {n}, hidden {l}: error {error}");
        }
        let error = relative_error(logits.as_f32().expect("logits are f32"), &prompt.logits);
        assert!(error <= TOLERANCE, "{name}: prompt {n}: error {error}");
        assert_eq!(logits.shape[1], prompt.vocab);
        let first = argmax(row(&logits, prompt.ids.len() - 1));
        assert_eq!(greedy(&mut interp, prompt, first), prompt.greedy, "{name}: prompt {n}");
    }
    module.blocks.len()
}

macro_rules! fixtures {
    ($($test:ident $name:literal $blocks:literal)*) => {
        $(#[test]
        fn $test() {
            assert_eq!(check($name), $blocks, "equal layers are one block, between embed and head");
        })*
    };
}

fixtures! {
    llama2             "llama2"             3
    llama3_rope        "llama3-rope"        3
    llama_bias         "llama-bias"         3
    llama_linear_rope  "llama-linear-rope"  3
    llama_yarn         "llama-yarn"         3
    mistral            "mistral"            3
    qwen2              "qwen2"              3
    qwen2_sliding      "qwen2-sliding"      4
    qwen3              "qwen3"              3
    gpt2               "gpt2"               3
}

#[test]
fn narrow_activations_stay_close() {
    let opened = open("llama2", "config.json");
    let options = BuildOptions { activations: Activations::Bf16, kv: DType::F16, ..F32 };
    let module = build(&opened, &options);
    let prompt = &prompts(&weights::fixtures().join("llama2"))[1];
    let logits = prefill(&mut Interp::new(&module, &opened.checkpoint), prompt, &mut |_, _, _| ());
    let error = relative_error(logits.as_f32().expect("logits are f32"), &prompt.logits);
    assert!((TOLERANCE..0.03).contains(&error), "bf16 activations: error {error}");
}

#[test]
fn stored_counts_and_types() {
    for (name, count, dtype) in
        [("llama2", 484_224, DType::F16), ("qwen3", 476_320, DType::Bf16), ("gpt2", 437_760, DType::F32)]
    {
        let opened = open(name, "config.json");
        assert_eq!(opened.checkpoint.parameter_count(), count, "{name}");
        assert_eq!(opened.checkpoint.dtype(), dtype, "{name}");
    }
}

#[test]
fn a_learned_context_is_a_limit() {
    let opened = open("gpt2", "config.json");
    let e = llmc_models::build(&opened, &BuildOptions { ctx: 65, ..F32 }).unwrap_err();
    assert!(e.to_string().contains("65 is more than the 64 positions"), "{e}");
    assert_eq!(e.class(), llmc_models::Class::BadUsage);
}

#[test]
fn the_trained_model_opens_with_its_text() {
    let opened = llmc_models::open(&weights::fixtures().join("tinywiki/model.safetensors")).expect("tinywiki opens");
    assert_eq!(opened.name, "tinywiki");
    assert_eq!((opened.text.bos, opened.text.eos.as_slice()), (Some(8187), &[8188, 8191][..]));
    assert_eq!((opened.text.pad, opened.text.add_bos), (Some(8189), Some(true)));
    assert!(opened.text.chat_template.as_ref().is_some_and(|t| t.contains("<|im_start|>")));
    assert!(opened.tokenizer_json.is_some());

    let reference = weights::fixtures().join("tinywiki/reference/reference.safetensors");
    let reference = llmc_models::TensorFile::open(&reference).expect("tinywiki has references");
    let ids: Vec<i32> = reference.i64s("prompt0.input_ids").expect("ids").iter().map(|id| *id as i32).collect();
    let positions: Vec<i32> = (0..ids.len() as i32).collect();
    let module = build(&opened, &F32);
    let rows = &positions[ids.len() - 1..];
    let mut interp = Interp::new(&module, &opened.checkpoint);
    let logits = interp.step(&ids, &positions, &vec![0; ids.len()], rows).expect("the interpreter runs");
    let (_, expected) = reference.f32s("prompt0.last_logits").expect("logits");
    let error = relative_error(logits.as_f32().expect("logits are f32"), &expected);
    assert!(error <= TOLERANCE, "error {error}");
}
