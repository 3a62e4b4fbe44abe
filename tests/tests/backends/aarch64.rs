//! Both code generators for AArch64, whose code an emulator runs, against the kernel IR's interpreter, bit for bit.

use super::{Checked, WORKERS, backends, file_test, files, input, interpreted, meaning, objects};
use llmc_kernels::Target;
use llmc_kernels::kir::Program;
use llmc_kernels::kir::text::parse;
use llmc_tests::emulated::{self, Call, Emulated};
use llmc_tests::kirgen;
use std::path::Path;

/// Random programs, beside the files.
const PROGRAMS: u64 = 24;

/// Says what is wrong with buffers.
type Check = Box<dyn Fn(&[Vec<u8>]) -> Result<(), String>>;

/// A call of a program's entry with what the buffers have to hold afterwards.
struct Case {
    name: String,
    call: Call,
    check: Check,
}

/// The program with a name of its own for each function, so that many can be linked together.
fn renamed(program: &Program, prefix: &str) -> Program {
    let text = program.to_string().replace('@', &format!("@{prefix}_"));
    parse(&text).unwrap_or_else(|e| panic!("{prefix}: {e}"))
}

/// Every file for CPUs, with one case for each of its runs.
fn of_files() -> Checked<Vec<(Program, Vec<Case>)>> {
    let of = |path: &Path| {
        let test = file_test(path);
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let name = format!("{stem}_{}", test.program.functions.last().expect("an entry").name);
        let program = renamed(&test.program, &stem);
        let cases = test.runs.into_iter().map(|run| {
            let inputs: Vec<Vec<u8>> = run.buffers.iter().map(|b| b.input.clone()).collect();
            let call = Call::of(&inputs, run.workers);
            let check = move |found: &[Vec<u8>]| run.buffers.iter().zip(found).try_for_each(|(b, out)| b.check(out));
            Case { name: name.clone(), call, check: Box::new(check) }
        });
        (program, cases.collect())
    };
    Ok(files()?.iter().filter(|f| !file_test(f).has_groups()).map(|f| of(f)).collect())
}

fn of_seed(seed: u64, target: &Target) -> (Program, Vec<Case>) {
    let program = kirgen::program(seed);
    let input = input(seed);
    let expected = interpreted(&meaning(&program, target), &input);
    let prefix = format!("seed{seed}");
    let check = move |found: &[Vec<u8>]| match found[1].iter().zip(&expected).position(|(a, b)| a != b) {
        Some(at) => Err(format!("byte {at}")),
        None => Ok(()),
    };
    let call = Call::of(&[input, vec![0; WORKERS * kirgen::OUTPUT_BYTES]], WORKERS);
    let case = Case { name: format!("{prefix}_entry"), call, check: Box::new(check) };
    (renamed(&program, &prefix), vec![case])
}

#[test]
fn an_emulator_computes_the_interpreters_bits() -> Checked<()> {
    if !emulated::available() {
        return Ok(());
    }
    let mut wrong = Vec::new();
    for target in emulated::targets() {
        let programs: Vec<_> =
            of_files()?.into_iter().chain((0..PROGRAMS).map(|seed| of_seed(seed, &target))).collect();
        for backend in backends() {
            let objects = programs.iter().map(|(p, _)| objects(&*backend, p, &target));
            let objects = objects.collect::<Checked<Vec<_>>>()?.concat();
            let mut names: Vec<&str> = programs.iter().flat_map(|(_, cases)| cases.iter().map(|c| &*c.name)).collect();
            names.dedup();
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{}", backend.name(), target.name));
            let emulated = Emulated::link(&objects, &names, &target, &folder);
            for case in programs.iter().flat_map(|(_, cases)| cases) {
                let found = emulated.run(&case.name, &case.call);
                let result = (case.check)(&found[1..]);
                wrong.extend(result.err().map(|e| format!("{}, {}, {}: {e}", case.name, backend.name(), target.name)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[cfg(feature = "llvm")]
#[test]
fn products_of_bytes_are_instructions_where_they_exist() {
    let asm = |target: &str| super::asm(&super::byte_dots(), target);
    let [base, dotprod, i8mm] = ["aarch64", "aarch64-dotprod", "aarch64-i8mm"].map(asm);
    let has = |asm: &str, word: &str| asm.split_whitespace().any(|w| w == word);
    assert!(!has(&base, "sdot") && !has(&base, "usdot"), "{base}");
    assert!(has(&dotprod, "sdot") && !has(&dotprod, "usdot"), "{dotprod}");
    assert!(has(&i8mm, "usdot") && !has(&i8mm, "sdot"), "{i8mm}");
}
