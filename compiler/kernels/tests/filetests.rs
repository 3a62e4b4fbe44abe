//! Runs `tests/filetests/kernel/*.kir` in the interpreter: as they stand and legalized for
//! several machines, with workers in several orders.

mod common;

use common::{check, legal, limits_of};
use llmc_kernels::kir::filetest;
use llmc_kernels::kir::interp::Order;
use llmc_kernels::kir::{text, verify};
use std::path::PathBuf;

fn files() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/filetests/kernel");
    let entries = std::fs::read_dir(folder).expect("the folder of kernel tests");
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "kir"));
    files.sort();
    files
}

/// What is wrong with a test, under all limits.
fn failures(source: &str) -> Result<(), String> {
    let test = filetest::parse(source).map_err(|e| e.to_string())?;
    verify::verify(&test.program).map_err(|e| e.to_string())?;
    for (name, limits) in limits_of(source) {
        let program = legal(&test.program, limits);
        for case in &test.runs {
            for order in [Order::Forward, Order::Reverse, Order::Seeded(1), Order::Seeded(2)] {
                check(&program, case, order).map_err(|e| format!("{name}, {order:?}: {e}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn all_files_behave() {
    let files = files();
    assert!(files.len() > 20, "found {} kernel tests", files.len());
    let wrong: Vec<String> = files
        .iter()
        .filter_map(|file| {
            let source = std::fs::read_to_string(file).expect("a readable file");
            failures(&source).err().map(|e| format!("{}: {e}", file.display()))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_files_print_and_read_back() {
    for file in files() {
        let source = std::fs::read_to_string(&file).expect("a readable file");
        let program = text::parse(&source).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for (_, limits) in limits_of(&source) {
            let program = legal(&program, limits);
            let printed = program.to_string();
            let again = text::parse(&printed).unwrap_or_else(|e| panic!("{}: {e}\n{printed}", file.display()));
            assert_eq!(again, program, "{}", file.display());
            assert_eq!(again.to_string(), printed);
        }
    }
}

#[test]
fn a_wrong_expectation_is_found() {
    let source = std::fs::read_to_string(&files()[0]).expect("a readable file");
    assert!(failures(&source).is_ok());
    let wrong = source.replace("-> 1 2 3\n", "-> 1 2 4\n");
    assert_ne!(wrong, source);
    let error = failures(&wrong).expect_err("the last element differs");
    assert!(error.contains("element 2: expected 4 (0x4), found 3 (0x3)"), "{error}");
}
