//! Rules that no compiler checks.
//!
//! - The direction of dependencies between the project's crates, and the one crate that may see
//!   each large library.
//! - No tensor arithmetic in the runtime; no unfinished code; no path of somebody's machine.

use crate::{cargo, root};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Each crate with the project's crates that it may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("llmc-abi", &[]),
    ("llmc-ir", &[]),
    ("llmc-models", &["llmc-ir", "llmc-abi"]),
    ("llmc-passes", &["llmc-ir"]),
    ("llmc-kernels", &["llmc-ir", "llmc-abi"]),
    ("llmc-lower", &["llmc-ir", "llmc-kernels", "llmc-abi"]),
    ("llmc-codegen-llvm", &["llmc-kernels", "llmc-abi"]),
    ("llmc-codegen-cranelift", &["llmc-kernels", "llmc-abi"]),
    ("llmc-link", &["llmc-kernels", "llmc-abi"]),
    ("llmc-jit", &["llmc-kernels", "llmc-abi"]),
    ("llmc-calibrate", &["llmc-ir", "llmc-passes", "llmc-kernels", "llmc-lower", "llmc-jit", "llmc-abi"]),
    ("llmc-ptxas", &[]),
    ("llmc-rt", &["llmc-abi"]),
];

/// Each large library with the only crate that may depend on it.
const SEEN_BY: &[(&str, &str)] = &[
    ("petgraph", "llmc-ir"),
    ("egg", "llmc-passes"),
    ("inkwell", "llmc-codegen-llvm"),
    ("cranelift-codegen", "llmc-codegen-cranelift"),
    ("safetensors", "llmc-models"),
];

/// Libraries that have to do real work somewhere.
const REQUIRED: &[&str] = &["egg", "petgraph", "safetensors", "half", "inkwell", "cranelift-codegen", "clap", "rayon"];

/// Text that must not be in a source file, and why. Pieces keep this table from finding itself.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("todo", "!(", "unfinished code"),
    ("unimplemented", "!(", "unfinished code"),
    ("dbg", "!(", "left from debugging"),
];

/// Runs all checks.
pub fn run() -> Result<()> {
    let mut findings = dependencies()?;
    for file in rust_files(root())? {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        findings.extend(file_findings(&file, &text));
    }
    if !findings.is_empty() {
        bail!("tidy:\n{}", findings.join("\n"));
    }
    eprintln!("tidy: dependency directions and sources are in order");
    Ok(())
}

fn dependencies() -> Result<Vec<String>> {
    let output = cargo().args(["metadata", "--format-version", "1", "--no-deps"]).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut findings = Vec::new();
    let mut used = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let direct = package["dependencies"].as_array().into_iter().flatten();
        // Dependencies of tests may point anywhere.
        for dependency in direct.filter(|d| d["kind"].as_str() != Some("dev")).filter_map(|d| d["name"].as_str()) {
            used.push(dependency.to_owned());
            findings.extend(direction(name, dependency));
        }
    }
    findings.extend(REQUIRED.iter().filter(|r| !used.iter().any(|u| u == *r)).map(|r| format!("no crate uses {r}")));
    Ok(findings)
}

fn direction(name: &str, dependency: &str) -> Option<String> {
    let ours = dependency == "llmc" || dependency.starts_with("llmc-");
    if let Some((_, allowed)) = MAY_USE.iter().find(|(n, _)| *n == name)
        && ours
        && !allowed.contains(&dependency)
    {
        return Some(format!("{name} must not depend on {dependency}; it may use {allowed:?}"));
    }
    let (_, only) = SEEN_BY.iter().find(|(library, _)| *library == dependency)?;
    (name != *only).then(|| format!("{name} depends on {dependency}, which only {only} may see"))
}

fn file_findings(path: &Path, text: &str) -> Vec<String> {
    let at = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    let mut findings = Vec::new();
    for (start, end, why) in FORBIDDEN {
        if text.contains(&format!("{start}{end}")) {
            findings.push(format!("{at}: {start}: {why}"));
        }
    }
    if text.lines().count() > 1000 {
        findings.push(format!("{at}: over 1,000 lines; split it by concept"));
    }
    if at.starts_with("runtime/rt/src") && text.contains("mul_add(") {
        findings.push(format!("{at}: tensor arithmetic belongs to compiled code, not to the runtime"));
    }
    findings
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>()?;
    entries.sort();
    for path in entries {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && !name.starts_with("target") {
            files.extend(rust_files(&path)?);
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    Ok(files)
}
