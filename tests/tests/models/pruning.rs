//! Models without some of their layers and channels: the kernels against the graph's meaning, and what is
//! measured against the definition.

use crate::invariance::backends;
use crate::quantized::{EDGES, ROUNDING, bits, errors};
use llmc_calibrate::divergence::kl_sum;
use llmc_calibrate::{Findings, Request, Setup, measure, pieces};
use llmc_ir::interp::Interp;
use llmc_ir::{DType, MemoryParams, Module, Overlay, ParamSource, Scheme, Tensor};
use llmc_kernels::Target;
use llmc_kernels::kir::interp::Order;
use llmc_models::{Activations, BuildOptions, Opened};
use llmc_passes::prune::{keep_name, layers, prunable};
use llmc_passes::{Choice, Pruning};
use llmc_tests::amx;
use llmc_tests::reference::prompts;
use llmc_tests::step::{Interpreted, Model, Native, Pages, Planning, prefill};
use llmc_tests::weights;
use std::path::Path;

const TEMPORARY: &str = env!("CARGO_TARGET_TMPDIR");
const F32: BuildOptions = BuildOptions { activations: Activations::F32, kv: DType::F32, ctx: 64, keep: None };
const FAMILIES: [&str; 3] = ["llama2", "qwen3", "gpt2"];

fn opened(name: &str) -> Opened {
    let folder = weights::model(name, "config.json", &Path::new(TEMPORARY).join("pruning"));
    llmc_models::open(&folder).unwrap_or_else(|e| panic!("{e}"))
}

fn ids(name: &str) -> Vec<i32> {
    prompts(&weights::fixtures().join(name)).swap_remove(1).ids
}

fn host() -> Target {
    Target::best(amx::native()).expect("this machine runs the weakest level")
}

/// Leaves out the first layer, and in the others all channels but those whose number is no multiple of three.
fn pruned(module: &Module) -> (Pruning, MemoryParams) {
    let mut pruning = Pruning { layers: [0].into(), ..Pruning::default() };
    let mut lists = MemoryParams::default();
    for (layer, call) in layers(module).into_iter().enumerate().skip(1) {
        let call = &module.calls[call];
        let weight = prunable(module.block(call.block)).swap_remove(0);
        // Whole groups of 32, as quantized rows need them.
        let kept = (weight.channels * 2 / 3).next_multiple_of(32);
        let all = (0..weight.channels as i32).filter(|i| i % 3 != 0).chain((0..weight.channels as i32).step_by(3));
        let mut list: Vec<i32> = all.take(kept).collect();
        list.sort_unstable();
        lists.0.insert(keep_name(&module.param(call.params[weight.param]).name), Tensor::i32s(list));
        pruning.channels.insert(layer, kept);
    }
    (pruning, lists)
}

fn meaning(module: &Module, params: &dyn ParamSource, ids: &[i32]) -> Vec<f32> {
    let positions: Vec<i32> = (0..ids.len() as i32).collect();
    let mut interp = Interp::new(module, params);
    let logits = interp.step(ids, &positions, &vec![0; ids.len()], &positions).unwrap_or_else(|e| panic!("{e}"));
    logits.as_f32().expect("logits are f32").to_vec()
}

#[test]
fn kernels_of_pruned_models_compute_what_the_graph_means() {
    let stored = (F32, Choice::default(), ROUNDING);
    let bf16 = BuildOptions { activations: Activations::Bf16, ..F32 };
    let w4 = (bf16, Choice::of(Scheme::W4), EDGES);
    for name in FAMILIES {
        let (opened, ids) = (opened(name), ids(name));
        for (build, choice, tolerance) in [stored, w4] {
            let module = llmc_models::build(&opened, &build).unwrap_or_else(|e| panic!("{e}"));
            let (pruning, lists) = pruned(&module);
            let params = Overlay { own: &lists, base: &opened.checkpoint };
            let mut first: Option<Vec<u32>> = None;
            for (backend, vector_bytes) in backends() {
                let pruning = pruning.clone();
                let how = Planning { choice, pruning, ..Planning::plain(build, vector_bytes, 64) };
                let (model, after) = Model::of(module.clone(), &params, &how, opened.spec.vocab);
                assert_eq!(after.kv.len(), opened.spec.layers.len() - 1, "{name}: a layer is gone");
                let found = prefill(&mut Native::new(&model, &*backend, Pages::new(0, 1, 64), 2), 0, &ids, 64);
                let errors = errors(&found, &meaning(&after, &params, &ids), ids.len());
                assert!(errors[errors.len() - 1] <= tolerance, "{name}, {choice:?}: {errors:?}");
                let found = bits(&found);
                let native = first.get_or_insert_with(|| found.clone());
                assert!(found == *native, "{name}: {} computes other bits", backend.name());
                let mut interpreted = Interpreted::new(&model, Pages::new(1, 1, 64), 3, Order::Seeded(1));
                let steps = prefill(&mut interpreted, 0, &ids[..9], 5);
                assert!(bits(&steps) == native[..steps.len()], "{name}: the interpreter computes other bits");
            }
        }
    }
}

