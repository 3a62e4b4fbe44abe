//! Texts that pass the context: the first and the last pages stay in sight. Kernels against the graph's meaning,
//! and the runtime, which forgets pages, against kernels that have them all.

use crate::groups::{FEW, MANY, ONE, TARGETS, planning_for};
use crate::invariance::{backends, same_in_every_cut};
use crate::quantized::bits;
use llmc::options::{CtxPolicy, Options};
use llmc_abi::manifest::Keep;
use llmc_ir::DType;
use llmc_kernels::kir::interp::Order;
use llmc_models::{Activations, BuildOptions};
use llmc_passes::Choice;
use llmc_tests::artifact::{Artifact, BACKENDS, exact};
use llmc_tests::step::{Interpreted, Model, Native, Pages, Planning, meaning, prefill};
use llmc_tests::weights;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TEMPORARY: &str = env!("CARGO_TARGET_TMPDIR");
/// Two pages stay behind the first one, of which a token sees at least its 33 last positions.
const KEEP: Keep = Keep { sinks: 1, window: 2, by_use: false };
const POLICY: CtxPolicy = CtxPolicy::Window { window: 33, sinks: 3 };
/// Tokens of the text: pages are forgotten three times.
const TOKENS: usize = 170;

fn folder(name: &str) -> PathBuf {
    weights::model(name, "config.json", &Path::new(TEMPORARY).join("windows"))
}

fn text() -> Vec<i32> {
    (0..TOKENS as i32).map(|i| (i * 37 + i * i / 7 + 11) % 120).collect()
}

/// The largest error relative to the largest logit.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn kernels_see_what_the_graph_sees() {
    let ids = text();
    let build = BuildOptions { activations: Activations::F32, kv: DType::F32, ctx: 128, keep: Some(KEEP) };
    // Groups of query heads, scaled angles, norms of heads, layers that see a few positions only.
    for name in ["llama2", "llama-yarn", "qwen3", "qwen2-sliding"] {
        let folder = folder(name);
        let mut first: Option<Vec<u32>> = None;
        for (backend, vector_bytes) in backends() {
            let how = Planning::plain(build, vector_bytes, TOKENS);
            let model = Model::new(&folder, &how);
            let pages = Pages::new(1, 1, TOKENS);
            let cuts = [(1, TOKENS), (2, 5), (3, 1), (2, 64)];
            let known = first.is_some();
            same_in_every_cut((&model, &*backend, &pages), &ids, &cuts, &mut first, name);
            if let (false, Some(found)) = (known, &first) {
                let found: Vec<f32> = found.iter().copied().map(f32::from_bits).collect();
                let error = error(&found, &meaning(&folder, &how, &ids));
                println!("{name}: {error:.1e} from the graph's meaning");
                assert!(error <= 1e-5, "{name}: {error}");
            }
        }
    }
}

/// Groups of threads too, in steps of few tokens, many and one. Caches that round differ a little more.
#[test]
fn groups_see_what_the_graph_sees() {
    let ids = text();
    let [any, tuned] = TARGETS;
    for (name, kv, (target, variant, chunk), tolerance) in [
        ("llama2", DType::F32, (any, FEW, 7), 1e-5),
        ("llama-yarn", DType::F16, (any, MANY, 40), 1e-3),
        ("qwen2-sliding", DType::F32, (any, MANY, 40), 1e-5),
        ("qwen3", DType::I8, (tuned, ONE, 1), 5e-3),
    ] {
        // Pages are forgotten once where each step has a token, three times elsewhere.
        let ids = if chunk == 1 { &ids[..100] } else { &ids[..] };
        let build = BuildOptions { activations: Activations::F32, kv, ctx: 128, keep: Some(KEEP) };
        let how = planning_for(target, build, Choice::default(), 64);
        let model = Model { variant, ..Model::new(&folder(name), &how) };
        let mut runner = Interpreted::new(&model, Pages::new(1, 1, TOKENS), 3, Order::Seeded(5));
        let found = prefill(&mut runner, 0, ids, chunk);
        let error = error(&found, &meaning(&folder(name), &how, ids));
        println!("{name}, {target}, {chunk} tokens: {error:.1e} from the graph's meaning");
        assert!(error <= tolerance, "{name}, {target}, {chunk} tokens: {error}");
    }
}

