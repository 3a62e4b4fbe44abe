//! Code for AArch64, run by QEMU's user mode: objects are linked with a small C program (`tests/emulated/harness.c`)
//! by a cross compiler. Both tools are optional.

use crate::command::Ended;
use llmc_kernels::{Object, Target};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const COMPILER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";

/// A processor for each target: one that has what the target asks for, and as little more as can be had.
const PROCESSORS: [(&str, &str); 3] =
    [("aarch64", "cortex-a57"), ("aarch64-dotprod", "neoverse-n1"), ("aarch64-i8mm", "max")];

/// The targets that are emulated.
pub fn targets() -> impl Iterator<Item = Target> {
    PROCESSORS.iter().map(|(name, _)| Target::from_name(name).expect("a known target"))
}

/// Whether compiler and emulator are there; says which is not.
pub fn available() -> bool {
    let missing = |tool: &&str| {
        let status = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        !status.is_ok_and(|s| s.success())
    };
    let missing: Vec<&str> = [COMPILER, EMULATOR].into_iter().filter(missing).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {} not found", missing.join(" and "));
    }
    missing.is_empty()
}

/// A call of compiled code.
#[derive(Clone, Debug)]
pub struct Call {
    /// Memory; the first buffer is the argument.
    pub buffers: Vec<Vec<u8>>,
    /// Pointers: the buffer each lies in, its offset there, the buffer it points to.
    pub pointers: Vec<[usize; 3]>,
    /// Threads.
    pub workers: usize,
}

impl Call {
    /// A call whose argument is a list of the addresses of `buffers`.
    pub fn of(buffers: &[Vec<u8>], workers: usize) -> Call {
        let pointers = (0..buffers.len()).map(|i| [0, 8 * i, i + 1]).collect();
        Call { buffers: [&[vec![0; 8 * buffers.len()]], buffers].concat(), pointers, workers }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let number = |bytes: &mut Vec<u8>, n: usize| bytes.extend((n as u64).to_le_bytes());
        for n in [self.buffers.len(), self.pointers.len(), self.workers] {
            number(&mut bytes, n);
        }
        for buffer in &self.buffers {
            number(&mut bytes, buffer.len());
            bytes.extend(buffer);
        }
        self.pointers.iter().flatten().for_each(|n| number(&mut bytes, *n));
        bytes
    }
}

/// A program for the emulator.
#[derive(Debug)]
pub struct Emulated {
    program: PathBuf,
    processor: &'static str,
}

impl Emulated {
    /// Links objects for a target, whose entries have these names, into `folder`. Panics with what the compiler says.
    pub fn link(objects: &[Object], entries: &[&str], target: &Target, folder: &Path) -> Emulated {
        std::fs::create_dir_all(folder).expect("a folder for the program");
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            path
        };
        let object = |(i, object): (usize, &Object)| write(&format!("{i}.o"), &object.bytes);
        let objects: Vec<PathBuf> = objects.iter().enumerate().map(object).collect();
        let table = write("entries.c", table(entries).as_bytes());
        let harness = Path::new(env!("CARGO_MANIFEST_DIR")).join("emulated/harness.c");
        let program = folder.join("program");
        let mut compiler = Command::new(COMPILER);
        compiler.args(["-O1", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o"]).arg(&program);
        Ended::of(compiler.arg(harness).arg(table).args(objects), b"").ok();
        let (_, processor) = PROCESSORS.iter().find(|(name, _)| *name == target.name).expect("an emulated target");
        Emulated { program, processor }
    }

    /// Runs an entry and gives the buffers after it. Panics if the code fails.
    pub fn run(&self, entry: &str, call: &Call) -> Vec<Vec<u8>> {
        let mut command = Command::new(EMULATOR);
        command.args(["-cpu", self.processor]).arg(&self.program).arg(entry);
        let ended = Ended::of(&mut command, &call.bytes());
        assert_eq!(ended.code, 0, "{entry} on {}: {}", self.processor, ended.err);
        let mut rest = &ended.out[..];
        let take = |buffer: &Vec<u8>| rest.split_off(..buffer.len()).expect("all buffers come back").to_vec();
        call.buffers.iter().map(take).collect()
    }
}

/// C source of the table of entries.
fn table(entries: &[&str]) -> String {
    let declarations: String = entries.iter().map(|e| format!("void {e}(void *, long, long);\n")).collect();
    let rows: String = entries.iter().map(|e| format!("    {{\"{e}\", {e}}},\n")).collect();
    format!(
        "{declarations}const struct {{ const char *name; void (*run)(void *, long, long); }} entries[] = {{\n{rows}    {{0, 0}},\n}};\n"
    )
}
