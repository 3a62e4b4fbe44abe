//! Builds the runtime archive that goes into every artifact, checks that it needs nothing of the
//! system but what the table of symbols has, and compresses it for `include_bytes`.
//!
//! The archive is built by a nested cargo with a target folder of its own, from the same sources
//! and the same lock file, but for the oldest x86-64 and untouched by the flags and wrappers of the
//! cargo outside. Link-time optimisation keeps it small and drops what nothing uses.

use object::read::archive::ArchiveFile;
use object::{Object, ObjectSymbol};
use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "src/symbols.rs"]
#[allow(dead_code)]
mod symbols;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Symbols that the linker of artifacts defines itself.
const FROM_LINKER: [&str; 3] = ["llmc_variants", "llmc_variants_len", "_GLOBAL_OFFSET_TABLE_"];
/// Compression level of zstd; the archive is compressed at every build of llmc.
const LEVEL: i32 = 9;

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let root = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    for path in ["runtime", "Cargo.toml", "Cargo.lock", "compiler/link/data", "compiler/link/src/symbols.rs"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    let archive = std::fs::read(build(&root, &out.join("rt"))?)?;
    check(&archive)?;
    std::fs::write(out.join("libllmc_rt.a.zst"), zstd::bulk::compress(&archive, LEVEL)?)?;
    println!("cargo::rustc-env=LLMC_RT_BYTES={}", archive.len());
    Ok(())
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).map_err(|e| format!("{name}: {e}").into())
}

/// Runs the nested cargo and returns the archive's path.
fn build(root: &Path, target: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_none_or(belongs_to_outer_build) {
            cargo.env_remove(name);
        }
    }
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    // Panics name source files; the folders of the machine that builds must not show.
    let mut flags = vec![format!("--remap-path-prefix={}=llmc", root.display())];
    flags.extend(home.map(|home| format!("--remap-path-prefix={home}=cargo")));
    flags.extend(["-Crelocation-model=pic".into(), "-Ctarget-cpu=x86-64".into()]);
    cargo
        .current_dir(root)
        .args(["rustc", "--release", "--package", "llmc-rt", "--lib", "--crate-type", "staticlib"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(target)
        .args(["--", "--cfg", "llmc_artifact"])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    let output = cargo.output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("building the runtime (package llmc-rt) failed:\n{text}").into());
    }
    Ok(target.join(TARGET).join("release/libllmc_rt.a"))
}

/// Whether the variable describes the build outside and would change the one inside. What finds
/// tools, registries and job slots stays.
fn belongs_to_outer_build(name: &str) -> bool {
    const KEPT: [&str; 9] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUSTUP_",
        "RUSTC_BOOTSTRAP",
    ];
    const DROPPED: [&str; 12] = [
        "CARGO_",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "CLIPPY_",
        "OUT_DIR",
        "TARGET",
        "HOST",
        "OPT_LEVEL",
        "PROFILE",
        "NUM_JOBS",
        "DEBUG",
    ];
    let begins = |prefixes: &[&str]| prefixes.iter().any(|p| name.starts_with(p));
    begins(&DROPPED) && !begins(&KEPT)
}

/// Every symbol that the archive leaves undefined must be in the table.
fn check(archive: &[u8]) -> Result<()> {
    let (mut defined, mut needed) = (BTreeSet::new(), BTreeSet::new());
    for member in ArchiveFile::parse(archive)?.members() {
        // Members lie at even offsets; the reader wants more.
        let data = member?.data(archive)?.to_vec();
        let file = object::File::parse(&*data)?;
        for symbol in file.symbols() {
            let name = symbol.name()?.to_owned();
            match (symbol.is_undefined(), symbol.is_weak()) {
                (false, _) => defined.insert(name),
                (true, false) => needed.insert(name),
                (true, true) => continue,
            };
        }
    }
    let libraries = symbols::parse(symbols::X86_64_LINUX_GNU)?;
    let versions = libraries.iter().flat_map(|l| &l.versions);
    let known: BTreeSet<&str> = versions.flat_map(|v| v.symbols.iter().map(|s| s.name)).chain(FROM_LINKER).collect();
    let missing = needed.iter().filter(|n| !n.is_empty() && !defined.contains(*n) && !known.contains(n.as_str()));
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let table = "compiler/link/data/x86_64-linux-gnu.symbols";
    Err(format!(
        "the runtime needs symbols that {table} lacks: {}; add them with their versions, or avoid them",
        missing.join(", ")
    )
    .into())
}
