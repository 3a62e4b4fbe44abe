//! A token's logits depend on nothing but the tokens before it: not on threads, not on how the
//! prompt is cut into steps, not on other sequences in the step, not on where cache pages lie.
//! All comparisons are of bits.

use llmc::options::{BackendName, Options};
use llmc_codegen_cranelift::CraneliftBackend;
use llmc_ir::DType;
use llmc_kernels::Backend;
use llmc_models::{Activations, BuildOptions};
use llmc_tests::artifact::{Artifact, BACKENDS, defaults, exact};
use llmc_tests::reference::{Prompt, prompts, relative_error};
use llmc_tests::step::{Model, Native, Pages, Planning, Runner, Step, prefill};
use llmc_tests::weights;
use std::path::{Path, PathBuf};

const TEMPORARY: &str = env!("CARGO_TARGET_TMPDIR");

fn model(name: &str) -> PathBuf {
    weights::model(name, "config.json", &Path::new(TEMPORARY).join("invariance"))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// One artifact with every number of threads and every cut of the prompt.
fn runs_agree(options: &Options, ids: &[i32], name: &str) {
    let backend = options.backend.expect("the test names a back end");
    let name = format!("invariance-{name}-{backend:?}-{:?}", options.kv);
    let artifact = Artifact::compile(options, Path::new(TEMPORARY), &name);
    let expected = bits(&artifact.logits(ids, &["-t", "1"]));
    for threads in ["1", "2", "3", "8"] {
        for chunk in [ids.len().to_string().as_str(), "5", "1"] {
            let found = bits(&artifact.logits(ids, &["-t", threads, "--chunk", chunk]));
            assert!(found == expected, "{name}: {threads} threads, chunks of {chunk}: other bits");
        }
    }
}

fn fixture_agrees(name: &str) {
    let ids = &prompts(&weights::fixtures().join(name))[1].ids;
    for backend in BACKENDS {
        for options in [exact, defaults] {
            runs_agree(&options(&model(name), *backend), ids, name);
        }
    }
}

#[test]
fn threads_and_chunks_llama2() {
    fixture_agrees("llama2");
}

#[test]
fn threads_and_chunks_qwen3() {
    fixture_agrees("qwen3");
}

#[test]
fn threads_and_chunks_gpt2() {
    fixture_agrees("gpt2");
}

/// More tokens than a step gives rows, and several cache pages.
fn trained_agrees(backend: BackendName) {
    let folder = weights::fixtures().join("tinywiki");
    let ids: Vec<i32> = (0..75).map(|i| (i * 37 + 5) % 8000).collect();
    runs_agree(&defaults(&folder, backend), &ids, "tinywiki");
}

#[cfg(feature = "llvm")]
#[test]
fn threads_and_chunks_of_the_trained_model() {
    trained_agrees(BackendName::Llvm);
}

#[test]
fn threads_and_chunks_of_the_trained_model_through_cranelift() {
    trained_agrees(BackendName::Cranelift);
}

/// The code generators with the widest vectors they keep in a register.
pub fn backends() -> Vec<(Box<dyn Backend>, usize)> {
    vec![
        #[cfg(feature = "llvm")]
        (Box::new(llmc_codegen_llvm::LlvmBackend), 64),
        (Box::new(CraneliftBackend), 16),
    ]
}

fn planned(name: &str, kv: DType, vector_bytes: usize) -> Model {
    let build = BuildOptions { activations: Activations::F32, kv, ctx: 64, keep: None };
    Model::new(&model(name), &Planning::plain(build, vector_bytes, 64))
}

/// A fixture's second prompt, which is longer than a cache page.
fn prompt(name: &str) -> Prompt {
    prompts(&weights::fixtures().join(name)).swap_remove(1)
}

/// Tokens of three sequences in turns, sequence 0 being `ids`; which rows are those of sequence 0.
fn mixed(ids: &[i32], start: usize) -> (Step, Vec<usize>) {
    let (mut step, mut own) = (Step::default(), Vec::new());
    for (i, id) in ids.iter().enumerate() {
        step.push(1, start + i, (id * 7 + 1) % 200);
        own.push(step.ids.len());
        step.push(0, start + i, *id);
        if i % 2 == 0 {
            step.push(2, (start + i) / 2, (id * 3 + 2) % 200);
        }
    }
    (step, own)
}

#[test]
fn neighbours_in_a_step_change_nothing() {
    for (name, kv) in [("llama2", DType::F32), ("qwen3", DType::F16)] {
        let prompt = prompt(name);
        for (backend, vector_bytes) in backends() {
            let model = planned(name, kv, vector_bytes);
            let pages = Pages::new(3, 3, 64);
            let alone = prefill(&mut Native::new(&model, &*backend, pages.clone(), 2), 0, &prompt.ids, 64);
            let mut crowd = Native::new(&model, &*backend, pages, 3);
            let mut found = Vec::new();
            for (start, end) in [(0, 20), (20, prompt.ids.len())] {
                let (step, own) = mixed(&prompt.ids[start..end], start);
                let logits = crowd.step(&step);
                own.iter().for_each(|row| found.extend(&logits[row * model.vocab..][..model.vocab]));
            }
            assert!(bits(&found) == bits(&alone), "{name}, {}: other bits among others", backend.name());
        }
    }
}

/// A cache of 16 GiB, of which a few pages are touched: their offsets pass 2^32 bytes and their
/// elements pass 2^31.
#[test]
fn cache_pages_past_2_to_the_31_elements() {
    const OFFSET: usize = 16 << 30;
    for kv in [DType::F32, DType::F16] {
        let prompt = prompt("llama2");
        for (backend, vector_bytes) in backends() {
            let model = planned("llama2", kv, vector_bytes);
            let first = OFFSET / model.plan.kv.page_bytes;
            assert!(first * model.plan.kv.page_bytes / kv.size() > 1 << 31);
            let logits = |first: usize| {
                let pages = Pages::new(i32::try_from(first).expect("pages have 31 bits"), 1, 64);
                prefill(&mut Native::new(&model, &*backend, pages, 2), 0, &prompt.ids, 20)
            };
            let far = logits(first);
            assert!(bits(&far) == bits(&logits(0)), "{}, {kv}: far pages change bits", backend.name());
            let error = relative_error(&far, &prompt.logits);
            assert!(error <= if kv == DType::F32 { 1e-4 } else { 1e-2 }, "{}, {kv}: error {error}", backend.name());
        }
    }
}

/// Asserts that every cut of the work (workers, tokens of a chunk) gives the logits of a sequence with the bits
/// `known`, or with the first cut's where none are known yet.
pub fn same_in_every_cut(
    (model, backend, pages): (&Model, &dyn Backend, &Pages),
    ids: &[i32],
    cuts: &[(usize, usize)],
    known: &mut Option<Vec<u32>>,
    what: &str,
) {
    for (workers, chunk) in cuts {
        let mut native = Native::new(model, backend, pages.clone(), *workers);
        let found = bits(&prefill(&mut native, 0, ids, *chunk));
        let expected = known.get_or_insert_with(|| found.clone());
        assert!(found == *expected, "{what}, {}: {workers} workers, chunks of {chunk}", backend.name());
    }
}
