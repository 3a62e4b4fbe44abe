//! Running the tools.

use crate::error::Error;
use crate::find::{self, NVDISASM, PTXAS};
use crate::report::{self, KernelReport};
use crate::scratch::Scratch;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Messages of a refusal that are repeated.
const LAST_WORDS: usize = 4;

/// The assembler, `ptxas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    path: PathBuf,
}

/// What the assembler made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled {
    /// The machine code, an ELF file.
    pub cubin: Vec<u8>,
    /// Each kernel in it.
    pub kernels: Vec<KernelReport>,
    /// What the assembler warned of.
    pub warnings: Vec<String>,
}

/// A tool's release, such as 12.9.86.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// CUDA's major number.
    pub major: u32,
    /// CUDA's minor number.
    pub minor: u32,
    /// Build.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Tool {
    /// The one that is named, a file or a folder of programs or of Python packages; else the first
    /// of PATH, `/usr/local/cuda/bin`, and what `pip install nvidia-cuda-nvcc-cu12` installs.
    pub fn find(explicit: Option<&Path>) -> Option<Tool> {
        Tool::require(explicit).ok()
    }

    /// [`Tool::find`], with a message where there is none.
    ///
    /// # Errors
    /// [`Error::Missing`] lists where it was looked for.
    pub fn require(explicit: Option<&Path>) -> Result<Tool, Error> {
        Ok(Tool { path: find::find(&PTXAS, explicit)? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its release.
    ///
    /// # Errors
    /// If it does not run, or says nothing of the kind.
    pub fn version(&self) -> Result<Version, Error> {
        version(&self.path)
    }

    /// Assembles PTX for one GPU generation, such as `sm_90a`.
    ///
    /// # Errors
    /// [`Error::Refused`] quotes the lines of PTX that are wrong.
    pub fn assemble(&self, ptx: &str, arch: &str) -> Result<Assembled, Error> {
        let scratch = Scratch::new()?;
        scratch.write("kernel.ptx", ptx.as_bytes())?;
        let arguments = ["-v", "-O3", "-arch", arch, "kernel.ptx", "-o", "kernel.cubin"];
        let output = run(&self.path, &arguments, scratch.path())?;
        let said = text(&output);
        if !output.status.success() {
            return Err(Error::Refused { tool: self.path.clone(), arch: arch.into(), said: refusal(&said, ptx) });
        }
        let (kernels, warnings) = report::parse(&said);
        Ok(Assembled { cubin: scratch.read("kernel.cubin")?, kernels, warnings })
    }
}

/// The disassembler, `nvdisasm`. (`cuobjdump` would only start it.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disassembler {
    path: PathBuf,
}

impl Disassembler {
    /// As [`Tool::find`]; the package is `nvidia-cuda-nvdisasm`, whose release need not be the
    /// assembler's.
    pub fn find(explicit: Option<&Path>) -> Option<Disassembler> {
        Disassembler::require(explicit).ok()
    }

    /// [`Disassembler::find`], with a message where there is none.
    ///
    /// # Errors
    /// [`Error::Missing`] lists where it was looked for.
    pub fn require(explicit: Option<&Path>) -> Result<Disassembler, Error> {
        Ok(Disassembler { path: find::find(&NVDISASM, explicit)? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its release.
    ///
    /// # Errors
    /// If it does not run, or says nothing of the kind.
    pub fn version(&self) -> Result<Version, Error> {
        version(&self.path)
    }

    /// The machine code of a cubin as text, for [`crate::functions`] and [`crate::count`].
    ///
    /// # Errors
    /// If it does not run, or takes the bytes for no cubin.
    pub fn sass(&self, cubin: &[u8]) -> Result<String, Error> {
        let scratch = Scratch::new()?;
        scratch.write("kernel.cubin", cubin)?;
        let output = run(&self.path, &["-c", "kernel.cubin"], scratch.path())?;
        let listing = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() && listing.contains(".text.") {
            true => Ok(listing),
            false => Err(Error::Strange {
                tool: self.path.clone(),
                expected: "a listing of machine code",
                found: text(&output).lines().take(LAST_WORDS).collect::<Vec<_>>().join("; "),
            }),
        }
    }
}

fn run(tool: &Path, arguments: &[&str], folder: &Path) -> Result<Output, Error> {
    // A relative path would be looked up in the other folder.
    let program = std::path::absolute(tool).unwrap_or_else(|_| tool.to_owned());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env("TMPDIR", folder).stdin(Stdio::null());
    command.output().map_err(|source| Error::Start { tool: tool.to_owned(), source })
}

/// All that a tool printed.
fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned()).concat()
}

fn version(tool: &Path) -> Result<Version, Error> {
    let said = text(&run(tool, &["--version"], Path::new("/"))?);
    parse_version(&said).ok_or_else(|| Error::Strange {
        tool: tool.to_owned(),
        expected: "a release such as V12.9.86",
        found: said.lines().next().unwrap_or_default().to_owned(),
    })
}

fn parse_version(said: &str) -> Option<Version> {
    let word = said.split_whitespace().find_map(|w| w.strip_prefix('V').filter(|v| v.contains('.')))?;
    let mut numbers = word.split('.').map(|n| n.parse().ok());
    Some(Version { major: numbers.next()??, minor: numbers.next()??, patch: numbers.next()?? })
}

/// The messages that matter, each with the line of PTX it is about.
fn refusal(said: &str, ptx: &str) -> String {
    let bad = said.lines().filter(|l| ["error", "fatal", "unresolved"].iter().any(|w| l.to_lowercase().contains(w)));
    let messages: Vec<String> = bad.take(LAST_WORDS).map(|line| with_source(line, ptx)).collect();
    match messages.is_empty() {
        true => format!("it says nothing of errors, but `{}`", said.trim()),
        false => messages.join("\n"),
    }
}

fn with_source(line: &str, ptx: &str) -> String {
    let number = line.split_once(", line ").and_then(|(_, rest)| rest.split(';').next()?.trim().parse::<usize>().ok());
    match number.and_then(|n| ptx.lines().nth(n.checked_sub(1)?)) {
        Some(source) => format!("{line}: `{}`", source.trim()),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_read() {
        let said = "ptxas: NVIDIA (R) Ptx optimizing assembler\nCuda compilation tools, release 12.9, V12.9.86\n";
        assert_eq!(parse_version(said).map(|v| v.to_string()).as_deref(), Some("12.9.86"));
        assert_eq!(parse_version("usage: V"), None);
        assert!(Version { major: 12, minor: 9, patch: 86 } < Version { major: 13, minor: 0, patch: 1 });
    }

    #[test]
    fn a_refusal_quotes_the_line() {
        let said = "ptxas kernel.ptx, line 2; error   : Unknown symbol 'x'\nptxas fatal   : aborted due to errors\n";
        let message = refusal(said, "a\n  mov x;\n");
        assert!(message.starts_with("ptxas kernel.ptx, line 2; error   : Unknown symbol 'x': `mov x;`"), "{message}");
    }
}
