//! What the passes decide: kernels of a layer, exactness, fuel, the target's influence, determinism.

mod support;

use llmc_ir::Block;
use llmc_ir::interp::{RtValue, eval_graph};
use llmc_passes::egraph::cost::graph_seconds;
use llmc_passes::prune::{keep_name, prunable};
use llmc_passes::{Error, Options, Pruned, TargetFacts, run_block};
use support::random::Random;
use support::{FileTest, kernels};

#[test]
fn a_layer_is_five_kernels() {
    for file in FileTest::all().into_iter().filter(|f| f.path.to_string_lossy().contains("layer")) {
        let (block, _) = file.rewrite(&file.options());
        let expected = ["qkv", "attention", "linear", "linear", "linear"];
        assert_eq!(kernels(&block), expected, "{}", file.path.display());
    }
}

#[test]
fn no_view_of_an_activation_is_left() {
    for file in FileTest::all().into_iter().filter(|f| f.path.to_string_lossy().contains("layer")) {
        let (block, _) = file.rewrite(&file.options());
        let ops: Vec<&str> = block.graph.nodes().map(|n| block.graph.op(n).name()).collect();
        assert!(!ops.contains(&"reshape"), "{}: {ops:?}", file.path.display());
    }
}

/// The outputs of a block for random inputs and parameters.
fn run(block: &Block, seed: u64) -> Vec<RtValue> {
    run_with(block, seed, |_| {})
}

/// The same where the weight that can be pruned is zero in the columns that its list does not name.
fn run_masked(block: &Block, seed: u64) -> Vec<RtValue> {
    let weight = prunable(block).swap_remove(0);
    let list = keep_name(&block.params[weight.param].name);
    let list = block.params.iter().position(|p| p.name == list).expect("a list of columns");
    run_with(block, seed, |params| {
        let RtValue::Tensor(kept) = params[list].clone() else { unreachable!("a list is a tensor") };
        let RtValue::Tensor(w) = &mut params[weight.param] else { unreachable!("a weight is a tensor") };
        let kept = kept.as_i32().expect("indices");
        let (shape, mut data) = (w.shape.clone(), w.as_f32().expect("floats").to_vec());
        let column = |i: usize| (if weight.by_input { i / shape[1] } else { i % shape[1] }) as i32;
        data.iter_mut().enumerate().filter(|(i, _)| !kept.contains(&column(*i))).for_each(|(_, v)| *v = 0.0);
        *w = llmc_ir::Tensor::f32(&shape, data);
    })
}

fn run_with(block: &Block, seed: u64, change: impl FnOnce(&mut Vec<RtValue>)) -> Vec<RtValue> {
    let mut random = Random(seed);
    let mut inputs = Vec::new();
    for (i, name) in block.inputs.iter().enumerate() {
        let declares = |n: &llmc_ir::NodeId| match block.graph.op(*n) {
            llmc_ir::Op::Input { index, ty } if *index as usize == i => Some(ty.clone()),
            _ => None,
        };
        let ty = block.graph.nodes().find_map(|n| declares(&n)).expect("every input is declared");
        inputs.push(random.value(&ty, name));
    }
    let mut params: Vec<RtValue> = block.params.iter().map(|p| random.value(&p.ty.clone().into(), &p.name)).collect();
    change(&mut params);
    eval_graph(&block.graph, &inputs, &params).expect("the block evaluates")
}

#[test]
fn rewriting_changes_no_bit_of_the_result() {
    for file in FileTest::all().into_iter().filter(|f| f.choices.is_empty() && f.pruned == Pruned::default()) {
        let (block, _) = file.rewrite(&file.options());
        assert_eq!(run(&file.block(), 3), run(&block, 3), "{}", file.path.display());
    }
}

#[test]
fn a_choice_loses_the_same_with_and_without_the_other_rules() {
    for file in FileTest::all().into_iter().filter(|f| !f.choices.is_empty()) {
        let names = llmc_passes::egraph::rules::all().map(|r| r.name.to_owned());
        let disabled_rules = names.filter(|n| !n.starts_with("narrow") && !n.starts_with("select")).collect();
        let (plain, _) = file.rewrite(&Options { disabled_rules, ..file.options() });
        let (fused, _) = file.rewrite(&file.options());
        assert_eq!(run(&plain, 3), run(&fused, 3), "{}", file.path.display());
        assert_ne!(run(&file.block(), 3), run(&fused, 3), "{}: nothing was chosen", file.path.display());
    }
}

#[test]
fn pruned_columns_are_zeros() {
    for file in FileTest::all().into_iter().filter(|f| f.choices.is_empty() && f.pruned.columns) {
        let (pruned, _) = file.rewrite(&file.options());
        assert_eq!(run_masked(&file.block(), 3), run(&pruned, 3), "{}", file.path.display());
        assert_ne!(run(&file.block(), 3), run(&pruned, 3), "{}: nothing is left out", file.path.display());
    }
}

#[test]
fn a_skipped_block_gives_its_inputs_on() {
    let file = FileTest::named("skipped");
    let (block, _) = file.rewrite(&file.options());
    assert!(kernels(&block).is_empty());
    assert_eq!(block.graph.outputs().len(), 2);
}

