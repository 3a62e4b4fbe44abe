//! What the verifier refuses. Each case is the body of a function after `prelude`.

use llmc_kernels::kir::{Builder, Function, Inst, Op, Program, Region, Ty, Val, text, verify};

/// Values %3 to %8, one of each kind.
const PRELUDE: &str = "
    %3 = int i32 1
    %4 = float f32 1.0
    %5 = int i32x4 1
    %6 = float f32x4 1.0
    %7 = cmp.lt i1x4 %6, %6
    %8 = cmp.lt i1 %4, %4
    ";

fn errors(program: &Program) -> String {
    verify::verify(program).err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn wrong_bodies_are_refused() {
    let cases = [
        ("%9 = add f32 %3, %4", "operands: found i32, f32, expected f32, f32"),
        ("%9 = add f32 %4, %3", "@main: `%9 = add f32 %4, %3`: operands"),
        ("%9 = add i32x4 %3, %3", "expected i32x4, i32x4"),
        ("%9 = add i1 %8, %8", "expected an integer or a float"),
        ("arrive", "no await after it in its region"),
        (
            "%9 = float f32x32 0.0\n %10 = int i32x4 0\n %11 = wgmma.bf16 f32x32 %9, %10, %0",
            "no wgmma_wait after it in its region",
        ),
        (
            "%9 = float f32x32 0.0\n %10 = int i32x4 0\n %11 = wgmma.bf16 f32x32 %9, %10, %0
             %12 = wgmma_wait f32x32 %11, []",
            "%10 is a factor of a product before it, and not kept",
        ),
        ("%9 = float f32x16 0.0\n %10 = wgmma_wait f32x16 %9, []", "found f32x16, expected 32 or 64 lanes"),
        ("await 0", "no arrive before it in its region"),
        ("arrive\n if %8 { await 0 }", "no arrive before it in its region"),
        ("arrive\n if %8 { store %3, %0, align 4 }\n await 0", "stores or meets others"),
        ("arrive\n barrier 0\n await 1", "stores or meets others"),
        ("%9 = add ptr %0, %0", "expected an integer or a float"),
        ("%9 = shl f32 %4, %4", "expected an integer"),
        ("%9 = and f32 %4, %4", "expected an integer or truth value"),
        ("%9 = sqrt i32 %3", "expected a float"),
        ("%9 = not f32 %4", "expected an integer or truth value"),
        ("%9 = neg f32x4 %4", "result: found f32x4, expected f32"),
        ("%9 = fma i32 %3, %3, %3", "expected a float"),
        ("%9 = cmp.lt i1 %6, %6", "result: found i1, expected i1x4"),
        ("%9 = cmp.lt i32 %3, %3", "result: found i32, expected i1"),
        ("%9 = cmp.eq i1 %0, %0", "expected an integer or a float"),
        ("%9 = select f32x4 %3, %6, %6", "condition: found i32, expected i1 or i1x4"),
        ("%9 = select f32 %7, %4, %4", "condition: found i1x4, expected i1 or i1"),
        ("%9 = sext i16 %3", "no such conversion from i32 to i16"),
        ("%9 = sext i32 %8", "no such conversion from i1 to i32"),
        ("%9 = trunc i1 %3", "no such conversion from i32 to i1"),
        ("%9 = zext i64 %5", "i32x4 and i64 have different numbers of lanes"),
        ("%9 = f16_to_f32 f32 %3", "no such conversion from i32 to f32"),
        ("%9 = bitcast i64 %4", "f32 and i64 have different sizes"),
        ("%9 = bitcast i64 %0", "found ptr, expected an integer or a float"),
        ("%9 = splat f32 %4", "found f32, expected a vector"),
        ("%9 = splat f32x4 %3", "operand: found i32, expected f32"),
        ("%9 = splat ptrx2 %0", "pointers are not in vectors"),
        ("%9 = splat f32x3 %4", "3 lanes; vectors have 2, 4, 8, 16, 32 or 64"),
        ("%9 = splat f32x128 %4", "128 lanes"),
        ("%9 = splat f32x65535 %4\n %10 = shuffle f32x2 %9, %9, [0, 1]", "65535 lanes"),
        ("%9 = extract f32 %6[4]", "f32x4 has no lane 4"),
        ("%9 = extract f32 %4[0]", "found f32, expected a vector"),
        ("%9 = extract i32 %6[0]", "result: found i32, expected f32"),
        ("%9 = insert f32x4 %6[4], %4", "f32x4 has no lane 4"),
        ("%9 = insert f32x4 %6[0], %3", "operands: found f32x4, i32, expected f32x4, f32"),
        ("%9 = shuffle f32x4 %6, %6, [0, 1]", "result: found f32x4, expected f32x2"),
        ("%9 = shuffle f32x2 %6, %6, [0, 8]", "f32x8 has no lane 8"),
        ("%9 = ptr_add ptr %0, %3", "operands: found ptr, i32, expected ptr, i64"),
        ("%9 = load f32 %1, align 4", "address: found i64, expected ptr"),
        ("%9 = load i1 %0, align 1", "truth values are not in memory"),
        ("%9 = load f32 %0, align 3", "alignment 3 is not a power of two"),
        ("%9 = load f32 %0, align 0", "alignment 0 is not a power of two"),
        ("store %7, %0, align 1", "truth values are not in memory"),
        ("store %4, %4, align 4", "address: found f32, expected ptr"),
        ("%9 = int i8 256", "256 does not fit i8"),
        ("%9 = int i1 2", "2 does not fit i1"),
        ("%9 = int f32 1", "expected an integer or truth value"),
        ("%9 = float i32 1.0", "expected a float"),
        ("%9 = float f32 0x3ff0000000000001", "is no f32"),
        ("%9 = dot2_bf16 f32x4 %6, %6, %5", "found f32x4, f32x4, i32x4, expected f32x4, i32x4, i32x4"),
        ("%9 = dot4_i8 f32 %4, %3, %3", "found f32, expected i32"),
        ("%9 = neg f32 %10\n %10 = neg f32 %4", "%10 is not defined before"),
        ("%9 = neg f32 %12", "%12 is not defined before"),
        ("if %8 { %9 = neg f32 %4 }\n %10 = neg f32 %9", "%9 is defined in a region that has ended"),
        ("if %8 { %9 = neg f32 %4 } else { %10 = neg f32 %9 }", "%9 is defined in a region that has ended"),
        ("if %8 { %9 = stack ptr 8 }", "stack memory is made in a region"),
        ("if %3 { }", "condition: found i32, expected i1"),
        ("if %7 { }", "condition: found i1x4, expected i1"),
        ("%9 = if %8 -> f32 { yield %4 }", "yielded values: found none, expected f32"),
        ("%9 = if %8 -> f32 { yield %3 } else { yield %4 }", "yielded values: found i32, expected f32"),
        ("if %8 { yield %4 }", "yielded values: found f32, expected none"),
        ("for %9 = %3 to %1 step %1 { }", "range: found i32, i64, i64"),
        ("%9 = for %10 = %1 to %1 step %1 (%11 = %4: i32) { yield %11 }", "parameters of the region: found i64, i32"),
        ("%9 = for %10 = %1 to %1 step %1 (%11 = %4: f32) { yield %10 }", "yielded values: found i64, expected f32"),
        ("%9 = for %10 = %1 to %1 step %1 (%11 = %4: f32) { yield %4, %4 }", "found f32, f32, expected f32"),
        ("for %9 = %1 to %1 step %1 { }\n %10 = neg i64 %9", "%9 is defined in a region that has ended"),
        ("call @main(%0, %1, %2)", "no function further up is named @main"),
        ("call @callee(%0, %1, %2)", "arguments: found ptr, i64, i64, expected ptr, i64, i64, f32"),
        ("yield %4", "a function yields no values"),
    ];
    let callee = "func @callee(%0: ptr, %1: i64, %2: i64, %3: f32) {}";
    for (body, expected) in cases {
        let source = format!("{callee} func @main(%0: ptr, %1: i64, %2: i64) {{ {PRELUDE} {body} }}");
        let program = text::parse(&source).unwrap_or_else(|e| panic!("{body}: {e}"));
        let found = errors(&program);
        assert!(found.contains(expected), "{body}\nexpected: {expected}\nfound: {found}");
    }
}

#[test]
fn wrong_functions_are_refused() {
    let cases = [
        ("func @f(%0: ptr, %1: i64) {}", "parameters do not begin with"),
        ("func @f(%0: i64, %1: i64, %2: i64) {}", "parameters do not begin with"),
        ("func @1f(%0: ptr, %1: i64, %2: i64) {}", "the name is not"),
        ("func @(%0: ptr, %1: i64, %2: i64) {}", "the name is not"),
        ("func @llmc_barrier(%0: ptr, %1: i64, %2: i64) {}", "the runtime's barrier"),
        ("func @f(%0: ptr, %1: i64, %2: i64) {} func @f(%0: ptr, %1: i64, %2: i64) {}", "has this name"),
    ];
    for (source, expected) in cases {
        let found = errors(&text::parse(source).expect(source));
        assert!(found.contains(expected), "{source}\nexpected: {expected}\nfound: {found}");
    }
}

#[test]
fn all_errors_are_collected() {
    let source = "func @f(%0: ptr, %1: i64, %2: i64) { %3 = sqrt i64 %1 barrier 0 %4 = fma f32 %3, %0, %1 }";
    let error = verify::verify(&text::parse(source).expect("well formed")).expect_err("two mistakes");
    assert_eq!(error.0.len(), 2, "{error}");
    assert_eq!(error.0[0].instruction.as_deref(), Some("%3 = sqrt i64 %1"));
    assert_eq!(error.to_string().lines().count(), 2);
}

/// Structures that have no text form.
#[test]
fn wrong_structures_are_refused() {
    let function = |types: Vec<Ty>, body: Vec<Inst>| {
        let params = vec![Val(0), Val(1), Val(2)];
        let mut all = vec![Ty::PTR, Ty::I64, Ty::I64];
        all.extend(types);
        Function { name: "f".into(), types: all, body: Region { params, body, yields: vec![] } }
    };
    let int = |results: Vec<u32>| Inst { results: results.into_iter().map(Val).collect(), op: Op::Int(1) };
    let cases = [
        (function(vec![Ty::I64], vec![]), "%3 is never defined"),
        (function(vec![Ty::I64], vec![int(vec![3]), int(vec![3])]), "%3 is defined twice"),
        (function(vec![], vec![int(vec![3])]), "%3 has no type"),
        (function(vec![], vec![int(vec![])]), "found 0 results, expected one"),
        (function(vec![Ty::I64; 2], vec![int(vec![3, 4])]), "found 2 results, expected one"),
        (function(vec![Ty::I64], vec![Inst { results: vec![Val(3)], op: Op::Barrier { phase: 0 } }]), "no results"),
    ];
    for (function, expected) in cases {
        let found = errors(&Program { functions: vec![function] });
        assert!(found.contains(expected), "expected: {expected}\nfound: {found}");
    }
}

#[test]
fn built_functions_are_accepted() {
    let (mut b, _) = Builder::new("f", &[Ty::F32]);
    let vector = b.splat(Val(3), 16);
    let memory = b.stack(64);
    b.for_const(64, 4, |b, i| {
        let at = b.ptr_add(memory, i);
        let lane = b.extract(vector, 3);
        b.store(lane, at, 0);
    });
    let program = Program { functions: vec![b.finish()] };
    assert_eq!(errors(&program), "");
    assert_eq!(text::parse(&program.to_string()).as_ref(), Ok(&program));
}
