//! Steps of groups of threads, as a GPU runs them, on the kernel IR's interpreter: every race between threads,
//! every missing wait and every read of what was not written is found in whatever order threads run.

use crate::quantized::{EDGES, ROUNDING, bits, errors};
use llmc_abi::step::Sampling;
use llmc_ir::{DType, Scheme};
use llmc_kernels::Target;
use llmc_kernels::kir::interp::Order;
use llmc_models::{Activations, BuildOptions};
use llmc_passes::{Choice, Pruning};
use llmc_tests::SCHEMES;
use llmc_tests::reference::{prompts, relative_error};
use llmc_tests::step::{Interpreted, Model, Pages, Planning, Runner, Step, meaning, prefill};
use llmc_tests::weights;
use std::path::{Path, PathBuf};

const F32: BuildOptions = BuildOptions { activations: Activations::F32, kv: DType::F32, ctx: 64, keep: None };
const BF16: BuildOptions = BuildOptions { activations: Activations::Bf16, kv: DType::F16, ctx: 64, keep: None };
/// Sums run in another order than in the reference, and split numbers keep 24 bits.
const TOLERANCE: f32 = 1e-4;
/// The same of rows that are rounded to bf16, where a value falls on the edge between two.
const ROUNDED: f32 = 2e-2;

pub(crate) fn folder(name: &str) -> PathBuf {
    weights::model(name, "config.json", &Path::new(env!("CARGO_TARGET_TMPDIR")).join("groups"))
}

/// Every GPU, and one generation with what it alone has.
pub(crate) const TARGETS: [&str; 2] = ["cuda", "cuda:sm_90a"];
/// The variants of a plan: for few tokens, for many, and for one.
pub(crate) const FEW: usize = 0;
pub(crate) const MANY: usize = 1;
pub(crate) const ONE: usize = 2;

/// How to plan for groups of `threads` threads.
pub(crate) fn planning(build: BuildOptions, choice: Choice, threads: usize) -> Planning {
    planning_for(TARGETS[0], build, choice, threads)
}

/// The same for one of the targets.
pub(crate) fn planning_for(target: &str, build: BuildOptions, choice: Choice, threads: usize) -> Planning {
    let target = Target { threads, ..Target::from_name(target).expect("a known target") };
    Planning { build, fuel: None, choice, pruning: Pruning::default(), target, vector_bytes: 64, tokens: 40 }
}

/// A fixture planned for groups of `threads` threads.
fn planned(name: &str, build: BuildOptions, threads: usize) -> Model {
    Model::new(&folder(name), &planning(build, Choice::default(), threads))
}

fn error(model: &Model, name: &str, workers: usize, chunk: usize, order: Order) -> f32 {
    let prompt = prompts(&weights::fixtures().join(name)).swap_remove(0);
    let mut runner = Interpreted::new(model, Pages::new(1, 1, 64), workers, order);
    relative_error(&prefill(&mut runner, 0, &prompt.ids, chunk), &prompt.logits)
}

/// Heads that only turn are finished without the rest of their rows in steps of few tokens, and what tuned steps read of
/// the cache is asked for before; heads with a norm wait.
#[test]
fn only_heads_with_a_norm_wait_for_their_rows() {
    for (name, waits) in [("llama3-rope", false), ("qwen3", true)] {
        let model = Model::new(&folder(name), &planning_for(TARGETS[1], BF16, Choice::default(), 256));
        for variant in [FEW, ONE] {
            let functions = &model.plan.variants[variant].program.functions;
            let text = |end: &str| -> String {
                functions.iter().filter(|f| f.name.ends_with(end)).map(|f| f.to_string()).collect()
            };
            assert_eq!(text("_qkv").contains("last_of"), waits, "{name}, variant {variant}");
            assert!(text("_attention_ahead").contains("fetch"), "{name}, variant {variant}: pages are asked for");
        }
    }
}

#[test]
fn every_fixture_agrees_with_its_reference() {
    for name in ["llama2", "llama3-rope", "llama-bias", "mistral", "qwen2", "qwen3", "gpt2"] {
        for (target, variant, chunk) in [(TARGETS[0], FEW, 5), (TARGETS[1], FEW, 3), (TARGETS[1], ONE, 1)] {
            let how = planning_for(target, F32, Choice::default(), 64);
            let model = Model { variant, ..Model::new(&folder(name), &how) };
            let error = error(&model, name, 3, chunk, Order::Seeded(1));
            assert!(error <= TOLERANCE, "{name}, {target}, {chunk} tokens: {error}");
        }
    }
}

