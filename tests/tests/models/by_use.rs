//! Texts that pass the context, of which those positions stay that attention has used most.

use crate::invariance::backends;
use crate::quantized::bits;
use llmc::options::{CtxPolicy, Kv, Options};
use llmc_abi::manifest::Keep;
use llmc_ir::DType;
use llmc_kernels::kir::interp::Order;
use llmc_models::{Activations, BuildOptions};
use llmc_tests::artifact::{Artifact, BACKENDS, exact};
use llmc_tests::step::{Interpreted, Model, Native, Pages, Planning, meaning, prefill};
use llmc_tests::weights;
use std::path::{Path, PathBuf};

const TEMPORARY: &str = env!("CARGO_TARGET_TMPDIR");
/// Three pages, and one that is being filled.
const KEEP: Keep = Keep { sinks: 0, window: 4, by_use: true };
/// Tokens that fit: nothing is forgotten.
const FITTING: usize = 100;
/// Tokens of a text that passes three pages several times.
const TOKENS: usize = 250;

fn folder(name: &str) -> PathBuf {
    weights::model(name, "config.json", &Path::new(TEMPORARY).join("by-use"))
}

fn text(tokens: usize) -> Vec<i32> {
    (0..tokens as i32).map(|i| (i * 37 + i * i / 7 + 11) % 120).collect()
}

fn build(kv: DType) -> BuildOptions {
    BuildOptions { activations: Activations::F32, kv, ctx: 128, keep: Some(KEEP) }
}

fn error(found: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

/// Query heads of a key head of the fixture.
const GROUP: f32 = 2.0;

#[test]
fn attention_is_counted() {
    let ids = text(FITTING);
    let (mut logits, mut counts): (Option<Vec<u32>>, Option<Vec<u32>>) = (None, None);
    for (backend, vector_bytes) in backends() {
        let how = Planning::plain(build(DType::F32), vector_bytes, FITTING);
        let model = Model::new(&folder("llama3-rope"), &how);
        for (workers, chunk) in [(1, FITTING), (2, 7), (3, 1), (2, 64)] {
            let mut native = Native::new(&model, &*backend, Pages::new(1, 1, FITTING), workers);
            let found = prefill(&mut native, 0, &ids, chunk);
            assert!(error(&found, &meaning(&folder("llama3-rope"), &how, &ids)) <= 1e-5);
            assert!(*logits.get_or_insert_with(|| bits(&found)) == bits(&found), "{workers} workers, {chunk}");
            let counted = native.counts(FITTING);
            let all: Vec<f32> = counted.concat();
            assert!(*counts.get_or_insert_with(|| bits(&all)) == bits(&all), "{workers} workers, {chunk}");
            for head in counted {
                // Each query head of each token has one to give, and only later tokens see a position.
                let sum: f32 = head.iter().sum();
                assert!((sum - GROUP * FITTING as f32).abs() < 1e-2, "{sum}");
                let seen = |(p, count): (usize, &f32)| *count > 0.0 && *count <= GROUP * (FITTING - p) as f32;
                assert!(head.iter().enumerate().all(seen), "{head:?}");
            }
        }
    }
}

#[test]
fn the_interpreter_finds_nothing() {
    let (backend, vector_bytes) = backends().swap_remove(0);
    let model = Model::new(&folder("llama2"), &Planning::plain(build(DType::F16), vector_bytes, 20));
    let (pages, ids) = (Pages::new(1, 1, 64), text(36));
    let native = bits(&prefill(&mut Native::new(&model, &*backend, pages.clone(), 2), 0, &ids, 20));
    let found = bits(&prefill(&mut Interpreted::new(&model, pages, 3, Order::Reverse), 0, &ids, 20));
    assert!(found == native, "the interpreter computes other bits");
}

fn compiled(policy: CtxPolicy, kv: Kv, backend: usize, name: &str) -> Artifact {
    let options = Options { ctx_policy: policy, kv, ..exact(&folder("llama2"), BACKENDS[backend]) };
    Artifact::compile(&options, Path::new(TEMPORARY), name)
}

#[test]
fn while_all_fits_nothing_is_missed() {
    let ids = text(64);
    let score = compiled(CtxPolicy::Score { positions: 64 }, Kv::F32, 0, "by-use-fits");
    let full = compiled(CtxPolicy::Full, Kv::F32, 0, "by-use-full");
    assert!(error(&score.logits(&ids, &[]), &full.logits(&ids, &[])) <= 1e-5);
}

#[test]
fn what_is_kept_depends_on_the_text_alone() {
    let ids = text(TOKENS);
    for kv in [Kv::F32, Kv::F16, Kv::Int8, Kv::Fp8] {
        let mut first: Option<Vec<u32>> = None;
        for backend in 0..BACKENDS.len() {
            let artifact =
                compiled(CtxPolicy::Score { positions: 64 }, kv, backend, &format!("by-use-{kv:?}-{backend}"));
            for (threads, chunk) in [("2", "250"), ("1", "1"), ("2", "7"), ("2", "32"), ("3", "100")] {
                let found = artifact.logits(&ids, &["-t", threads, "--chunk", chunk]);
                assert!(found.iter().all(|v| v.is_finite()));
                let known = first.get_or_insert_with(|| bits(&found));
                assert!(bits(&found) == *known, "{kv:?}: {threads} threads, chunks of {chunk}");
            }
        }
    }
}