fn findings(opened: &Opened, module: &Module, windows: &[Vec<i32>]) -> Findings {
    let (backend, vector_bytes) = backends().swap_remove(0);
    let (target, params) = (host(), &opened.checkpoint);
    let setup = Setup { module, params, backend: &*backend, target: &target, vector_bytes, workers: 2 };
    let request = Request { layers: true, channels: true };
    measure(setup, windows, request, &|_, _| {}).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn a_layers_influence_is_the_divergence_without_it() {
    for name in FAMILIES {
        let (opened, ids) = (opened(name), ids(name));
        let module = llmc_models::build(&opened, &F32).unwrap_or_else(|e| panic!("{e}"));
        // Two windows, so that the later half of each counts.
        let windows: Vec<Vec<i32>> = ids.chunks(ids.len() / 2).take(2).map(<[i32]>::to_vec).collect();
        let found = findings(&opened, &module, &windows).layers;
        for (layer, found) in found.iter().enumerate() {
            let mut without = module.clone();
            without.calls.remove(layers(&module)[layer]);
            without.calls.iter_mut().for_each(|c| c.kv = c.kv.map(|k| k - u32::from(k as usize > layer)));
            without.kv.remove(layer);
            let (mut sum, mut rows) = (0.0, 0);
            for window in &windows {
                let later = window.len() / 2 * opened.spec.vocab;
                let logits = [&module, &without].map(|m| meaning(m, &opened.checkpoint, window)[later..].to_vec());
                sum += kl_sum(&logits[0], &logits[1], opened.spec.vocab);
                rows += window.len() - window.len() / 2;
            }
            let expected = sum / f64::from(rows as u32);
            assert!((found - expected).abs() <= 1e-3 * expected, "{name}: layer {layer}: {found} against {expected}");
        }
    }
}

#[test]
fn a_channels_worth_is_what_it_adds() {
    for name in FAMILIES {
        let (opened, ids) = (opened(name), ids(name));
        let module = llmc_models::build(&opened, &F32).unwrap_or_else(|e| panic!("{e}"));
        let found = &findings(&opened, &module, std::slice::from_ref(&ids)).channels[0];
        let call = layers(&module)[0];
        let stream = meaning(&pieces::embedding(&module).expect("a piece"), &opened.checkpoint, &ids);
        let width = stream.len() / ids.len();
        let piece = pieces::channels(&module, call, ids.len()).expect("a piece").expect("a layer with channels");
        let mut params = MemoryParams::default();
        for p in &piece.params {
            let value = match opened.checkpoint.load(&p.name) {
                Ok(value) => value,
                Err(_) => Tensor::f32(&[ids.len(), width], stream.clone()),
            };
            params.0.insert(p.name.clone(), value);
        }
        let rows: Vec<i32> = (0..ids.len() as i32).collect();
        let channels = meaning(&piece, &params, &rows);
        let weight = prunable(module.block(module.calls[call].block)).swap_remove(0);
        assert_eq!(weight.by_input, name == "gpt2", "GPT-2 stores weights by input");
        let down = &params.0[&module.param(module.calls[call].params[weight.param]).name];
        for (c, found) in found.iter().enumerate() {
            let column = |i: usize| down.as_f32().expect("floats")[i];
            let lengths = match weight.by_input {
                true => (0..width).map(|n| column(c * width + n)).collect::<Vec<_>>(),
                false => (0..width).map(|n| column(n * weight.channels + c)).collect(),
            };
            let squares = |v: f32| f64::from(v) * f64::from(v);
            let energy: f64 = channels.iter().skip(c).step_by(weight.channels).map(|v| squares(*v)).sum();
            let expected = energy * lengths.iter().map(|v| squares(*v)).sum::<f64>();
            assert!((found - expected).abs() <= 1e-3 * expected, "{name}: channel {c}: {found} against {expected}");
        }
    }
}