#[test]
fn rounded_rows_stay_close() {
    for name in ["llama2", "qwen3"] {
        let model = planned(name, BF16, 128);
        for (workers, chunk, order) in [(2, 1, Order::Reverse), (5, 3, Order::Seeded(2))] {
            let error = error(&model, name, workers, chunk, order);
            assert!(error <= ROUNDED, "{name}: {error}");
        }
    }
}

/// The form for many tokens, which multiplies by tiles in shared memory.
#[test]
fn tiles_agree() {
    for name in ["llama2", "llama3-rope", "qwen3", "qwen2"] {
        let mut model = planned(name, BF16, 256);
        let exact = error(&model, name, 2, 5, Order::Forward);
        model.variant = MANY;
        for (workers, chunk, order) in [(3, 40, Order::Seeded(3)), (2, 7, Order::Reverse)] {
            let error = error(&model, name, workers, chunk, order);
            assert!(error <= 1.5 * exact.max(4e-3), "{name}: {error}, by rows {exact}");
        }
    }
}

/// How to plan with weights in a scheme.
fn quantized(scheme: Scheme, threads: usize) -> Planning {
    quantized_for(TARGETS[0], scheme, threads)
}

/// The same for one of the targets.
fn quantized_for(target: &str, scheme: Scheme, threads: usize) -> Planning {
    let build = BuildOptions { activations: Activations::Bf16, kv: DType::F32, ctx: 64, keep: None };
    planning_for(target, build, Choice::of(scheme), threads)
}

#[test]
fn quantized_weights_mean_what_the_graph_says() {
    for scheme in SCHEMES.into_iter().filter(|s| !s.is_float()) {
        let mut best = f32::MAX;
        // Norms of heads, and widths that warps do not share evenly; biases, and several rounds of loads.
        for (name, threads, chunk, order, (target, variant)) in [
            ("qwen3", 64, 3, Order::Seeded(3), (TARGETS[0], FEW)),
            ("qwen3", 64, 1, Order::Forward, (TARGETS[1], ONE)),
            ("gpt2", 32, 1, Order::Reverse, (TARGETS[1], FEW)),
            ("llama2", 128, 3, Order::Forward, (TARGETS[1], FEW)),
            ("llama2", 32, 1, Order::Seeded(6), (TARGETS[0], ONE)),
        ] {
            let how = quantized_for(target, scheme, threads);
            let ids = &prompts(&weights::fixtures().join(name)).swap_remove(1).ids[..9];
            let model = Model { variant, ..Model::new(&folder(name), &how) };
            let mut runner = Interpreted::new(&model, Pages::new(1, 1, 64), 3, order);
            let expected = meaning(&folder(name), &how, ids);
            let errors = errors(&prefill(&mut runner, 0, ids, chunk), &expected, ids.len());
            let (least, most) = (errors[0], errors[errors.len() - 1]);
            println!("{name} {scheme}: {least:.1e} to {most:.1e} from the graph's meaning");
            assert!(most <= EDGES, "{name}, {scheme}: errors {errors:?}");
            best = best.min(least);
        }
        assert!(best <= ROUNDING, "{scheme}: no token of any model is exact, the best is off by {best}");
    }
}

/// Codes that stand for floats: by rows of f32 as exactly as others are, by rows of bf16 but for what falls on an edge.
#[test]
fn codes_for_floats_mean_what_the_graph_says() {
    for scheme in SCHEMES.into_iter().filter(|s| s.is_float()) {
        for (name, threads, chunk, order, (target, variant)) in [
            ("qwen3", 64, 3, Order::Seeded(3), (TARGETS[0], FEW)),
            ("gpt2", 32, 1, Order::Reverse, (TARGETS[1], FEW)),
            ("llama2", 32, 1, Order::Seeded(6), (TARGETS[1], ONE)),
        ] {
            for (build, allowed) in [(F32, TOLERANCE), (BF16, ROUNDED)] {
                let how = planning_for(target, build, Choice::of(scheme), threads);
                let ids = &prompts(&weights::fixtures().join(name)).swap_remove(1).ids[..9];
                let model = Model { variant, ..Model::new(&folder(name), &how) };
                let mut runner = Interpreted::new(&model, Pages::new(1, 1, 64), 3, order);
                let found = prefill(&mut runner, 0, ids, chunk);
                let error = relative_error(&found, &meaning(&folder(name), &how, ids));
                assert!(error <= allowed, "{name}, {scheme}: {error}");
            }
        }
    }
}

