//! Both code generators against the kernel IR's interpreter, bit for bit.

use llmc_abi::Feature;
use llmc_abi::step::BARRIER_SYMBOL;
use llmc_codegen_cranelift::CraneliftBackend;
use llmc_jit as jit;
use llmc_kernels::kir::filetest::{self, FileTest};
use llmc_kernels::kir::interp::{Machine, Order};
use llmc_kernels::kir::legalize::{Limits, legalize};
use llmc_kernels::kir::verify::verify;
use llmc_kernels::kir::{Builder, Elem, Program, Ty};
use llmc_kernels::{Backend, BackendError, Object, Target};
use llmc_tests::aligned::{Line, flat, lines};
use llmc_tests::{amx, kirgen};
use std::path::{Path, PathBuf};

mod aarch64;

/// What a test finds, or why it could not look.
type Checked<T> = Result<T, Box<dyn std::error::Error>>;

const PROGRAMS: u64 = 200;
const WORKERS: usize = 3;

fn backends() -> Vec<Box<dyn Backend>> {
    vec![
        #[cfg(feature = "llvm")]
        Box::new(llmc_codegen_llvm::LlvmBackend),
        Box::new(CraneliftBackend),
    ]
}

/// The x86-64 levels that need no more than these features.
fn targets(available: u64) -> Vec<Target> {
    let names = Target::names().filter(|n| n.starts_with("x86-64")).filter_map(Target::from_name);
    names.filter(|t| t.features & !available == 0).collect()
}

/// The levels for random programs, without the bf16 dot product: its instruction flushes subnormals,
/// and random bits are full of them.
fn targets_with_subnormals() -> Vec<Target> {
    let without = |t: Target| Target { features: t.features & !Feature::Avx512Bf16.bit(), ..t };
    targets(amx::native()).into_iter().map(without).collect()
}

fn input(seed: u64) -> Vec<u8> {
    let mut random = kirgen::Random(seed ^ 0x5eed);
    (0..kirgen::INPUT_BYTES / 8).flat_map(|_| random.bits().to_le_bytes()).collect()
}

fn interpreted(program: &Program, input: &[u8]) -> Vec<u8> {
    let mut machine = Machine::new();
    let input = machine.alloc_readonly(input.to_vec());
    let output = machine.alloc(vec![0; WORKERS * kirgen::OUTPUT_BYTES]);
    let args = machine.alloc_readonly([input.0.to_le_bytes(), output.0.to_le_bytes()].concat());
    machine.run(program, "entry", args, WORKERS, Order::Forward).unwrap_or_else(|e| panic!("{e}"));
    machine.buffer(output).clone()
}

/// What the buffers, whose addresses are the arguments, hold after a run.
///
/// # Safety
/// The code stays within the buffers.
unsafe fn run(code: &jit::Loaded, entry: &str, buffers: &[Vec<u8>], workers: usize) -> Checked<Vec<Vec<u8>>> {
    let mut buffers: Vec<Vec<Line>> = buffers.iter().map(|b| lines(b)).collect();
    let pointers: Vec<u8> = buffers.iter_mut().flat_map(|b| (b.as_mut_ptr() as u64).to_le_bytes()).collect();
    let args = lines(&pointers);
    // SAFETY: the caller's promise.
    unsafe { code.run(entry, args.as_ptr().cast(), workers) }?;
    Ok(buffers.iter().map(|b| flat(b)).collect())
}

fn compiled(code: &jit::Loaded, input: &[u8]) -> Checked<Vec<u8>> {
    let buffers = [input.to_vec(), vec![0; WORKERS * kirgen::OUTPUT_BYTES]];
    // SAFETY: the interpreter has shown that the program stays within its buffers.
    Ok(unsafe { run(code, "entry", &buffers, WORKERS) }?.swap_remove(1))
}

/// Without fma a program means what legalize makes of it.
fn meaning(program: &Program, target: &Target) -> Program {
    let fma = target.has_fma();
    legalize(program, &Limits { fma, native_dot2_bf16: fma, ..Limits::NONE })
}

