//! The text form: what is refused and where, and that no text makes the reader panic.

mod common;

use common::{BARE, legal};
use llmc_kernels::kir::{filetest, text, verify};

const SAMPLE: &str = include_str!("../../../tests/filetests/kernel/for.kir");
const SECOND: &str = include_str!("../../../tests/filetests/kernel/memory.kir");

#[test]
fn mistakes_are_placed() {
    let cases = [
        ("func f", "line 1, column 6: expected a function's name, found `f`"),
        ("func @f(%0: ptr) {\n  %1 = neg f33 %0\n}", "line 2, column 12: expected a type, found `f33`"),
        (
            "func @f(%0: ptr) {\n  %1 = nag f32 %0\n}",
            "line 2, column 8: expected an instruction with a result, found `nag`",
        ),
        ("func @f(%0: ptr) {\n  %1 = neg f32x1 %0\n}", "expected a type"),
        ("func @f(%0: ptr) {\n  add f32 %0, %0\n}", "expected another instruction for this number of results"),
        ("func @f(%0: ptr) {\n  %1 = barrier 1\n}", "expected an instruction with a result"),
        ("func @f(%0: ptr) {\n  %0 = neg f32 %0\n}", "%0 is defined twice"),
        ("; one\nfunc @f(%0: ptr, %2: i64) {}", "line 2, column 1: @f: values are numbered without gaps, but %1"),
        ("func @f(%4294967296: ptr) {}", "expected the number of a value after `%`"),
        ("func @f() { %0 = int i64 9223372036854775808 }", "expected an integer in range"),
        ("func @f(%0: ptr) { prefetch.l1 %0 + 2147483648 }", "expected an offset of 32 bits"),
        ("func @f() { ? }", "unexpected character '?'"),
        ("func @f() { µ }", "unexpected character 'µ'"),
        ("func @f() {", "expected an instruction, found the end of the text"),
        ("func @f(%0: i1) { %1, %2 = if %0 -> i64 {} }", "expected 2 types, one for each result"),
    ];
    for (source, expected) in cases {
        let found = text::parse(source).expect_err(source).to_string();
        assert!(found.contains(expected), "{source}\nexpected: {expected}\nfound: {found}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |n: usize| {
        format!("func @f(%0: ptr, %1: i64, %2: i64, %3: i1) {{ {} {} }}", "if %3 {".repeat(n), "}".repeat(n))
    };
    assert!(text::parse(&nested(60)).is_ok());
    let error = text::parse(&nested(100_000)).expect_err("too deep").to_string();
    assert!(error.contains("at most 64 regions"), "{error}");
}

#[test]
fn constants_keep_their_bits() {
    let floats = [0.0, -0.0, 1.0, 0.1, 1e-300, 5e-324, f64::MAX, f64::INFINITY, f64::NEG_INFINITY, -f64::NAN];
    let narrow = [0.0f32, 0.1, 1e-45, f32::MAX, f32::INFINITY, f32::NAN, -16_777_217.0];
    for (ty, v) in floats.map(|v| ("f64", v)).into_iter().chain(narrow.map(|v| ("f32", f64::from(v)))) {
        let source = format!("func @f() {{ %0 = float {ty} {:#x} }}", v.to_bits());
        let program = text::parse(&source).expect("hexadecimal bits");
        let printed = program.to_string();
        assert_eq!(text::parse(&printed).expect("printed text").to_string(), printed);
        let op = &text::parse(&printed).expect("printed text").functions[0].body.body[0].op;
        assert!(matches!(op, llmc_kernels::kir::Op::Float(w) if w.to_bits() == v.to_bits()), "{printed}");
    }
}

/// A linear congruential generator (Knuth's constants).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// One to four small changes: bytes replaced, removed or inserted, words moved.
fn mutate(text: &str, random: &mut Random) -> String {
    const BYTES: &[u8] = b"%@{}()[],:=+-;. \n0123456789abefilnorstx";
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] = BYTES[random.below(BYTES.len())],
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, BYTES[random.below(BYTES.len())]),
            3 => drop(bytes.drain(at..(at + random.below(40)).min(bytes.len()))),
            _ => {
                let end = (at + random.below(30)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What can be read can be verified and printed, and what is verified can be legalized.
#[test]
fn mutations_do_not_panic() {
    let mut random = Random(1);
    let (mut read, mut verified) = (0, 0);
    for i in 0..10_000 {
        let text = mutate(if i % 2 == 0 { SAMPLE } else { SECOND }, &mut random);
        drop(filetest::parse(&text));
        let Ok(program) = text::parse(&text) else { continue };
        read += 1;
        let printed = program.to_string();
        assert_eq!(text::parse(&printed).map(|p| p.to_string()).as_ref(), Ok(&printed));
        if verify::verify(&program).is_ok() {
            verified += 1;
            legal(&program, &BARE);
        }
    }
    assert!(read > 500 && verified > 100 && verified < read, "{read} read, {verified} verified");
}
