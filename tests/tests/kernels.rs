//! Kernels for GPUs by themselves: in the interpreter, against what they should compute in f64, and as machine code.

use gpu_check::kernels::Found;
use llmc_codegen_cranelift::CraneliftBackend;
use llmc_kernels::kir::interp::Order;
use llmc_kernels::{Backend, Target};
use llmc_tests::amx;
use llmc_tests::kernels::{cases, rows, targets};
use llmc_tests::waits::{sites, without};

/// What every kernel writes is near what it should be: with numbers of three seeds, by several workers in several orders.
#[test]
fn kernels_are_near_what_they_mean() {
    let tries = [(1, 1, Order::Forward), (2, 3, Order::Reverse), (3, 2, Order::Seeded(7))];
    let mut wrong = Vec::new();
    for (seed, workers, order) in tries {
        for case in cases(seed) {
            for target in targets() {
                let mut found = Found::new(&case.name);
                match case.interpret(&target, workers, order) {
                    Err(e) => wrong.push(format!("{}, {}: {e}", case.name, target.name)),
                    Ok(buffers) => {
                        for (expected, buffer) in case.input().expected.iter().zip(&buffers) {
                            found.compare(seed as usize, expected, buffer);
                        }
                        println!("{:48} {:12} {:9.2e} of its bound", case.name, target.name, found.worst);
                        wrong.extend((!found.holds()).then(|| format!("{}, {}: {found:?}", case.name, target.name)));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Routing is written once for all targets: on a processor the interpreter's numbers are near too, and those of machine
/// code are the interpreter's.
#[test]
fn experts_are_chosen_on_processors_too() {
    let backends: [Box<dyn Backend>; _] = [
        #[cfg(feature = "llvm")]
        Box::new(llmc_codegen_llvm::LlvmBackend),
        Box::new(CraneliftBackend),
    ];
    let available = amx::native();
    let levels = Target::names().filter(|n| n.starts_with("x86-64")).filter_map(Target::from_name);
    for target in levels.filter(|t| t.features & !available == 0 && t.has_fma()) {
        for case in rows::routes(1) {
            let meant = case.interpret(&target, 3, Order::Forward).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            let mut found = Found::new(&case.name);
            case.input().expected.iter().zip(&meant).for_each(|(expected, buffer)| found.compare(1, expected, buffer));
            assert!(found.holds(), "{}: {found:?}", target.name);
            for backend in &backends {
                // SAFETY: the target has what this processor has, and the interpreter has run the kernel.
                let run = unsafe { case.run(&**backend, &target, 3) }.unwrap_or_else(|e| panic!("{}: {e}", case.name));
                let same = run.iter().zip(&meant).all(|(run, meant)| run[..meant.len()] == meant[..]);
                assert!(same, "{}, {}, {}: other bits than the interpreter's", case.name, backend.name(), target.name);
            }
        }
    }
}

/// Threads that choose experts wait for each other: where a row's scores are read in other pieces than they are written,
/// no barrier but that behind the row's last elements may be missing.
#[test]
fn experts_need_their_barriers() {
    let [target, _] = targets();
    let cases = rows::routes(1);
    let case = cases.iter().find(|c| c.name == "8 of 256 experts").expect("one of the cases");
    let program = case.program(&target);
    let waits = sites(&program).into_iter().filter(|s| s.kernel == "kernel");
    let spare = waits.filter(|s| case.interpret_as(&without(&program, s), &target, (2, Order::Reverse)).is_ok());
    assert_eq!(spare.map(|s| s.number).collect::<Vec<_>>(), [2]);
}

#[cfg(feature = "llvm")]
mod code {
    use llmc_kernels::Target;
    use llmc_ptxas::{Disassembler, Function, Instruction, Loop, Tool, functions};
    use llmc_tests::cuda_tools::{assembler, disassembler};
    use llmc_tests::kernels::{Case, cases, targets};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Bytes of stack, and how many loads and stores of it there are in the innermost loops that multiply.
    type Spills = (u32, usize);

    /// Kernels that spill, all of them products by tiles, which hold 128 sums in registers, and here, where panels are few,
    /// an address for each that a thread copies: what the assembler was measured to do. All others have no stack.
    const SPILLS: [(&str, &str, Spills); 59] = [
        ("layer norm, gated product, many", "sm_120", (72, 0)),
        ("layer norm, gated product, many", "sm_80", (8, 0)),
        ("layer norm, gated product, many", "sm_89", (8, 0)),
        ("norm, product, bias, gelu, many", "sm_120", (176, 0)),
        ("norm, product, bias, gelu, many", "sm_80", (32, 0)),
        ("norm, product, bias, gelu, many", "sm_89", (32, 0)),
        ("product bf16, many", "sm_120", (48, 0)),
        ("product bf16, many", "sm_80", (8, 0)),
        ("product bf16, many", "sm_89", (16, 0)),
        ("product f16, many", "sm_89", (8, 0)),
        ("product fp8, many", "sm_120", (32, 0)),
        ("product int4(64), many", "sm_120", (272, 43)),
        ("product int4(64), many", "sm_80", (32, 0)),
        ("product int4(64), many", "sm_89", (40, 0)),
        ("product int4(64), many", "sm_90a", (272, 16)),
        ("product int4_asym(128), many", "sm_120", (328, 111)),
        ("product int4_asym(128), many", "sm_80", (120, 2)),
        ("product int4_asym(128), many", "sm_89", (48, 11)),
        ("product int4_asym(128), many", "sm_90a", (176, 59)),
        ("product int4_asym(32), many", "sm_120", (192, 0)),
        ("product int4_asym(32), many", "sm_80", (8, 0)),
        ("product int4_asym(32), many", "sm_89", (56, 0)),
        ("product int4_asym(32), many", "sm_90a", (272, 0)),
        ("product nf4(32), many", "sm_120", (80, 0)),
        ("product nf4(32), many", "sm_80", (64, 0)),
        ("product nf4(32), many", "sm_89", (64, 0)),
        ("product nf4(32), many", "sm_90a", (56, 0)),
        ("product nf4(64), many", "sm_120", (72, 0)),
        ("product nf4(64), many", "sm_80", (56, 0)),
        ("product nf4(64), many", "sm_89", (56, 0)),
        ("product nf4(64), many", "sm_90a", (64, 0)),
        ("product w2, many", "sm_120", (64, 0)),
        ("product w2, many", "sm_80", (48, 0)),
        ("product w2, many", "sm_89", (24, 0)),
        ("product w2, many", "sm_90a", (160, 0)),
        ("product w3, many", "sm_120", (104, 0)),
        ("product w3, many", "sm_80", (48, 0)),
        ("product w3, many", "sm_89", (56, 0)),
        ("product w3, many", "sm_90a", (184, 0)),
        ("product w5, many", "sm_120", (160, 0)),
        ("product w5, many", "sm_80", (88, 0)),
        ("product w5, many", "sm_89", (32, 0)),
        ("product w5, many", "sm_90a", (256, 0)),
        ("product w6, many", "sm_120", (184, 0)),
        ("product w6, many", "sm_80", (104, 0)),
        ("product w6, many", "sm_89", (48, 0)),
        ("product w6, many", "sm_90a", (264, 0)),
        ("product w8(128), many", "sm_90a", (184, 76)),
        ("product w8(32), many", "sm_120", (88, 0)),
        ("product w8(32), many", "sm_80", (32, 0)),
        ("product w8(32), many", "sm_89", (40, 0)),
        ("product w8(32), many", "sm_90a", (312, 0)),
        ("product, scale, residual, many", "sm_120", (48, 0)),
        ("product, scale, residual, many", "sm_80", (8, 0)),
        ("product, scale, residual, many", "sm_89", (16, 0)),
        ("q, k and v normed to f32, many", "sm_120", (40, 0)),
        ("q, k and v normed to fp8, many", "sm_120", (72, 0)),
        ("q, k and v normed to int8, many", "sm_120", (72, 0)),
        ("q, k and v to f16, many", "sm_120", (16, 0)),
    ];

    /// Accesses of the stack in the innermost loops that multiply.
    fn in_loops(code: &Function<'_>) -> usize {
        let (loops, is_any) = (code.loops(), |i: &Instruction<'_>, names: &[&str]| names.iter().any(|n| i.is(n)));
        let within = |a: &Loop, b: &Loop| a != b && a.range.start >= b.range.start && a.range.end <= b.range.end;
        let innermost = loops.iter().filter(|l| !loops.iter().any(|other| within(other, l)));
        let bodies = innermost
            .map(|l| code.body(l))
            .filter(|b| b.iter().any(|i| is_any(i, &["HMMA", "IMMA", "HGMMA", "IGMMA"])));
        bodies.flatten().filter(|i| is_any(i, &["LDL", "STL"])).count()
    }

    /// What is wrong with a kernel's code for some generations.
    fn problems(case: &Case, target: &Target, (tool, disassembler): (&Tool, Option<&Disassembler>)) -> Vec<String> {
        let backend = llmc::Options::new("").backend().expect("LLVM is built in");
        let text = backend.asm_text(&case.program(target), target).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let archs: &[&str] = if target.gpu_arch == 90 { &["sm_90a"] } else { &["sm_80", "sm_89", "sm_120"] };
        let of = |arch: &&str| {
            let made = match tool.assemble(&text, arch) {
                Ok(made) => made,
                Err(e) => return Some(e.to_string()),
            };
            let kernel = &made.kernels[0];
            let sass = disassembler.filter(|_| kernel.stack_bytes > 0).map(|d| d.sass(&made.cubin));
            let sass = sass.map(|s| s.unwrap_or_else(|e| panic!("{e}")));
            let local: usize = sass.iter().flat_map(|s| functions(s)).map(|f| in_loops(&f)).sum();
            let known = SPILLS.iter().find(|(name, a, _)| *name == case.name && a == arch);
            let (stack, most) = known.map_or((0, 0), |k| k.2);
            let holds = kernel.stack_bytes <= stack && local <= most && made.warnings.is_empty();
            let found = (kernel.stack_bytes, local);
            (!holds).then(|| format!("(\"{}\", \"{arch}\", {found:?}), {:?}", case.name, made.warnings))
        };
        archs.iter().filter_map(of).collect()
    }

    /// Machine code of every kernel by itself needs no more registers than there are, but for those known.
    #[test]
    fn kernels_keep_to_registers() {
        let Some(tool) = assembler() else { return };
        let (next, disassembler) = (AtomicUsize::new(0), disassembler());
        let tools = (&tool, disassembler.as_ref());
        let work = || {
            let (cases, mut wrong) = (cases(1), Vec::new());
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                wrong.extend(targets().iter().flat_map(|target| problems(case, target, tools)));
            }
            wrong
        };
        let wrong = std::thread::scope(|scope| {
            let other = scope.spawn(work);
            [work(), other.join().expect("no thread has failed")].concat()
        });
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }
}
