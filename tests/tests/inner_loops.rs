//! The instructions of a matrix-vector inner loop: what LLVM must make of the shape that the
//! kernels use. No register may be spilled and every broadcast must come from memory.
#![cfg(feature = "llvm")]

use llmc_codegen_llvm::LlvmBackend;
use llmc_kernels::kir::{Builder, Cast, Elem, Hint, Program, Ty, Val};
use llmc_kernels::{Backend, Target};

const TOKENS: usize = 6;
/// Input elements of a token.
const K: usize = 2048;
const ROWS: u16 = 16;

/// A panel of 16 rows of bf16 pairs times [`TOKENS`] vectors of f32.
struct Panel {
    weights: Val,
    inputs: Val,
}

impl Panel {
    /// The even elements' weights: the lower half of each lane.
    fn even(&self, b: &mut Builder) -> Val {
        let ty = Ty::vector(Elem::I32, ROWS);
        let pairs = b.load_with(ty, self.weights, 0, 64, Hint::None);
        let sixteen = b.int(ty, 16);
        let bits = b.shl(pairs, sixteen);
        b.cast(Cast::Bitcast, bits, Ty::vector(Elem::F32, ROWS))
    }

    /// The odd elements' weights. Loaded as another type, so that LLVM loads them again instead of
    /// keeping them in registers that the sums need.
    fn odd(&self, b: &mut Builder) -> Val {
        let ty = Ty::vector(Elem::I64, ROWS / 2);
        let pairs = b.load_with(ty, self.weights, 0, 64, Hint::None);
        let upper = b.int(ty, 0xffff_0000_ffff_0000_u64 as i64);
        let bits = b.and(pairs, upper);
        b.cast(Cast::Bitcast, bits, Ty::vector(Elem::F32, ROWS))
    }

    fn add(&self, b: &mut Builder, sums: &mut [Val], weights: Val, element: usize) {
        for (token, sum) in sums.iter_mut().enumerate() {
            let x = b.load(Ty::F32, self.inputs, (4 * (token * K + element)) as i32);
            let x = b.splat(x, ROWS);
            *sum = b.fma(weights, x, *sum);
        }
    }
}

fn program() -> Program {
    let (mut b, p) = Builder::new("gemv", &[Ty::PTR, Ty::PTR, Ty::PTR]);
    let (weights, inputs, output) = (p[3], p[4], p[5]);
    let zero = b.float(Ty::vector(Elem::F32, ROWS), 0.0);
    let range = (b.index(0), b.index(K / 2), b.index(1));
    let sums = b.for_carried(range, &[zero; TOKENS], |b, pair, sums| {
        let (w, x) = (b.mul_const(pair, 64), b.mul_const(pair, 8));
        let panel = Panel { weights: b.ptr_add(weights, w), inputs: b.ptr_add(inputs, x) };
        let mut sums = sums.to_vec();
        let even = panel.even(b);
        panel.add(b, &mut sums, even, 0);
        let odd = panel.odd(b);
        panel.add(b, &mut sums, odd, 1);
        sums
    });
    for (token, sum) in sums.into_iter().enumerate() {
        b.store(sum, output, 4 * i32::from(ROWS) * token as i32);
    }
    Program { functions: vec![b.finish()] }
}

/// The lines from the label that the last backward jump goes to up to that jump.
fn inner_loop(asm: &str) -> Vec<&str> {
    let lines: Vec<&str> = asm.lines().map(str::trim).collect();
    let label = |l: &str| l.split_whitespace().last().map(|l| format!("{l}:"));
    let (end, start) = (0..lines.len())
        .rev()
        .filter(|i| lines[*i].starts_with('j'))
        .find_map(|i| lines[..i].iter().position(|l| Some(*l) == label(lines[i]).as_deref()).map(|s| (i, s)))
        .expect("the function has a loop");
    lines[start..end].to_vec()
}

fn count(lines: &[&str], words: &[&str]) -> usize {
    lines.iter().filter(|l| words.iter().all(|w| l.contains(w))).count()
}

#[test]
fn sums_stay_in_registers_and_inputs_are_broadcast_from_memory() {
    for (target, vectors, broadcast) in [("x86-64-v3", 2, "vbroadcastss"), ("x86-64-v4", 1, "{1to16}")] {
        let asm = LlvmBackend.asm_text(&program(), &Target::from_name(target).unwrap()).unwrap();
        let lines = inner_loop(&asm);
        let text = lines.join("\n");
        assert_eq!(count(&lines, &["vfmadd"]), 2 * TOKENS * vectors, "{target}\n{text}");
        assert_eq!(count(&lines, &[broadcast, "(%r"]), 2 * TOKENS, "{target}\n{text}");
        assert_eq!(count(&lines, &["%rsp"]) + count(&lines, &["%rbp"]), 0, "{target}: spilled\n{text}");
    }
}
