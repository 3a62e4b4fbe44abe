//! Whole models compiled for AArch64, whose code an emulator runs.

use crate::invariance::backends;
use crate::quantized::bits;
use llmc_ir::{DType, Scheme};
use llmc_kernels::Target;
use llmc_models::{Activations, BuildOptions};
use llmc_passes::Choice;
use llmc_tests::emulated;
use llmc_tests::reference::{argmax, prompts, relative_error};
use llmc_tests::step::{Foreign, Model, Native, Pages, Planning, prefill};
use llmc_tests::weights;
use std::path::Path;

const F32: BuildOptions = BuildOptions { activations: Activations::F32, kv: DType::F32, ctx: 64, keep: None };
/// Positions of the pages.
const POSITIONS: usize = 64;

const BF16: BuildOptions = BuildOptions { activations: Activations::Bf16, kv: DType::F16, ..F32 };

fn planning(build: BuildOptions, target: Target, choice: Choice) -> Planning {
    Planning { choice, target, ..Planning::plain(build, 16, 16) }
}

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("aarch64").join(name)
}

#[test]
fn an_emulator_agrees_with_the_references() {
    if !emulated::available() {
        return;
    }
    let model_folder = weights::model("llama3-rope", "config.json", &folder("models"));
    let prompt = prompts(&weights::fixtures().join("llama3-rope")).swap_remove(1);
    for (target, (backend, name)) in
        emulated::targets().flat_map(|t| backends().into_iter().map(move |b| (t.clone(), b)))
    {
        let model = Model::new(&model_folder, &planning(F32, target.clone(), Choice::default()));
        let pages = Pages::new(1, 1, POSITIONS);
        let at = folder(&format!("{name}-{}", target.name));
        let found = prefill(&mut Foreign::new(&model, &*backend, pages, 2, &at), 0, &prompt.ids, 16);
        let error = relative_error(&found, &prompt.logits);
        assert!(error <= 1e-4, "{name}, {}: {error:e}", target.name);
        let last = |logits: &[f32]| argmax(&logits[logits.len() - prompt.vocab..]);
        assert_eq!(last(&found), last(&prompt.logits), "{name}, {}", target.name);
    }
}

/// Quantized models on processors with products of bytes, and one of floats.
const QUANTIZED: [Scheme; 6] = [
    Scheme::W8A8,
    Scheme::W8 { group: 32 },
    Scheme::W6,
    Scheme::W4,
    Scheme::Int4Asym { group: 32 },
    Scheme::Nf4 { group: 32 },
];

#[test]
fn an_emulator_computes_the_bits_of_this_machine() {
    let x86 = Target::from_name("x86-64-v3").expect("a known target");
    if !emulated::available() || x86.features & !llmc_abi::features::detect() != 0 {
        return;
    }
    let model_folder = weights::model("llama2", "config.json", &folder("models"));
    let ids = prompts(&weights::fixtures().join("llama2")).swap_remove(1).ids;
    let (backend, name) = backends().swap_remove(0);
    for scheme in QUANTIZED {
        let choice = Choice::of(scheme);
        let here = Model::new(&model_folder, &planning(BF16, x86.clone(), choice));
        let expected = prefill(&mut Native::new(&here, &*backend, Pages::new(1, 1, POSITIONS), 2), 0, &ids, 16);
        for target in emulated::targets() {
            let there = Model::new(&model_folder, &planning(BF16, target.clone(), choice));
            let at = folder(&format!("{scheme}-{}", target.name));
            let pages = Pages::new(1, 1, POSITIONS);
            let found = prefill(&mut Foreign::new(&there, &*backend, pages, 2, &at), 0, &ids, 16);
            assert_eq!(bits(&found), bits(&expected), "{scheme}, {name}, {}", target.name);
        }
    }
}