/// The form for many tokens multiplies them by tiles too.
#[test]
fn tiles_of_quantized_weights_mean_what_the_graph_says() {
    for scheme in SCHEMES {
        let mut best = f32::MAX;
        for (name, workers, order) in [("qwen3", 3, Order::Seeded(7)), ("llama2", 2, Order::Reverse)] {
            let how = quantized(scheme, 256);
            let ids = &prompts(&weights::fixtures().join(name)).swap_remove(1).ids;
            let model = Model { variant: MANY, ..Model::new(&folder(name), &how) };
            let unit = if scheme.is_float() { "mma.bf16" } else { "mma.u8s8" };
            assert!(model.program().to_string().contains(unit), "{scheme}");
            let mut runner = Interpreted::new(&model, Pages::new(1, 1, 64), workers, order);
            let expected = meaning(&folder(name), &how, ids);
            let errors = errors(&prefill(&mut runner, 0, ids, ids.len()), &expected, ids.len());
            let (least, most) = (errors[0], errors[ids.len() - 1]);
            println!("{name} {scheme}: {least:.1e} to {most:.1e} from the graph's meaning");
            let allowed = if scheme.is_float() { ROUNDED } else { EDGES };
            assert!(most <= allowed, "{name}, {scheme}: errors {errors:?}");
            best = best.min(least);
        }
        let exact = if scheme.is_float() { ROUNDED } else { ROUNDING };
        assert!(best <= exact, "{scheme}: no token of any model is exact, the best is off by {best}");
    }
}

/// Keys and values of 8 bits: exact but for what falls on the edge between two numbers.
#[test]
fn caches_of_8_bits_mean_what_the_graph_says() {
    [DType::I8, DType::E4m3].into_iter().for_each(cache_means_what_the_graph_says);
}

fn cache_means_what_the_graph_says(kv: DType) {
    let build = BuildOptions { kv, ..F32 };
    let mut best = f32::MAX;
    for (name, threads, chunk, (target, variant)) in [
        ("qwen3", 64, 3, (TARGETS[0], FEW)),
        ("llama2", 64, 1, (TARGETS[1], ONE)),
        ("gpt2", 32, 5, (TARGETS[1], FEW)),
        ("llama3-rope", 256, 40, (TARGETS[0], MANY)),
    ] {
        let how = planning_for(target, build, Choice::default(), threads);
        let ids = &prompts(&weights::fixtures().join(name)).swap_remove(1).ids;
        let model = Model { variant, ..Model::new(&folder(name), &how) };
        let mut runner = Interpreted::new(&model, Pages::new(1, 1, 64), 3, Order::Seeded(8));
        let found = prefill(&mut runner, 0, ids, chunk.min(ids.len()));
        let errors = errors(&found, &meaning(&folder(name), &how, ids), ids.len());
        let (least, most) = (errors[0], errors[errors.len() - 1]);
        println!("{name}, {kv}: {least:.1e} to {most:.1e} from the graph's meaning");
        assert!(most <= EDGES, "{name}, {kv}: errors {errors:?}");
        best = best.min(least);
    }
    assert!(best <= ROUNDING, "{kv}: no token of any model is exact, the best is off by {best}");
}

#[test]
fn steps_choose_the_largest_logits() {
    let model = planned("llama2", F32, 64);
    let prompt = prompts(&weights::fixtures().join("llama2")).swap_remove(0);
    let mut runner = Interpreted::new(&model, Pages::new(1, 1, 64), 3, Order::Seeded(3));
    runner.sampling = Sampling { choose: 1, ..Sampling::NONE };
    let logits = runner.step(&Step::of(0, 0, &prompt.ids));
    let largest = |row: &[f32]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as i32;
    let expected: Vec<i32> = logits.chunks(model.vocab).map(largest).collect();
    assert_eq!(runner.chosen, expected);
}

#[test]
fn quantized_bits_depend_on_no_number_of_workers() {
    for scheme in [Scheme::W4, Scheme::W5, Scheme::W8A8, Scheme::Int4 { group: 32 }, Scheme::Int4Asym { group: 64 }] {
        let model = Model::new(&folder("llama-bias"), &quantized(scheme, 64));
        let ids = &prompts(&weights::fixtures().join("llama-bias")).swap_remove(1).ids[..8];
        let run = |workers, chunk, order| {
            bits(&prefill(&mut Interpreted::new(&model, Pages::new(1, 1, 64), workers, order), 0, ids, chunk))
        };
        let first = run(2, 8, Order::Seeded(4));
        assert!(run(5, 8, Order::Reverse) == first, "{scheme}: other bits with 5 workers");
        assert!(run(5, 4, Order::Forward) == first, "{scheme}: other bits in chunks of 4");
    }
}

/// Every op a kernel of its own.
#[test]
fn steps_without_rewriting() {
    for name in ["llama2", "qwen3", "gpt2", "qwen2-sliding"] {
        let how = Planning { fuel: Some(0), ..planning(F32, Choice::default(), 64) };
        let model = Model::new(&folder(name), &how);
        let error = error(&model, name, 3, 4, Order::Seeded(5));
        assert!(error <= TOLERANCE, "{name}: {error}");
    }
}
