//! Code generation in a process of its own.
//!
//! LLVM ends its process on what it cannot select. So llmc starts itself once more for it, hands the
//! program over as text on standard input, and takes object files or text from standard output: a
//! death there is an error message here.
//!
//! Objects are framed as `name length, name, bytes length, bytes`, lengths in 8 little-endian bytes.

use crate::error::{Error, Result};
use llmc_kernels::kir::{Program, text};
use llmc_kernels::{Backend, BackendError, Object, Target};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output, Stdio};

/// Lines of a dead process's last words that are repeated.
const LAST_WORDS: usize = 4;

/// What is asked of the other process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Product {
    /// Object files.
    Object,
    /// The code generator's own IR.
    Ir,
    /// Assembly.
    Asm,
}

/// A code generator that runs in another process.
pub struct Isolated {
    inner: Box<dyn Backend>,
    program: PathBuf,
}

impl Isolated {
    /// `inner`, run by the llmc executable `program`.
    pub fn new(inner: Box<dyn Backend>, program: PathBuf) -> Isolated {
        Isolated { inner, program }
    }

    fn ask(&self, product: Product, program: &Program, target: &Target) -> std::result::Result<Vec<u8>, BackendError> {
        let product = clap::ValueEnum::to_possible_value(&product).expect("no product is hidden");
        let mut command = Command::new(&self.program);
        command
            .args(["generate-code", "--target", &target.name, "--product", product.get_name()])
            .args(["--jobs", &rayon::current_num_threads().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = talk(&mut command, program.to_string().as_bytes());
        let output = output.map_err(|e| self.died(&format!("could not run as {}: {e}", self.program.display())))?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(self.died(&obituary(&output))),
        }
    }

    fn died(&self, message: &str) -> BackendError {
        BackendError::Process { backend: self.inner.name(), message: message.into() }
    }
}

impl Backend for Isolated {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn compile(&self, program: &Program, target: &Target) -> std::result::Result<Vec<Object>, BackendError> {
        let bytes = self.ask(Product::Object, program, target)?;
        unframe(&bytes).ok_or_else(|| self.died("its output is cut off"))
    }

    fn ir_text(&self, program: &Program, target: &Target) -> std::result::Result<String, BackendError> {
        Ok(String::from_utf8_lossy(&self.ask(Product::Ir, program, target)?).into_owned())
    }

    fn asm_text(&self, program: &Program, target: &Target) -> std::result::Result<String, BackendError> {
        Ok(String::from_utf8_lossy(&self.ask(Product::Asm, program, target)?).into_owned())
    }
}

/// Runs a command with some input. It reads all of it before it writes; where it ends early, its
/// status says more than the broken pipe.
fn talk(command: &mut Command, input: &[u8]) -> std::io::Result<Output> {
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output()
}

/// How a process ended, with its last words.
fn obituary(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&str> = said.lines().filter(|l| !l.trim().is_empty()).take(LAST_WORDS).collect();
    let words = words.join("\n").trim_start_matches("error: ").to_owned();
    match cause(output.status) {
        None => words,
        Some(cause) if words.is_empty() => cause,
        Some(cause) => format!("{cause}: {words}"),
    }
}

/// What ended a process that did not end by itself.
fn cause(status: ExitStatus) -> Option<String> {
    let signal = status.signal()?;
    Some(format!("its process died of signal {signal}, which is a bug of llmc; --backend cranelift may get by"))
}

/// The other end: reads a program from standard input and writes what is asked for.
///
/// # Errors
/// If the program is not one, or the code generator refuses it.
pub fn serve(backend: &dyn Backend, target: &str, product: Product) -> Result<()> {
    // SAFETY: plain numbers; the process is to end with the one that waits for it.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let target = Target::from_name(target).ok_or_else(|| Error::Usage(format!("unknown target `{target}`")))?;
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).map_err(|e| Error::Failed(format!("reading the program: {e}")))?;
    let program = text::parse(&input).map_err(|e| Error::Input(format!("the program: {e}")))?;
    let bytes = match product {
        Product::Object => frame(&backend.compile(&program, &target)?),
        Product::Ir => backend.ir_text(&program, &target)?.into_bytes(),
        Product::Asm => backend.asm_text(&program, &target)?.into_bytes(),
    };
    std::io::stdout().write_all(&bytes).map_err(|e| Error::Failed(format!("writing the code: {e}")))
}

fn frame(objects: &[Object]) -> Vec<u8> {
    let parts = objects.iter().flat_map(|o| [o.name.as_bytes(), &o.bytes]);
    parts.flat_map(|part| [&(part.len() as u64).to_le_bytes()[..], part].concat()).collect()
}

fn unframe(mut bytes: &[u8]) -> Option<Vec<Object>> {
    let mut part = || -> Option<Option<Vec<u8>>> {
        if bytes.is_empty() {
            return Some(None);
        }
        let (len, rest) = bytes.split_at_checked(8)?;
        let len = u64::from_le_bytes(len.try_into().ok()?);
        let (part, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        bytes = rest;
        Some(Some(part.to_vec()))
    };
    let mut objects = Vec::new();
    while let Some(name) = part()? {
        objects.push(Object { name: String::from_utf8(name).ok()?, bytes: part()?? });
    }
    Some(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmc_codegen_cranelift::CraneliftBackend;

    fn object(name: &str, bytes: &[u8]) -> Object {
        Object { name: name.into(), bytes: bytes.into() }
    }

    #[test]
    fn objects_survive_framing_and_cuts_are_found() {
        let objects = [object("a", &[1, 2, 3]), object("", &[])];
        let bytes = frame(&objects);
        assert_eq!(unframe(&bytes).as_deref(), Some(&objects[..]));
        assert_eq!(unframe(&bytes[..bytes.len() - 1]), None);
        assert_eq!(unframe(&[]), Some(vec![]));
    }

    fn said_by(script: &str) -> String {
        let output = talk(
            Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()),
            b"func",
        );
        obituary(&output.expect("there is a shell"))
    }

    #[test]
    fn a_death_is_a_message() {
        let said = said_by("echo 'LLVM ERROR: Cannot select: t1' >&2; kill -ABRT $$");
        assert!(said.contains("signal 6") && said.ends_with("LLVM ERROR: Cannot select: t1"), "{said}");
        assert_eq!(said_by("echo 'error: the program: line 1' >&2; exit 3"), "the program: line 1");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let isolated = Isolated::new(Box::new(CraneliftBackend), "/nonexistent/llmc".into());
        let target = Target::from_name("x86-64-v3").expect("known");
        let error = isolated.compile(&Program { functions: vec![] }, &target).expect_err("no such program");
        assert!(error.to_string().contains("/nonexistent/llmc"), "{error}");
    }
}