#[test]
fn the_interpreter_finds_nothing() {
    let keep = Keep { sinks: 0, window: 1, by_use: false };
    let build = BuildOptions { activations: Activations::F32, kv: DType::F16, ctx: 64, keep: Some(keep) };
    let (backend, vector_bytes) = backends().swap_remove(0);
    let how = Planning::plain(build, vector_bytes, 20);
    let model = Model::new(&folder("llama2"), &how);
    let (pages, ids) = (Pages::new(1, 1, 64), &text()[..36]);
    let native = bits(&prefill(&mut Native::new(&model, &*backend, pages.clone(), 2), 0, ids, 20));
    let found = bits(&prefill(&mut Interpreted::new(&model, pages, 3, Order::Reverse), 0, ids, 20));
    assert!(found == native, "the interpreter computes other bits");
}

#[test]
fn forgotten_pages_are_not_missed() {
    let ids = text();
    for name in ["llama2", "qwen2-sliding"] {
        let folder = folder(name);
        let mut first: Option<Vec<u32>> = None;
        for backend in BACKENDS {
            let options = Options { ctx_policy: POLICY, ..exact(&folder, *backend) };
            let artifact = Artifact::compile(&options, Path::new(TEMPORARY), &format!("windows-{name}-{backend:?}"));
            for (threads, chunk) in [("2", "170"), ("1", "1"), ("2", "7"), ("2", "32"), ("3", "100")] {
                let found = artifact.logits(&ids, &["-t", threads, "--chunk", chunk]);
                let known = first.get_or_insert_with(|| bits(&found));
                assert!(bits(&found) == *known, "{name}, {backend:?}: {threads} threads, chunks of {chunk}");
            }
        }
        let (_, vector_bytes) = backends().swap_remove(0);
        let build = BuildOptions { activations: Activations::F32, kv: DType::F32, ctx: 128, keep: Some(KEEP) };
        let expected = meaning(&folder, &Planning::plain(build, vector_bytes, TOKENS), &ids);
        let found: Vec<f32> = first.unwrap_or_default().into_iter().map(f32::from_bits).collect();
        let error = error(&found, &expected);
        assert!(error <= 1e-5, "{name}: {error} from the graph's meaning");
    }
}

/// Resident memory of a process, KiB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("resident memory is known");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of KiB")
}

#[test]
fn a_text_goes_on_without_end_in_the_same_memory() {
    goes_on(CtxPolicy::Window { window: 65, sinks: 4 }, "windows-endless");
}

#[test]
fn so_does_one_that_keeps_what_is_used_most() {
    goes_on(CtxPolicy::Score { positions: 64 }, "by-use-endless");
}

fn goes_on(policy: CtxPolicy, name: &str) {
    let options = Options { ctx_policy: policy, ..exact(&folder("llama2"), BACKENDS[0]) };
    let _artifact = Artifact::compile(&options, Path::new(TEMPORARY), name);
    let args = ["run", "--tokens", "1,2,3", "-n", "50000", "--temp", "1", "--ignore-eos", "-t", "1"];
    let mut child = Command::new(Path::new(TEMPORARY).join(name))
        .args(args)
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut numbers = BufReader::new(child.stdout.take().expect("standard output is piped")).split(b',');
    let (mut count, mut early) = (0, 0);
    for number in &mut numbers {
        number.expect("standard output can be read");
        count += 1;
        match count {
            2_000 => early = resident(child.id()),
            // What a pipe holds is less than what is still to come: the process is there.
            10_000 | 20_000 | 30_000 => {
                let now = resident(child.id());
                assert!(now <= early + 256, "{early} KiB after 2000 tokens, {now} after {count}");
            }
            _ => {}
        }
    }
    assert!(child.wait().expect("it ends").success());
    assert_eq!(count, 50_000, "numbers that are not tokens end a generation");
}

#[test]
fn what_has_no_window_is_refused() {
    let refused = |name: &str, policy: CtxPolicy, words: &str| {
        let options = Options { ctx_policy: policy, ..exact(&folder(name), BACKENDS[0]) };
        let path = Path::new(TEMPORARY).join("windows-refused");
        let error = llmc::compile::compile(&options, &path, &llmc::progress::Progress::Quiet);
        let error = error.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(words), "{error}");
    };
    refused("gpt2", POLICY, "rotary positions");
    refused("gpt2", CtxPolicy::Score { positions: 64 }, "rotary positions");
    refused("llama2", CtxPolicy::Window { window: 120, sinks: 4 }, "more than the context of 128");
    refused("llama2", CtxPolicy::Score { positions: 97 }, "more than the context of 128");
}