/// Compiles; nothing but the barrier may be undefined.
fn objects(backend: &dyn Backend, program: &Program, target: &Target) -> Checked<Vec<Object>> {
    let objects = backend.compile(program, target)?;
    let undefined = jit::undefined(&objects)?;
    assert!(undefined.iter().all(|s| s == BARRIER_SYMBOL), "{}: undefined {undefined:?}", backend.name());
    Ok(objects)
}

/// Where the code of a back end computes something else than the interpreter.
fn differences(seed: u64, target: &Target) -> Checked<Vec<String>> {
    let program = kirgen::program(seed);
    verify(&program).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let input = input(seed);
    let expected = interpreted(&meaning(&program, target), &input);
    let differs = |backend: Box<dyn Backend>| {
        let objects = objects(&*backend, &program, target)?;
        let found = compiled(&jit::load(&objects)?, &input)?;
        let at = found.iter().zip(&expected).position(|(a, b)| a != b);
        Ok(at.map(|at| format!("seed {seed}, {}, {}: byte {at}", backend.name(), target.name)))
    };
    let found: Vec<Option<String>> = backends().into_iter().map(differs).collect::<Checked<_>>()?;
    Ok(found.into_iter().flatten().collect())
}

#[test]
fn random_programs_compute_the_interpreters_bits() -> Checked<()> {
    let targets = targets_with_subnormals();
    assert!(!targets.is_empty(), "this machine runs at least the weakest level");
    let all = targets.iter().flat_map(|t| (0..PROGRAMS).map(move |seed| differences(seed, t)));
    let all = all.collect::<Checked<Vec<_>>>()?.concat();
    assert!(all.is_empty(), "{} differences:\n{}", all.len(), all.join("\n"));
    Ok(())
}

/// What is wrong with a file's runs.
fn failures(test: &FileTest, target: &Target) -> Checked<Vec<String>> {
    let name = &test.program.functions.last().ok_or("a program without an entry")?.name;
    let mut wrong = Vec::new();
    for backend in backends() {
        let code = jit::load(&objects(&*backend, &test.program, target)?)?;
        for case in &test.runs {
            let inputs: Vec<Vec<u8>> = case.buffers.iter().map(|b| b.input.clone()).collect();
            // SAFETY: the same runs pass in the interpreter, which checks every access.
            let outputs = unsafe { run(&code, name, &inputs, case.workers) }?;
            let results = case.buffers.iter().zip(&outputs).map(|(b, out)| b.check(&out[..b.input.len()]));
            wrong.extend(results.filter_map(Result::err).map(|e| format!("{}, {}: {e}", backend.name(), target.name)));
        }
    }
    Ok(wrong)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests/kernel")
}

/// Every file, sorted.
fn files() -> Checked<Vec<PathBuf>> {
    let mut files = std::fs::read_dir(folder())?.map(|e| Ok(e?.path())).collect::<Checked<Vec<_>>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "kir"));
    files.sort();
    assert!(files.len() > 20, "found {} files", files.len());
    Ok(files)
}

