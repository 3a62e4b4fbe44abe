//! What legalization leaves.

mod common;

use common::{BARE, legal, limits_of, program, run};
use llmc_kernels::kir::interp::Order;
use llmc_kernels::kir::legalize::{Limits, legalize};
use llmc_kernels::kir::{Elem, Op, Program, Region, Ty};

/// All instructions and the types of all values.
fn everything(program: &Program) -> (Vec<Op>, Vec<Ty>) {
    fn collect(region: &Region, ops: &mut Vec<Op>) {
        for inst in &region.body {
            ops.push(inst.op.clone());
            match &inst.op {
                Op::For { body, .. } => collect(body, ops),
                Op::If { then, els, .. } => {
                    collect(then, ops);
                    collect(els, ops);
                }
                _ => {}
            }
        }
    }
    let mut ops = Vec::new();
    program.functions.iter().for_each(|f| collect(&f.body, &mut ops));
    (ops, program.functions.iter().flat_map(|f| f.types.clone()).collect())
}

fn sources() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/filetests/kernel");
    let entries = std::fs::read_dir(folder).expect("the folder of kernel tests");
    let mut files: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
    files.sort();
    files.iter().map(|f| std::fs::read_to_string(f).expect("a readable file")).collect()
}

/// Those that can be legalized for machines with limits.
fn limited() -> impl Iterator<Item = String> {
    sources().into_iter().filter(|source| limits_of(source).len() > 1)
}

#[test]
fn nothing_is_wider_than_allowed() {
    for source in sources() {
        for (name, limits) in limits_of(&source) {
            let (_, types) = everything(&legal(&program(&source), limits));
            let widest = types.iter().filter(|t| t.elem != Elem::I1).map(|t| t.elem.bits() * u32::from(t.lanes)).max();
            assert!(widest.is_some_and(|w| w <= limits.vector_bits), "{name}: {widest:?} bits");
        }
    }
}

#[test]
fn missing_instructions_are_gone() {
    let limits = Limits { fma: false, ..BARE };
    for source in limited() {
        let (ops, _) = everything(&legal(&program(&source), &limits));
        let missing = |op: &&Op| {
            let text = format!("{op:?}");
            matches!(op, Op::Fma(..) | Op::Dot2Bf16 { .. } | Op::Dot4I8 { .. }) || text.contains("F16")
        };
        assert_eq!(ops.iter().find(missing), None);
    }
}

#[test]
fn instructions_of_groups_stay() {
    for source in sources() {
        let program = program(&source);
        let group = |program: &Program| {
            let ops = everything(program).0.into_iter().filter(Op::needs_group);
            ops.map(|op| std::mem::discriminant(&op)).collect::<Vec<_>>()
        };
        for (name, limits) in limits_of(&source) {
            assert_eq!(group(&legal(&program, limits)), group(&program), "{name}");
        }
    }
}

#[test]
fn without_limits_nothing_changes() {
    for source in sources() {
        let program = program(&source);
        let once = legal(&program, &Limits::NONE);
        assert_eq!(legal(&once, &Limits::NONE), once);
        assert_eq!(everything(&once).0.len(), everything(&program).0.len());
    }
}

#[test]
fn legal_programs_stay_as_they_are_and_equal_ones_become_equal() {
    for source in limited() {
        let program = program(&source);
        let once = legalize(&program, &BARE);
        assert_eq!(once, legalize(&program.clone(), &BARE));
        assert_eq!(legalize(&once, &BARE), once);
    }
}

#[test]
fn without_fma_a_product_is_rounded() {
    let source = "func @main(%0: ptr, %1: i64, %2: i64) {
           %3 = load ptr %0, align 8
           %4 = load f32x8 %3, align 4
           %5 = fma f32x8 %4, %4, %4
           store %5, %3, align 4
         }";
    let x = f32::from_bits(0x3f80_0001);
    let input: Vec<u8> = std::iter::repeat_n((-x).to_le_bytes(), 8).flatten().collect();
    for (fma, expected) in [(true, x.mul_add(x, -x)), (false, x * x - x)] {
        let program = legal(&program(source), &Limits { fma, ..BARE });
        let output = run(&program, std::slice::from_ref(&input), 1, Order::Forward).expect("the program runs");
        assert!(output[0].chunks(4).all(|c| c == expected.to_le_bytes()), "fma: {fma}");
    }
    assert_ne!(x.mul_add(x, -x), x * x - x);
}

/// Offsets and alignments of the parts of a vector.
#[test]
fn parts_of_a_load_are_aligned_as_far_as_known() {
    let source = "func @main(%0: ptr, %1: i64, %2: i64) {
           %3 = load f32x16 %0 + 2147483600, align 64, stream
           store %3, %0 - 8, align 8
         }";
    let program = legal(&program(source), &BARE);
    let text = program.to_string();
    let expected = [
        "load f32x4 %0 + 2147483600, align 64, stream",
        "load f32x4 %0 + 2147483616, align 16, stream",
        "load f32x4 %0 + 2147483632, align 32, stream",
        "= ptr_add ptr %0, %",
        "store %3, %0 - 8, align 8",
        "%0 + 8, align 8",
        "%0 + 40, align 8",
    ];
    for line in expected {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn scalarization_asks_for_types() {
    let source = "func @main(%0: ptr, %1: i64, %2: i64) {
           %3 = load i64x2 %0, align 8
           %4 = mul i64x2 %3, %3
           %5 = add i64x2 %4, %3
           store %5, %0, align 8
         }";
    let limits = Limits {
        scalarize: |op, _, ty| matches!(op, Op::Bin(llmc_kernels::kir::BinOp::Mul, ..)) && ty.elem == Elem::I64,
        ..BARE
    };
    let text = legal(&program(source), &limits).to_string();
    assert_eq!(text.matches("mul i64 ").count(), 2, "{text}");
    assert!(text.contains("add i64x2") && text.contains("insert i64x2"), "{text}");
}
