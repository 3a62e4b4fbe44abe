//! The interpreter on whole modules: steps, caches, ragged batches, fused blocks, hostile calls.

mod support;

use llmc_ir::interp::{Interp, RtValue, eval_graph};
use llmc_ir::parse::{parse_graph, parse_module};
use llmc_ir::{MemoryParams, Module, Tensor};
use std::slice::from_ref;
use support::{TINY, tiny, weights};

const IDS: [i32; 6] = [3, 1, 4, 1, 5, 7];

fn positions(from: usize, to: usize) -> Vec<i32> {
    (from as i32..to as i32).collect()
}

/// Logits of every token of one sequence, run in chunks of at most `chunk` tokens.
fn run(module: &Module, params: &MemoryParams, chunk: usize) -> Vec<f32> {
    let mut interp = Interp::new(module, params);
    let mut logits = Vec::new();
    for start in (0..IDS.len()).step_by(chunk) {
        let end = (start + chunk).min(IDS.len());
        let rows = positions(0, end - start);
        let out = interp.step(&IDS[start..end], &positions(start, end), &vec![0; end - start], &rows);
        let out = out.expect("the step runs");
        assert_eq!(out.shape, [end - start, 8]);
        logits.extend_from_slice(out.as_f32().expect("logits are floats"));
    }
    logits
}

#[test]
fn chunking_does_not_change_a_bit() {
    let module = tiny();
    let params = weights(&module, 1);
    let whole = run(&module, &params, 6);
    assert!(whole.iter().all(|v| v.is_finite()) && whole[..8] != whole[8..16]);
    for chunk in [1, 2, 5] {
        assert_eq!(run(&module, &params, chunk), whole, "chunks of {chunk}");
    }
}

#[test]
fn neighbours_in_a_batch_do_not_change_a_bit() {
    let module = tiny();
    let params = weights(&module, 2);
    let whole = run(&module, &params, 6);
    let mut interp = Interp::new(&module, &params);
    // Sequence 5 holds the tokens, interleaved with sequence 2.
    let (ids, at) = ([3, 6, 1, 6, 4, 2, 1, 5, 7], [0, 0, 1, 1, 2, 2, 3, 4, 5]);
    let seqs = [5, 2, 5, 2, 5, 2, 5, 5, 5];
    let logits = interp.step(&ids, &at, &seqs, &[8, 0]).expect("the step runs");
    let logits = logits.as_f32().expect("logits are floats");
    assert_eq!(logits[..8], whole[40..]);
    assert_eq!(logits[8..], whole[..8]);
}

#[test]
fn a_fused_block_means_the_unfused_one() {
    let module = tiny();
    let fused = parse_module(&TINY.replace("call layer(", "call fused(")).expect("parses");
    llmc_ir::verify(&fused).expect("the fused sample is valid");
    let params = weights(&module, 3);
    assert_eq!(run(&fused, &params, 6), run(&module, &params, 6));
}

#[test]
fn named_values_can_be_observed() {
    let module = tiny();
    let params = weights(&module, 4);
    let mut seen = Vec::new();
    let mut observe = |call: usize, name: &str, t: &Tensor| seen.push(format!("{call} {name} {:?}", t.shape));
    let mut interp = Interp::new(&module, &params);
    interp.step_observed(&IDS, &positions(0, 6), &[0; 6], &[5], &mut observe).expect("the step runs");
    assert_eq!(seen, ["0 hidden [6, 4]", "1 hidden [6, 4]", "2 hidden [6, 4]", "3 logits [1, 8]"]);
}

#[test]
fn reset_forgets_the_context() {
    let module = tiny();
    let params = weights(&module, 5);
    let mut interp = Interp::new(&module, &params);
    let step = |interp: &mut Interp<'_>, id, at| interp.step(&[id], &[at], &[0], &[0]).expect("the step runs");
    let first = step(&mut interp, 3, 0);
    let after_another = step(&mut interp, 5, 1);
    interp.reset();
    assert_ne!(step(&mut interp, 5, 1), after_another);
    interp.reset();
    assert_eq!(step(&mut interp, 3, 0), first);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let module = tiny();
    let params = weights(&module, 6);
    let mut interp = Interp::new(&module, &params);
    let mut error = |ids: &[i32], positions: &[i32], rows: &[i32]| {
        interp.step(ids, positions, &vec![0; ids.len()], rows).expect_err("the step fails").to_string()
    };
    assert!(error(&[8], &[0], &[0]).contains("id 8 is outside the table of 8 rows"));
    assert!(error(&[1, 2], &[0], &[0]).contains("2 ids, 1 positions, 2 seqs"));
    assert!(error(&[1], &[0], &[1]).contains("row 1 is outside the operand of 1 rows"));
    let nothing = MemoryParams::default();
    let error = Interp::new(&module, &nothing).step(&[1], &[0], &[0], &[0]).expect_err("no weights");
    assert_eq!(error.to_string(), "parameter embed: is not in the checkpoint");
}

#[test]
fn a_graph_checks_what_it_is_given() {
    let text = "%x = input{index=0, ty=f32[T,2]} %b = param{index=0, ty=bf16[2]} \
                %r = input{index=1, ty=i32[T]} %y = bias(%x, %b) return %y, %r";
    let graph = parse_graph(text).expect("parses");
    let x = RtValue::from(Tensor::f32(&[1, 2], vec![1.0, 2.0]));
    let b = RtValue::from(Tensor::f32(&[2], vec![0.5, 0.25]));
    let eval = |inputs: &[RtValue], params: &[RtValue]| eval_graph(&graph, inputs, params);
    let out = eval(&[x.clone(), Tensor::i32s(vec![7]).into()], from_ref(&b)).expect("fits");
    assert_eq!(out, [Tensor::f32(&[1, 2], vec![1.5, 2.25]).into(), Tensor::i32s(vec![7]).into()]);
    let message = |inputs: &[RtValue], params: &[RtValue]| eval(inputs, params).expect_err("does not fit").to_string();
    let short = [x.clone(), Tensor::i32s(vec![7, 8]).into()];
    assert!(message(&short, from_ref(&b)).contains("input 1 is i32[2], expected i32[T] [T = 1]"));
    assert!(message(from_ref(&x), from_ref(&x)).contains("param 0 is f32[1,2], expected bf16[2]"));
    assert!(message(from_ref(&x), &[]).contains("param 0 is not given"));
    assert!(message(&[], &[]).contains("input 0 is not given"));
}
