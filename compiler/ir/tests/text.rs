//! The text form: exact round trip, errors that name the line, and no panic on any text.

mod support;

use llmc_ir::parse::{parse_block, parse_graph, parse_module, parse_op, parse_type};
use llmc_ir::{Graph, Module};
use support::{Rng, TINY, tiny};

/// Everything a graph says: ops, operands, types, outputs.
fn facts(graph: &Graph) -> Vec<String> {
    let node = |n| format!("{:?} {:?} {:?}", graph.op(n), graph.operands(n), graph.types(n));
    graph.nodes().map(node).chain([format!("{:?}", graph.outputs())]).collect()
}

fn same(a: &Module, b: &Module) {
    assert_eq!((&a.params, &a.calls, &a.kv), (&b.params, &b.calls, &b.kv));
    assert_eq!(a.blocks.len(), b.blocks.len());
    for (x, y) in a.blocks.iter().zip(&b.blocks) {
        let header = |b: &llmc_ir::Block| (b.name.clone(), b.inputs.clone(), b.params.clone(), b.outputs.clone());
        assert_eq!(header(x), header(y));
        assert_eq!(facts(&x.graph), facts(&y.graph));
    }
}

#[test]
fn a_module_survives_printing() {
    let module = tiny();
    let text = module.to_string();
    let again = parse_module(&text).expect("the printed module parses");
    same(&module, &again);
    assert_eq!(text, again.to_string());
}

#[test]
fn blocks_and_graphs_survive_printing() {
    for block in tiny().blocks {
        let again = parse_block(&block.to_string()).expect("the printed block parses");
        assert_eq!(block.to_string(), again.to_string());
        let graph = parse_graph(&block.graph.to_string()).expect("the printed graph parses");
        assert_eq!(facts(&graph), facts(&block.graph));
        assert_eq!(facts(&block.graph.compact()), facts(&block.graph), "every node of {} is live", block.name);
    }
}

#[test]
fn the_printed_form() {
    let embed = "block embed(ids; table: bf16[8,4]) -> (hidden) {\n  %0 = input{index=0, ty=i32[T]}\n  \
                 %1 = param{index=0, ty=bf16[8,4]}\n  %2 = embed(%1, %0) : f32[T,4]\n  return %2\n}\n";
    let printed = tiny().to_string();
    assert!(printed.contains(embed), "{printed}");
    let qkv = "%15:2 = qkv{prologue=rms_norm(1e-5), round=none, head_dim=2, q=[rope(2,2,false)], \
               k=[rope(2,2,false)], v=[]}(%0, %4, %5, %6, %7, %14, %14, %3, %1, %2) : f32[T,2,2], kv<f16,1,2>\n";
    assert!(printed.contains(qkv), "{printed}");
    assert!(printed.contains("return %20, %15.1\n"), "{printed}");
}

#[test]
fn every_attribute_survives() {
    let ops = [
        "const{shape=[2,1], data=[1.1754944e-38,-0.1]}",
        "reshape{shape=[T,8,64]}",
        "attention{scale=0.125, window=4096, softcap=50.0}",
        "linear{prologue=layer_norm(1e-6), round=bf16, epilogue=[bias,act(gelu_tanh),scale(0.5),mul,round(f16)]}",
        "linear{prologue=none, round=none, epilogue=[gated(gelu),residual]}",
        "qkv{prologue=rms_norm(1e-6), round=f16, head_dim=8, q=[bias,head_norm(1e-6,8),rope(8,4,true)], k=[], v=[]}",
        "input{index=3, ty=kv<bf16,2,64>}",
    ];
    for text in ops {
        assert_eq!(parse_op(text).expect(text).to_string(), text);
    }
    for text in ["f32[T,256]", "i32[R]", "kv<f16,2,64>", "bf16[]"] {
        assert_eq!(parse_type(text).expect(text).to_string(), text);
    }
}

