//! What a machine needs before llmc can be built: LLVM 22's development packages, if they can be had.

use crate::root;
use std::path::Path;
use std::process::{Command, Stdio};

/// Debian packages of the LLVM back end.
const PACKAGES: [&str; 3] = ["llvm-22-dev", "libpolly-22-dev", "libzstd-dev"];
/// Where they put LLVM.
const PREFIX: &str = "/usr/lib/llvm-22";
/// NVIDIA's assembler and disassembler on PyPI. The assembler is of CUDA 12, whose machine code
/// drivers from 525 on load; there is no disassembler of CUDA 12 there, and that of 13 reads it.
const CUDA_TOOLS: [&str; 2] = ["nvidia-cuda-nvcc-cu12==12.9.86", "nvidia-cuda-nvdisasm==13.5.37"];

/// What can be built here.
pub struct Setup {
    /// Whether LLVM 22 is there.
    pub llvm: bool,
}

impl Setup {
    /// Flags of cargo for a package that has the `llvm` feature.
    pub fn features(&self) -> &'static [&'static str] {
        if self.llvm { &[] } else { &["--no-default-features"] }
    }
}

/// Installs what is missing where that is allowed; says what was decided.
pub fn prepare() -> anyhow::Result<Setup> {
    if !has_llvm() {
        install(&PACKAGES);
    }
    let llvm = has_llvm();
    if !llvm {
        eprintln!(
            "LLVM 22 is not there and could not be installed: building with Cranelift alone. For the LLVM back end: apt-get install {}",
            PACKAGES.join(" ")
        );
    }
    Ok(Setup { llvm })
}

fn has_llvm() -> bool {
    let prefix = std::env::var("LLVM_SYS_221_PREFIX").unwrap_or_else(|_| PREFIX.into());
    Path::new(&prefix).join("bin/llvm-config").exists() && Path::new(&prefix).join("lib/libLLVMCore.a").exists()
}

/// Installs those of `packages` that dpkg does not know as installed; failing is no error.
pub fn install_missing(packages: &[&str]) {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|p| !quiet(&format!("dpkg -s {p} | grep -q '^Status: install ok installed'")))
        .copied()
        .collect();
    if !missing.is_empty() {
        install(&missing);
    }
}

/// Puts NVIDIA's assembler and disassembler into `target/cuda-tools`, which is part of no artifact.
/// Failing is no error: tests that need them say that they were skipped.
pub fn fetch_cuda_tools() {
    let (folder, unfinished) = (root().join("target/cuda-tools"), root().join("target/cuda-tools.part"));
    if folder.exists() {
        return;
    }
    eprintln!("fetching {}", CUDA_TOOLS.join(" "));
    let _ = std::fs::remove_dir_all(&unfinished);
    // One call for both: pip does not add to a folder that another call has made.
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"]);
    pip.arg(&unfinished).args(CUDA_TOOLS).stdout(Stdio::null()).stderr(Stdio::null());
    if !pip.status().is_ok_and(|s| s.success()) || std::fs::rename(&unfinished, &folder).is_err() {
        eprintln!("they could not be had: tests of NVIDIA's tools will be skipped where no others are found");
    }
}

/// Installs packages by apt-get, as root or through sudo without a password. Failing is no error:
/// what needs them says so.
fn install(packages: &[&str]) {
    let prefix: &[&str] = if quiet("id -u | grep -qx 0") {
        &[]
    } else if quiet("sudo -n true") {
        &["sudo", "-n"]
    } else {
        return;
    };
    eprintln!("installing {}", packages.join(" "));
    for arguments in [vec!["update"], [&["install", "-y", "--no-install-recommends"][..], packages].concat()] {
        let mut line: Vec<&str> = prefix.to_vec();
        line.push("apt-get");
        line.extend(arguments);
        let status = Command::new(line[0]).args(&line[1..]).stdout(Stdio::null()).status();
        if !status.is_ok_and(|s| s.success()) {
            eprintln!("{} failed", line.join(" "));
        }
    }
}

fn quiet(script: &str) -> bool {
    let status = Command::new("sh").args(["-c", script]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|s| s.success())
}