fn file_test(path: &Path) -> FileTest {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    filetest::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The target of a name.
fn known(name: &str) -> Checked<Target> {
    Target::from_name(name).ok_or_else(|| format!("{name} is not a target").into())
}

/// What LLVM makes of a program.
#[cfg(feature = "llvm")]
fn asm(program: &Program, target: &str) -> String {
    let target = known(target).unwrap_or_else(|e| panic!("{e}"));
    llmc_codegen_llvm::LlvmBackend.asm_text(program, &target).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn files_behave_as_in_the_interpreter() -> Checked<()> {
    let mut wrong = Vec::new();
    for file in files()? {
        let test = file_test(&file);
        if test.has_groups() {
            continue;
        }
        for target in targets(amx::with_tiles()).iter().filter(|t| t.has_fma()) {
            wrong.extend(failures(&test, target)?.iter().map(|e| format!("{}: {e}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The product of bytes on 16 lanes.
#[cfg(feature = "llvm")]
fn byte_dots() -> Program {
    let (mut b, params) = Builder::new("dots", &[]);
    let ints = Ty::vector(Elem::I32, 16);
    let [sums, a, w] = [0, 64, 128].map(|at| b.load(ints, params[0], at));
    let sums = b.dot4_i8(sums, a, w);
    b.store(sums, params[0], 0);
    Program { functions: vec![b.finish()] }
}

/// Both dot products on 16 lanes.
fn dots() -> Program {
    let (mut b, params) = Builder::new("dots", &[]);
    let (i, f) = (Ty::vector(Elem::I32, 16), Ty::vector(Elem::F32, 16));
    let [sums, a, w] = [0, 64, 128].map(|at| b.load(i, params[0], at));
    let sums = b.dot4_i8(sums, a, w);
    b.store(sums, params[0], 0);
    let acc = b.load(f, params[0], 192);
    let acc = b.dot2_bf16(acc, a, w);
    b.store(acc, params[0], 192);
    Program { functions: vec![b.finish()] }
}

#[cfg(feature = "llvm")]
#[test]
fn dot_products_are_instructions_where_they_exist() {
    let asm = |target: &str| asm(&dots(), target);
    for target in ["x86-64-v4", "x86-64-amx"] {
        let asm = asm(target);
        for word in ["zmm", "vdpbf16ps", "vpdpbusd"] {
            assert!(asm.contains(word), "{target}: no {word} in\n{asm}");
        }
    }
    let asm = asm("x86-64-v3");
    assert!(asm.contains("vfmadd") && !asm.contains("zmm") && !asm.contains("vpdpbusd"), "{asm}");
}

#[cfg(feature = "llvm")]
#[test]
fn tiles_are_instructions_where_they_exist() {
    for (name, product) in [("tiles_i8", "tdpbsud"), ("tiles_bf16", "tdpbf16ps")] {
        let program = file_test(&folder().join(format!("{name}.kir"))).program;
        let asm = |target: &str| asm(&program, target);
        let with = asm("x86-64-amx");
        for word in ["ldtilecfg", "tileloadd", product, "tilestored", "tilerelease"] {
            assert!(with.contains(word), "no {word} in\n{with}");
        }
        let without = asm("x86-64-v4");
        assert!(!without.contains("tile") && without.contains("zmm"), "{without}");
    }
}

#[cfg(feature = "llvm")]
#[test]
fn tables_of_numbers_are_looked_up_in_registers() {
    let program = file_test(&folder().join("lookup16.kir")).program;
    let asm = |target: &str| asm(&program, target);
    assert!(asm("x86-64-v4").contains("vpermps") && !asm("x86-64-v3").contains("zmm"));
}

#[test]
fn the_same_program_gives_the_same_bytes() -> Checked<()> {
    let program = kirgen::program(1);
    for target in Target::names().filter(|n| n.starts_with("x86-64")).filter_map(Target::from_name) {
        for backend in backends() {
            let first = objects(&*backend, &program, &target)?;
            assert_eq!(first, objects(&*backend, &program, &target)?, "{}, {}", backend.name(), target.name);
        }
    }
    Ok(())
}

#[test]
fn programs_have_text_forms() -> Checked<()> {
    let (program, target) = (kirgen::program(3), known("x86-64-v3")?);
    for backend in backends() {
        let ir = backend.ir_text(&program, &target)?;
        let asm = backend.asm_text(&program, &target)?;
        assert!(ir.contains("helper") && asm.contains("helper") && asm.contains("ret"), "{}", backend.name());
    }
    Ok(())
}

#[test]
fn what_cannot_be_compiled_is_an_error() -> Checked<()> {
    let mut target = known("x86-64-v3")?;
    let mut broken = dots();
    broken.functions[0].body.body.remove(0);
    for backend in backends() {
        let error = backend.compile(&broken, &target).expect_err("a value is not defined");
        assert!(matches!(error, BackendError::Function { .. }), "{error}");
        assert!(error.to_string().contains("not defined"), "{error}");
    }
    (target.name, target.triple) = ("toaster".into(), "z80-unknown-none");
    for backend in backends() {
        let error = backend.compile(&dots(), &target).expect_err("an unknown target");
        assert!(matches!(error, BackendError::Target { .. }), "{error}");
    }
    Ok(())
}

#[test]
fn every_target_gets_objects() -> Checked<()> {
    for target in Target::names().filter_map(Target::from_name).filter(|t| !t.is_gpu()) {
        for backend in backends() {
            for seed in 0..20 {
                objects(&*backend, &kirgen::program(seed), &target)?;
            }
        }
    }
    Ok(())
}