#[test]
fn errors_name_the_line_and_what_was_expected() {
    let cases = [
        ("param a: f32[2]\nparam a: f32[2]", "line 2: a second parameter is called a"),
        ("\nparm a: f32[2]", "line 2: expected `param`, `kv`, `block` or `call`, found `parm`"),
        ("param a f32[2]", "line 1: expected `:`, found `f32`"),
        ("param a: f33[2]", "line 1: expected a type such as f32[T,256] or kv<f16,2,64>, found f33[2]"),
        ("param a: f32[2", "line 1: `]` is missing from here on"),
        ("kv 1: kv<f16,1,2>", "line 1: expected `kv 0`: caches are listed in order"),
        ("call x()", "line 1: no block above is called x"),
        ("block b() -> () {", "line 1: expected a node such as `%0 = ..`, or `return`, found the end of the text"),
        ("block b() -> (x) {\n%a = ad(%b)", "line 2: there is no op called ad"),
        ("block b() -> (x) {\n%a = add(%b)", "line 2: %b is not a result of a node above"),
        (
            "block b() -> (x) {\n\n%a = scale{eps=1.0}",
            "line 3: attributes {eps=1.0} do not fit scale, expected values for: factor",
        ),
        ("block b() -> (x) {\n%a = add()", "line 2: %a: add: 0 operands given, expected 2: a, b"),
        (
            "block b() -> (x) {\n%a = input{index=0, ty=f32[T]}\n%a = add(%a, %a)",
            "line 3: %a: the name is not a new one of letters, digits and `_`",
        ),
        (
            "block b() -> (x) {\n%a = input{index=0, ty=f32[T]}\n%b = add(%a, %a) : f32[R]",
            "line 3: %b: type: the op gives f32[T], the text says f32[R]",
        ),
        ("block b() -> (x) {\n%a:2 = input{index=0, ty=f32[T]}", "line 2: %a: the op has 1 results, the text says 2"),
        ("block b() -> (x) {\nreturn %9", "line 2: %9 is not a result of a node above"),
    ];
    for (text, expected) in cases {
        let error = parse_module(text).expect_err(text).to_string();
        assert_eq!(error, expected, "for {text}");
    }
}

/// One random edit: a byte or a digit replaced, a piece deleted or doubled, a token put in.
fn mutate(text: &mut Vec<u8>, rng: &mut Rng) {
    const TOKENS: [&str; 24] = [
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "<",
        ">",
        ",",
        ";",
        ":",
        "=",
        "%",
        "->",
        "//",
        "return",
        "block",
        "kv",
        "T",
        "18446744073709551615",
        "-1",
        "1e400",
        "none",
        "\u{e9}\u{1f600}",
    ];
    let (at, to) = (rng.below(text.len() + 1), rng.below(text.len() + 1));
    let end = (at + rng.below(40)).min(text.len());
    let start = at.min(end);
    match rng.below(8) {
        0 if at < text.len() => text[at] = (rng.bits() % 128) as u8,
        1 => drop(text.drain(start..end)),
        2 => {
            let piece = text[start..end].to_vec();
            text.splice(to..to, piece);
        }
        3 | 4 => {
            let token = TOKENS[rng.below(TOKENS.len())];
            text.splice(start..start, token.bytes());
        }
        _ => {
            if let Some(digit) = text.iter_mut().skip(at).find(|b| b.is_ascii_digit()) {
                *digit = b'0' + rng.below(10) as u8;
            }
        }
    }
}

#[test]
fn no_text_makes_the_parser_or_the_verifier_panic() {
    let printed = tiny().to_string();
    let mut rng = Rng(0x11_22_33_44_55_66_77_88);
    let (mut parsed, mut valid) = (0, 0);
    for round in 0..10_000 {
        let mut text = if round % 2 == 0 { TINY } else { &printed }.as_bytes().to_vec();
        for _ in 0..=rng.below(3) {
            mutate(&mut text, &mut rng);
        }
        let text = String::from_utf8_lossy(&text);
        if let Ok(module) = parse_module(&text) {
            parsed += 1;
            valid += usize::from(llmc_ir::verify(&module).is_ok());
            let again = parse_module(&module.to_string()).expect("what parses also parses when printed");
            same(&module, &again);
        }
    }
    assert!(parsed > 500 && valid > 100, "the mutations leave some modules readable: {parsed}, {valid}");
    assert!(parsed < 9000, "the mutations break some modules: {parsed}");
}
