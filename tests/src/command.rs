//! The real `llmc` and real artifacts, as processes: built once, started with a clean environment,
//! and judged by exit code, output and what they leave on the disk.

use crate::weights;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::ops::Deref;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Once, OnceLock};

/// What a process did.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code; a signal is an error of the test.
    pub code: i32,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error as text.
    pub err: String,
}

impl Ended {
    /// Runs a command to its end with `input` as its standard input. Panics if a signal ends it.
    pub fn of(command: &mut Command, input: &[u8]) -> Ended {
        let mut child = piped(command);
        let mut stdin = child.stdin.take().expect("standard input is piped");
        // A process that does not read its input closes the pipe.
        let _ = stdin.write_all(input);
        drop(stdin);
        Ended::wait(child, &format!("{command:?}"))
    }

    /// Waits for a process. Panics if a signal ends it.
    pub fn wait(child: Child, what: &str) -> Ended {
        let output = child.wait_with_output().expect("the process can be waited for");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        let signal = output.status.signal();
        let code = output.status.code().unwrap_or_else(|| panic!("{what} died of signal {signal:?}: {err}"));
        Ended { code, out: output.stdout, err }
    }

    /// Standard output as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap_or_else(|e| panic!("standard output is not UTF-8: {e}"))
    }

    /// Asserts success and gives the text.
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{}", self.err);
        self.text()
    }

    /// Asserts success and gives the JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.ok()).unwrap_or_else(|e| panic!("{e} in {}", self.text()))
    }

    /// Asserts an exit code, and an error message that holds all of `words`.
    pub fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{words:?} expected, got: {}", self.err);
        assert!(self.err.contains("error"), "no error message: {}", self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        assert!(words.iter().all(|w| self.err.contains(w)), "expected {words:?}, got: {}", self.err);
    }
}

/// Starts a command with all three streams piped. A child that another test is just forking may
/// still hold the program's file open for writing: then the file is busy for a moment.
pub fn piped(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for _ in 0..100 {
        match command.spawn() {
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            result => return result.unwrap_or_else(|e| panic!("{command:?} does not start: {e}")),
        }
    }
    panic!("{command:?} does not start: its file stays busy")
}

/// `llmc` with these arguments, in an environment without `LLMC_*`.
pub fn llmc<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(llmc_path());
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin");
    command
}

/// `llmc compile MODEL -o OUT -q ARGS`, to its end.
pub fn compile(model: &Path, out: &Path, args: &[&str]) -> Ended {
    Ended::of(llmc(["compile", "-q"]).arg(model).arg("-o").arg(out).args(args), b"")
}

/// The artifact of the trained model `tinywiki`, compiled once per test program for this machine.
pub fn tinywiki() -> &'static Path {
    static MADE: OnceLock<(Folder, PathBuf)> = OnceLock::new();
    let (_, path) = MADE.get_or_init(|| {
        let dir = folder("tinywiki");
        let path = dir.join("model");
        compile(&tinywiki_model(), &path, &[]).ok();
        (dir, path)
    });
    path
}

/// The model folder of `tinywiki`.
pub fn tinywiki_model() -> PathBuf {
    weights::fixtures().join("tinywiki")
}

/// Runs the `tinywiki` artifact in an empty environment.
pub fn artifact(args: &[&str]) -> Ended {
    run(tinywiki(), args, b"")
}

/// Runs an artifact in an empty environment with `input` as its standard input.
pub fn run(path: &Path, args: &[&str], input: &[u8]) -> Ended {
    Ended::of(Command::new(path).args(args).env_clear(), input)
}

/// A folder for a test's files, removed with all that is in it when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The folder is temporary: the next run removes what stays.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A new empty folder; its name is the test's own.
pub fn folder(name: &str) -> Folder {
    static SWEPT: Once = Once::new();
    let root = target_dir().join("tmp/e2e");
    SWEPT.call_once(|| sweep(&root));
    let path = root.join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&path).expect("the target folder is writable");
    Folder(path)
}

/// Removes the folders of processes that are gone.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.rsplit('-').next().unwrap_or("");
        if !Path::new("/proc").join(owner).exists() {
            // Another test program may be doing the same.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Names of everything in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder is readable").flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Whether a program is there to be run.
pub fn available(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// The `llmc` that cargo builds beside this test.
fn llmc_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let target = target_dir();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--release", "--quiet", "-p", "llmc"]).arg("--target-dir").arg(&target);
        cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        if cfg!(not(feature = "llvm")) {
            cargo.arg("--no-default-features");
        }
        assert!(cargo.status().expect("cargo starts").success(), "llmc does not build");
        target.join("release/llmc")
    })
}

/// The target folder: this program is `TARGET/PROFILE/deps/NAME`.
fn target_dir() -> PathBuf {
    let own = std::env::current_exe().expect("a program knows its path");
    own.ancestors().nth(3).expect("cargo's layout").to_path_buf()
}
