//! Models with quantized weights: the kernels against the graph's meaning, every code generator and
//! every cut of the work against each other.

use crate::invariance::backends;
use llmc::compile::front;
use llmc::options::{BackendName, Options};
use llmc::progress::Progress;
use llmc_ir::interp::Interp;
use llmc_ir::{DType, Scheme};
use llmc_kernels::Target;
use llmc_kernels::kir::interp::Order;
use llmc_models::{Activations, BuildOptions};
use llmc_passes::Choice;
use llmc_tests::SCHEMES;
use llmc_tests::amx;
use llmc_tests::artifact::{Artifact, BACKENDS, defaults};
use llmc_tests::reference::{Prompt, prompts};
use llmc_tests::step::{Interpreted, Model, Native, Pages, Planning, prefill};
use llmc_tests::weights;
use std::path::{Path, PathBuf};

const TEMPORARY: &str = env!("CARGO_TARGET_TMPDIR");

fn model(name: &str) -> PathBuf {
    weights::model(name, "config.json", &Path::new(TEMPORARY).join("quantized"))
}

fn prompt(name: &str) -> Prompt {
    prompts(&weights::fixtures().join(name)).swap_remove(1)
}

fn quantized(name: &str, scheme: Scheme, backend: BackendName) -> Options {
    Options { quantize: Some(scheme), ..defaults(&model(name), backend) }
}

/// Whether this machine runs code for a target.
fn runs(target: &str) -> bool {
    let available = amx::native();
    target == "cpu" || Target::from_name(target).is_some_and(|t| t.features & !available == 0)
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Logits of the graph that was chosen, by the meaning of its ops.
fn meaning(options: &Options, ids: &[i32]) -> Vec<f32> {
    let front = front(options, &Progress::Quiet).unwrap_or_else(|e| panic!("{e}"));
    let positions: Vec<i32> = (0..ids.len() as i32).collect();
    let mut interp = Interp::new(&front.module, &front.opened.checkpoint);
    let logits = interp.step(ids, &positions, &vec![0; ids.len()], &positions).unwrap_or_else(|e| panic!("{e}"));
    logits.as_f32().expect("logits are f32").to_vec()
}

/// What f32 sums in another order may move, relative to the largest logit.
pub const ROUNDING: f32 = 1e-5;
/// The same where a value on the edge between two 8-bit integers falls the other way for it.
pub const EDGES: f32 = 6e-2;

/// Errors of the tokens' logits, relative to the largest of all, in ascending order.
pub fn errors(found: &[f32], expected: &[f32], tokens: usize) -> Vec<f32> {
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    let width = expected.len() / tokens;
    let rows = found.chunks_exact(width).zip(expected.chunks_exact(width));
    let error = |(a, b): (&[f32], &[f32])| a.iter().zip(b).fold(0f32, |m, (x, y)| m.max((x - y).abs())) / largest;
    let mut errors: Vec<f32> = rows.map(error).collect();
    errors.sort_by(f32::total_cmp);
    errors
}

#[test]
fn kernels_compute_what_the_graph_means() {
    for scheme in SCHEMES {
        let mut best = f32::MAX;
        // Weights that are transposed, biases, norms of heads.
        for name in ["gpt2", "qwen2", "qwen3"] {
            let prompt = prompt(name);
            let options = quantized(name, scheme, BACKENDS[0]);
            let expected = meaning(&options, &prompt.ids);
            let artifact = Artifact::compile(&options, Path::new(TEMPORARY), &format!("quantized-{name}-{scheme}"));
            let errors = errors(&artifact.logits(&prompt.ids, &[]), &expected, prompt.ids.len());
            let (least, most) = (errors[0], errors[errors.len() - 1]);
            println!("{name} {scheme}: {least:.1e} to {most:.1e} from the graph's meaning");
            assert!(most <= EDGES, "{name}, {scheme}: errors {errors:?}");
            best = best.min(least);
        }
        assert!(best <= ROUNDING, "{scheme}: no token of any model is exact, the best is off by {best}");
    }
}

#[test]
fn bits_depend_on_nothing_but_the_sequence() {
    let prompt = prompt("qwen3");
    for scheme in SCHEMES {
        let mut first: Option<Vec<u32>> = None;
        let levels = ["cpu", "x86-64-v3"].into_iter().filter(|t| runs(t));
        for (backend, level) in levels.flat_map(|level| BACKENDS.iter().map(move |b| (b, level))) {
            let options = Options { targets: vec![level.into()], ..quantized("qwen3", scheme, *backend) };
            let name = format!("quantized-bits-{scheme}-{backend:?}-{level}");
            let artifact = Artifact::compile(&options, Path::new(TEMPORARY), &name);
            for (threads, chunk) in [("1", "33"), ("2", "5"), ("3", "1"), ("2", "13")] {
                let found = bits(&artifact.logits(&prompt.ids, &["-t", threads, "--chunk", chunk]));
                let expected = first.get_or_insert_with(|| found.clone());
                assert!(found == *expected, "{name}: other bits with {threads} threads, chunks of {chunk}");
            }
        }
    }
}

/// Whole steps on the kernel IR's interpreter: no race, no access outside a buffer, and the same bits.
#[test]
fn the_interpreter_finds_nothing() {
    let prompt = prompt("llama2");
    let ids = &prompt.ids[..17];
    let build = BuildOptions { activations: Activations::Bf16, kv: DType::F16, ctx: 64, keep: None };
    for scheme in
        [Scheme::W8A8, Scheme::W4, Scheme::W5, Scheme::Int4Asym { group: 64 }, Scheme::Nf4 { group: 64 }, Scheme::Fp8]
    {
        let choice = Choice::of(scheme);
        let (backend, vector_bytes) = backends().swap_remove(0);
        let how = Planning { choice, ..Planning::plain(build, vector_bytes, 20) };
        let model = Model::new(&model("llama2"), &how);
        let pages = Pages::new(1, 1, 64);
        let native = bits(&prefill(&mut Native::new(&model, &*backend, pages.clone(), 2), 0, ids, 17));
        for (workers, chunk, order) in [(3, 17, Order::Seeded(1)), (2, 13, Order::Reverse), (2, 3, Order::Forward)] {
            let mut interpreted = Interpreted::new(&model, pages.clone(), workers, order);
            let found = bits(&prefill(&mut interpreted, 0, ids, chunk));
            assert!(found == native, "{scheme}: {workers} workers, chunks of {chunk}: other bits");
        }
    }
}
