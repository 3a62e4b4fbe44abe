//! The verifier: the evidence it returns, and one finding for each broken rule.

mod support;

use llmc_ir::{BlockId, Call, NodeId, ParamId, Value, parse::parse_module, verify};
use support::{TINY, tiny};

#[test]
fn the_sample_is_valid_and_its_facts_are_returned() {
    let info = verify(&tiny()).expect("the sample is valid");
    assert_eq!(info.logits.to_string(), "f32[R,8]");
    assert_eq!(info.vocab(), 8);
    let calls: Vec<usize> = info.blocks.iter().map(|b| b.calls).collect();
    assert_eq!(calls, [1, 2, 0, 1]);
    let writes: Vec<String> = info.calls[1].writes.iter().map(|(name, ty)| format!("{name}: {ty}")).collect();
    assert_eq!(writes, ["hidden: f32[T,4]", "kv: kv<f16,1,2>"]);
    let reads: Vec<&str> = info.calls[1].reads.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(reads, ["hidden", "positions", "seqs", "kv"]);
    // In the layer, x is normalised and added to; kv' is attended to and returned.
    let uses = &info.blocks[1].uses;
    assert_eq!(uses.get(&Value { node: NodeId(0), slot: 0 }), Some(&2));
    assert_eq!(uses.get(&Value { node: NodeId(24), slot: 0 }), Some(&2));
}

/// Text of the sample, what replaces its first occurrence, and the finding.
const BROKEN: [(&str, &str, &str); 17] = [
    ("kv 1: kv<f16,1,2>", "kv 1: kv<f16,0,2>", "kv 1 is kv<f16,0,2>, expected a floating-point cache"),
    ("param norm: f32[4]", "param norm: i32[2,2]", "parameter norm is i32[2,2], expected constant floats"),
    ("param norm: f32[4]", "param norm: f32[5]", "call 3 of head: norm is f32[5], expected f32[4] as norm"),
    ("(ids; table: bf16[8,4])", "(ids; table: bf16[8,5])", "is bf16[8,4], the block declares table: bf16[8,5]"),
    ("(ids; table: bf16[8,4])", "(; table: bf16[8,4])", "%0 is input 0, the block has 0"),
    ("(ids; table: bf16[8,4])", "(ids)", "%1 is param 0, the block has 0"),
    ("-> (hidden) {", "-> (hidden, other) {", "block embed returns 1 values, expected 2: hidden, other"),
    ("-> (hidden) {", "-> (hiden) {", "call 1 of layer: nothing has written hidden, which the block reads"),
    ("hidden, positions, seqs, kv;  ", "hidden, hidden, seqs, kv;  ", "block layer: a second input is called hidden"),
    ("-> (hidden, kv) {", "-> (hidden, cache) {", "call 1 of layer: cache is kv<f16,1,2>; kv, and only kv,"),
    (") kv=0", "", "call 1 of layer: no kv is given, the block uses one"),
    (") kv=1", ") kv=2", "call 2 of layer: there is no kv 2"),
    ("call embed(embed)", "call embed(embed) kv=0", "call 0 of embed: kv is given, the block uses none"),
    ("call embed(embed)", "call embed()", "call 0 of embed: 0 parameters given, expected 1"),
    ("-> (logits) {", "-> (result) {", "the last call does not write logits"),
    ("ty=i32[R]}", "ty=i32[T]}", "logits are f32[T,8], expected f32[R,vocab]"),
    ("kv 0: kv<f16,1,2>", "kv 0: kv<f32,1,2>", "kv is kv<f32,1,2>, the block expects kv<f16,1,2>"),
];

#[test]
fn every_broken_rule_is_found() {
    for (from, to, finding) in BROKEN {
        assert!(TINY.contains(from), "{from} stands in the sample");
        let to = if from == ") kv=0" { ")" } else { to };
        let module = parse_module(&TINY.replacen(from, to, 1)).expect("the broken sample still parses");
        let error = verify(&module).expect_err(finding).to_string();
        assert!(error.contains(finding), "{from} -> {to}: {error}");
    }
}

#[test]
fn all_findings_are_reported_at_once() {
    let text = TINY.replacen("param norm: f32[4]", "param norm: f32[5]", 1).replacen(") kv=1", ") kv=2", 1);
    let error = verify(&parse_module(&text).expect("parses")).expect_err("two rules are broken").to_string();
    assert!(error.contains("as norm") && error.contains("no kv 2"), "{error}");
}

#[test]
fn ids_out_of_range_are_findings() {
    let mut module = tiny();
    module.calls[0].params = vec![ParamId(99)];
    module.calls.insert(1, Call { block: BlockId(99), params: Vec::new(), kv: None });
    module.blocks[0].graph.set_outputs(vec![Value { node: NodeId(2), slot: 7 }]);
    module.blocks[3].name = "he ad".into();
    let error = verify(&module).expect_err("nothing of this exists").to_string();
    for finding in ["no parameter 99", "no block 99", "%2.7, which is no value", "\"he ad\" is not made of"] {
        assert!(error.contains(finding), "{finding}: {error}");
    }
}

#[test]
fn inputs_of_two_types_are_found() {
    let text = TINY.replacen("%x = embed(%table, %ids)", "%z = input{index=0, ty=i32[R]} %x = embed(%table, %ids)", 1);
    let error = verify(&parse_module(&text).expect("parses")).expect_err("two types").to_string();
    assert!(error.contains("block embed: input 0 is both i32[T] and i32[R]"), "{error}");
}
