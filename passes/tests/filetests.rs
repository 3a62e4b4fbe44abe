//! Runs `tests/filetests/rewrite/*.llir`: a block, and below it what rewriting makes of it.
//!
//! The header says `target` (cost facts) and `rules` (rules that must fire and without which the
//! block must look different). `LLMC_BLESS=1` writes what is found into the files.

mod support;

use llmc_passes::egraph::rules;
use std::collections::BTreeSet;
use support::FileTest;

#[test]
fn blocks_become_what_the_files_say() {
    let bless = std::env::var_os("LLMC_BLESS").is_some();
    let mut failures = Vec::new();
    for file in FileTest::all() {
        let found = file.result();
        if found == file.expected {
            continue;
        }
        match bless {
            true => file.bless(&found),
            false => failures.push(format!("{}:\n{}", file.path.display(), diff(&file.expected, &found))),
        }
    }
    assert!(failures.is_empty(), "{}\nLLMC_BLESS=1 accepts what was found", failures.join("\n"));
}

/// Lines with `-` where only the expectation has them and `+` where only the result does.
fn diff(expected: &str, found: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let start = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let end = a[start..].iter().rev().zip(b[start..].iter().rev()).take_while(|(x, y)| x == y).count();
    let removed = a[start..a.len() - end].iter().map(|l| format!("- {l}\n"));
    removed.chain(b[start..b.len() - end].iter().map(|l| format!("+ {l}\n"))).collect()
}

#[test]
fn every_rule_is_needed_by_a_file() {
    let mut needed = BTreeSet::new();
    for file in FileTest::all() {
        let (plan, report) = file.rewrite(&file.options());
        let fired: BTreeSet<&str> = report.blocks().flat_map(|b| &b.rules).map(|r| r.name).collect();
        for rule in &file.rules {
            assert!(fired.contains(rule.as_str()), "{}: {rule} does not fire", file.path.display());
            let mut options = file.options();
            options.disabled_rules.push(rule.clone());
            let (without, _) = file.rewrite(&options);
            assert_ne!(plan.to_string(), without.to_string(), "{}: {rule} changes nothing", file.path.display());
            needed.insert(rule.clone());
        }
    }
    let idle: Vec<&str> = rules::all().map(|r| r.name).filter(|n| !needed.contains(*n)).collect();
    assert!(idle.is_empty(), "no file in tests/filetests/rewrite needs {}", idle.join(", "));
}
