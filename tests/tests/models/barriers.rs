//! Whole steps on the kernel IR's interpreter, which finds every data race whatever the order, every
//! access outside a buffer and every read of what was not written: a plan's barriers suffice, and no
//! step needs anything that an earlier one left in the arena.

use llmc_codegen_cranelift::CraneliftBackend;
use llmc_ir::DType;
use llmc_kernels::kir::interp::Order;
use llmc_kernels::kir::{Op, Program, Region};
use llmc_kernels::layout::PROLOGUE_ROWS;
use llmc_kernels::{Backend, Target};
use llmc_models::{Activations, BuildOptions};
use llmc_passes::{Choice, Pruning};
use llmc_tests::amx;
use llmc_tests::reference::{Prompt, prompts, relative_error};
use llmc_tests::step::{Interpreted, Model, Native, Pages, Planning, Runner, Step, prefill};
use llmc_tests::weights;
use std::path::Path;

const F32: BuildOptions = BuildOptions { activations: Activations::F32, kv: DType::F32, ctx: 64, keep: None };
const TOLERANCE: f32 = 1e-4;

fn planned(name: &str, build: BuildOptions, fuel: Option<u32>) -> Model {
    let target = Target::best(amx::native()).expect("this machine runs the weakest level");
    planned_for(target, name, build, fuel)
}

fn planned_for(target: Target, name: &str, build: BuildOptions, fuel: Option<u32>) -> Model {
    let folder = weights::model(name, "config.json", &Path::new(env!("CARGO_TARGET_TMPDIR")).join("barriers"));
    Model::new(
        &folder,
        &Planning {
            build,
            fuel,
            choice: Choice::default(),
            pruning: Pruning::default(),
            target,
            vector_bytes: 64,
            tokens: 40,
        },
    )
}

fn reference(name: &str, n: usize) -> Prompt {
    prompts(&weights::fixtures().join(name)).swap_remove(n)
}

fn interpreted(model: &Model, prompt: &Prompt, chunk: usize, workers: usize, order: Order) -> Vec<f32> {
    prefill(&mut Interpreted::new(model, Pages::new(1, 1, 64), workers, order), 0, &prompt.ids, chunk)
}

fn agrees(model: &Model, prompt: &Prompt, chunk: usize, workers: usize, order: Order) {
    let logits = interpreted(model, prompt, chunk, workers, order);
    let error = relative_error(&logits, &prompt.logits);
    assert!(error <= TOLERANCE, "{workers} workers, {order:?}, chunks of {chunk}: error {error}");
}

/// Few tokens: every worker runs prologues for itself. Then one token at a time.
#[test]
fn short_steps() {
    let prompt = reference("llama2", 0);
    assert!(prompt.ids.len() <= PROLOGUE_ROWS);
    let model = planned("llama2", F32, None);
    for (workers, order) in [(2, Order::Forward), (2, Order::Reverse), (3, Order::Seeded(1)), (5, Order::Seeded(2))] {
        agrees(&model, &prompt, 7, workers, order);
    }
    agrees(&model, &prompt, 1, 3, Order::Seeded(3));
}

/// Many tokens: workers share prologues and meet inside kernels. The prompt passes a cache page.
#[test]
fn long_steps() {
    for name in ["llama2", "qwen3", "gpt2"] {
        let prompt = reference(name, 1);
        assert!(prompt.ids.len() > PROLOGUE_ROWS);
        agrees(&planned(name, F32, None), &prompt, 33, 3, Order::Reverse);
    }
}

/// Logits of one token of many, or of none: the head's rows are few where the layers' are many.
#[test]
fn few_rows_of_many_tokens() {
    for (name, fuel) in [("llama2", None), ("gpt2", None), ("qwen3", Some(0))] {
        let (model, prompt) = (planned(name, F32, fuel), reference(name, 1));
        let (first, rest) = prompt.ids.split_at(12);
        let steps = [(0, first, vec![]), (12, rest, vec![0, rest.len() as i32 - 1])];
        let mut runner = Interpreted::new(&model, Pages::new(1, 1, 64), 3, Order::Seeded(5));
        let logits = steps.map(|(start, ids, rows)| runner.step(&Step { rows, ..Step::of(0, start, ids) })).concat();
        let row = |i: usize| &prompt.logits[i * prompt.vocab..][..prompt.vocab];
        let error = relative_error(&logits, &[row(12), row(prompt.ids.len() - 1)].concat());
        assert!(error <= TOLERANCE, "{name}: error {error}");
    }
}