/// What each unit of a file's block became on a target.
fn chosen(file: &FileTest, options: &Options) -> Vec<String> {
    let (_, report) = file.rewrite(options);
    let units = report.blocks().flat_map(|b| &b.units);
    units.map(|(_, choice)| choice.weights.map_or("stored".into(), |s| s.to_string())).collect()
}

#[test]
fn memory_that_is_fast_enough_makes_wide_weights_the_better_choice() {
    let file = FileTest::named("llama_layer_choices");
    let slow = file.options();
    let mut fast = slow.clone();
    fast.target.memory_bandwidth *= 16.0;
    assert_eq!(chosen(&file, &slow), ["w4"; 4]);
    assert_eq!(chosen(&file, &fast)[..3], ["w8a8"; 3]);
}

#[test]
fn units_are_what_meets_the_same_rows() {
    let (_, report) = FileTest::named("llama_layer_w4").rewrite(&FileTest::named("llama_layer_w4").options());
    let units: Vec<&str> = report.blocks().flat_map(|b| &b.units).map(|(name, _)| name.as_str()).collect();
    assert_eq!(units, ["wq+wk+wv", "wo", "gate+up", "down"]);
}

#[test]
fn every_amount_of_fuel_gives_a_block_that_computes_the_same() {
    let file = FileTest::named("qwen3_layer");
    let expected = run(&file.block(), 5);
    let mut previous = usize::MAX;
    for fuel in 0..80 {
        let options = Options { fuel: Some(fuel), ..file.options() };
        let (block, report) = file.rewrite(&options);
        assert_eq!(run(&block, 5), expected, "with fuel {fuel}");
        let applied: usize = report.blocks().flat_map(|b| &b.rules).map(|r| r.fired).sum();
        assert!(applied <= fuel as usize);
        assert!(kernels(&block).len() <= previous, "more fuel, more kernels");
        previous = kernels(&block).len();
        if fuel == 0 {
            assert!(block.graph.nodes().all(|n| !block.graph.op(n).is_fused()), "rewriting is off");
            assert_eq!(kernels(&block), kernels(&file.block()));
        }
    }
    assert_eq!(previous, 5, "the fuel was enough");
}

#[test]
fn rewriting_twice_changes_nothing_more() {
    for file in FileTest::all() {
        let (once, _) = file.rewrite(&file.options());
        let (twice, _) = run_block(once.clone(), &file.options(), Pruned::default()).expect("the block rewrites");
        assert_eq!(once.to_string(), twice.to_string(), "{}", file.path.display());
    }
}

#[test]
fn a_slower_cache_makes_the_shared_norm_a_kernel_of_its_own() {
    let file = FileTest::named("shared_norm");
    let fast = file.options();
    let mut slow = fast.clone();
    slow.target.cache_bandwidth /= 8.0;
    let plan = |options: &Options| kernels(&file.rewrite(options).0);
    assert_eq!(plan(&fast), ["linear", "linear", "linear"]);
    assert_eq!(plan(&slow), ["rms_norm", "matmul", "matmul", "matmul"]);
}

#[test]
fn the_report_names_rules_and_their_savings() {
    let file = FileTest::named("llama_layer");
    let (block, report) = file.rewrite(&Options { savings: true, ..file.options() });
    let layer = report.blocks().next().expect("one block");
    assert!(layer.seconds.1 < layer.seconds.0);
    let predicted = graph_seconds(&block.graph, &file.options().target).expect("a graph");
    assert!((layer.seconds.1 - predicted).abs() < 1e-12);
    let saving = |name: &str| layer.rules.iter().find(|r| r.name == name).and_then(|r| r.saving);
    for rule in ["matmul", "qkv", "gated", "rms-prologue", "residual-left", "rope"] {
        assert!(saving(rule).is_some_and(|s| s > 0.0), "{rule} saves {:?}", saving(rule));
    }
    assert!(layer.to_string().contains("qkv"), "{layer}");
}

#[test]
fn unknown_names_are_errors_that_list_the_known_ones() {
    let file = FileTest::named("head");
    let options = Options { disabled_rules: vec!["frobnicate".into()], ..file.options() };
    let error = llmc_passes::run_block(file.block(), &options, file.pruned).expect_err("no such rule");
    assert!(matches!(error, Error::UnknownRule(..)) && error.to_string().contains("qkv"), "{error}");
    assert!(TargetFacts::named("z80").expect_err("no such target").to_string().contains("x86-64-v3"));
}

/// All plans as one text, for the comparison between processes.
fn plans() -> String {
    FileTest::all().iter().map(FileTest::result).collect()
}

#[test]
fn the_same_input_gives_the_same_plan_in_a_fresh_process() {
    const CHILD: &str = "LLMC_PASSES_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        println!("<plans>{}</plans>", plans());
        return;
    }
    let expected = plans();
    assert_eq!(expected, plans());
    for _ in 0..2 {
        let child = std::process::Command::new(std::env::current_exe().expect("this test has a path"))
            .args(["--exact", "the_same_input_gives_the_same_plan_in_a_fresh_process", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("this test runs again");
        let text = String::from_utf8(child.stdout).expect("plans are text");
        let found = text.split_once("<plans>").and_then(|(_, rest)| rest.split_once("</plans>")).map(|(p, _)| p);
        assert_eq!(found, Some(expected.as_str()));
    }
}