/// Plans of targets that this machine may not be.
#[test]
fn every_target() {
    for target in Target::names().filter_map(Target::from_name).filter(|t| !t.is_gpu()) {
        let model = planned_for(target, "llama2", F32, None);
        agrees(&model, &reference("llama2", 1), 33, 2, Order::Seeded(6));
    }
}

/// Every op a kernel of its own: the most buffers and barriers.
#[test]
fn steps_without_rewriting() {
    for (name, n, chunk) in [("llama2", 1, 33), ("qwen3", 0, 7), ("gpt2", 1, 20), ("qwen2-sliding", 0, 4)] {
        agrees(&planned(name, F32, Some(0)), &reference(name, n), chunk, 2, Order::Reverse);
    }
}

/// Rounded activations and cache, in mixed steps of two sequences.
#[test]
fn narrow_activations_and_mixed_steps() {
    let build = BuildOptions { activations: Activations::Bf16, kv: DType::F16, ..F32 };
    let model = planned("qwen3", build, None);
    let prompt = reference("qwen3", 0);
    let mut step = Step::default();
    prompt.ids.iter().enumerate().for_each(|(i, id)| (0..2).for_each(|seq| step.push(seq, i, *id)));
    let mut runner = Interpreted::new(&model, Pages::new(0, 2, 64), 3, Order::Seeded(4));
    let logits = runner.step(&step);
    for rows in logits.chunks_exact(2 * model.vocab) {
        assert!(rows[..model.vocab] == rows[model.vocab..], "equal sequences, other logits");
    }
}

/// The interpreter is the meaning of what the code generators emit, to the bit.
#[test]
fn compiled_steps_have_the_interpreters_bits() {
    let model = planned("llama2", F32, None);
    if !model.plan.variants[0].target.has_fma() {
        return;
    }
    let prompt = reference("llama2", 1);
    let expected = interpreted(&model, &prompt, 33, 2, Order::Forward);
    let backends: [&dyn Backend; _] = [
        #[cfg(feature = "llvm")]
        &llmc_codegen_llvm::LlvmBackend,
        &CraneliftBackend,
    ];
    for backend in backends {
        let found = prefill(&mut Native::new(&model, backend, Pages::new(1, 1, 64), 2), 0, &prompt.ids, 33);
        let same = found.iter().zip(&expected).filter(|(a, b)| a.to_bits() == b.to_bits()).count();
        assert_eq!(same, expected.len(), "{}: logits of the same bits", backend.name());
    }
}

/// Takes barrier number `n` out of a region and those inside it; `seen` counts barriers.
fn remove_barrier(region: &mut Region, n: usize, seen: &mut usize) {
    region.body.retain_mut(|inst| {
        match &mut inst.op {
            Op::For { body, .. } => remove_barrier(body, n, seen),
            Op::If { then, els, .. } => [then, els].into_iter().for_each(|r| remove_barrier(r, n, seen)),
            Op::Barrier { .. } => {
                *seen += 1;
                return *seen != n + 1;
            }
            _ => {}
        }
        true
    });
}

/// The program without its barrier number `n`, and the number of barriers it had.
fn without_barrier(program: &Program, n: usize) -> (Program, usize) {
    let (mut program, mut seen) = (program.clone(), 0);
    program.functions.iter_mut().for_each(|f| remove_barrier(&mut f.body, n, &mut seen));
    (program, seen)
}

/// Each barrier, those inside kernels included, keeps workers from a race or from reading too early
/// in a short step or in a long one; but for the last, which ends the step. So the interpreter would
/// have found a barrier that is missing.
#[test]
fn every_barrier_is_needed() {
    let mut model = planned("llama2", F32, None);
    let (steps, all) = ([0, 1].map(|n| Step::of(0, 0, &reference("llama2", n).ids)), model.program().clone());
    let (_, barriers) = without_barrier(&all, 0);
    assert!(barriers >= 10, "{barriers} barriers");
    for n in 0..barriers - 1 {
        model.plan.variants[0].program = without_barrier(&all, n).0;
        let run = |step| Interpreted::new(&model, Pages::new(1, 1, 64), 3, Order::Forward).try_step(step);
        let errors: Vec<String> = steps.iter().filter_map(|s| run(s).err()).map(|e| e.to_string()).collect();
        let expected = |e: &String| e.contains("data race") || e.contains("was never written");
        assert!(!errors.is_empty() && errors.iter().all(expected), "without barrier {n}: {errors:?}");
    }
}
