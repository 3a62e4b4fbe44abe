//! An artifact stands alone, and making one takes nothing of the system's tool chain.

use llmc_tests::command::{Ended, artifact, available, compile, folder, llmc, names, run, tinywiki, tinywiki_model};
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSymbol};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

type Header = FileHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;
/// Largest artifact without its weights.
const MOST_BYTES: u64 = 15 << 20;

/// Values of the dynamic section's entries with this tag.
fn dynamic(bytes: &[u8], tag: u32) -> Vec<u64> {
    let header = Header::parse(bytes).expect("ELF");
    let segments = header.program_headers(LE, bytes).expect("program headers");
    let dynamic = segments.iter().find_map(|s| s.dynamic(LE, bytes).expect("dynamic section"));
    let entries = dynamic.expect("the program is linked dynamically").iter();
    entries.filter(|d| d.tag32(LE) == Some(tag)).map(|d| d.d_val(LE)).collect()
}

/// Runs programs as on another x86-64 processor.
const EMULATOR: &str = "qemu-x86_64";

#[test]
fn alone_in_an_empty_folder() {
    let folder = folder("alone");
    let path = folder.join("m");
    fs::copy(tinywiki(), &path).expect("copied");
    let mut command = Command::new("/usr/bin/env");
    command.args(["-i", "./m", "run", "The river", "-n", "8"]).current_dir(&*folder);
    assert!(Ended::of(&mut command, b"").ok().trim().len() > 3);
    assert_eq!(names(&folder), ["m"]);
}

#[test]
fn needs_the_c_library_at_most() {
    let bytes = fs::read(tinywiki()).expect("readable");
    let file = ElfFile64::<LittleEndian>::parse(&*bytes).expect("ELF");
    let libraries = dynamic_names(&bytes);
    let known = ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"];
    assert!(libraries.iter().all(|l| known.contains(&l.as_str())), "{libraries:?}");
    assert!(libraries.contains(&"libc.so.6".to_owned()), "{libraries:?}");
    let versions = file.imports().expect("imports").len();
    assert!(versions > 0, "the program imports from the C library");
}

fn dynamic_names(bytes: &[u8]) -> Vec<String> {
    let strings = dynamic(bytes, elf::DT_STRTAB)[0] as usize;
    // The first segment maps the file's beginning to address 0.
    let name = |at: u64| {
        let rest = &bytes[strings + at as usize..];
        let end = rest.iter().position(|b| *b == 0).expect("names end");
        String::from_utf8(rest[..end].to_vec()).expect("names are text")
    };
    dynamic(bytes, elf::DT_NEEDED).into_iter().map(name).collect()
}

#[test]
fn hardened() {
    let bytes = fs::read(tinywiki()).expect("readable");
    let header = Header::parse(&*bytes).expect("ELF");
    assert_eq!(header.e_type(LE), elf::ET_DYN);
    let flags = |tag| dynamic(&bytes, tag).into_iter().fold(0, |a, b| a | b);
    assert_ne!(flags(elf::DT_FLAGS) & u64::from(elf::DF_BIND_NOW), 0, "BIND_NOW");
    assert_ne!(flags(elf::DT_FLAGS_1) & u64::from(elf::DF_1_NOW), 0, "NOW");
    assert_ne!(flags(elf::DT_FLAGS_1) & u64::from(elf::DF_1_PIE), 0, "PIE");
    assert!(dynamic(&bytes, elf::DT_TEXTREL).is_empty(), "text relocations");
    let segments = header.program_headers(LE, &*bytes).expect("program headers");
    let of = |kind| segments.iter().filter(move |s| s.p_type(LE) == kind);
    assert_eq!(of(elf::PT_GNU_RELRO).count(), 1, "RELRO");
    let (write, execute) = (elf::PF_W, elf::PF_X);
    assert!(of(elf::PT_LOAD).all(|s| s.p_flags(LE) & (write | execute) != write | execute), "writable and executable");
    let stack = of(elf::PT_GNU_STACK).next().expect("PT_GNU_STACK");
    assert_eq!(stack.p_flags(LE) & execute, 0, "executable stack");
}

#[test]
fn small_without_its_weights() {
    let whole = fs::metadata(tinywiki()).expect("there").size();
    let weights = artifact(&["info", "--json"]).json()["weights"]["bytes"].as_u64().expect("a number");
    assert!(whole > weights && whole - weights <= MOST_BYTES, "{whole} bytes, {weights} of weights");
}

#[test]
fn kernels_have_names() {
    let bytes = fs::read(tinywiki()).expect("readable");
    let file = ElfFile64::<LittleEndian>::parse(&*bytes).expect("ELF");
    let named = |part: &str| file.symbols().any(|s| s.name().is_ok_and(|n| n.starts_with("llmc_") && n.contains(part)));
    for part in ["layer0", "qkv", "attention", "linear", "embed"] {
        assert!(named(part), "no symbol of a kernel with {part}");
    }
}

#[test]
fn strip_keeps_it_working() {
    if !available("strip") {
        return println!("skipped: there is no strip on this machine");
    }
    let dir = folder("strip");
    let path = dir.join("m");
    fs::copy(tinywiki(), &path).expect("copied");
    Ended::of(Command::new("strip").arg(&path), b"").ok();
    assert!(fs::metadata(&path).expect("there").size() < fs::metadata(tinywiki()).expect("there").size());
    run(&path, &["verify"], b"").ok();
    let args = ["run", "The river", "-n", "8"];
    assert_eq!(run(&path, &args, b"").ok(), artifact(&args).ok());
    let parsed = llmc(["inspect", "--json"]).arg(&path).output().expect("llmc starts");
    assert!(parsed.status.success(), "llmc inspect reads a stripped artifact");
}

#[test]
fn compiling_starts_nothing_and_reads_no_tool_chain() {
    if !available("strace") {
        return println!("skipped: there is no strace on this machine (apt-get install strace)");
    }
    let folder = folder("strace");
    let trace = folder.join("trace");
    let inner = llmc(["compile", "-q", "-o"]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=execve,execveat,open,openat,openat2", "-o"]).arg(&trace);
    strace.arg(inner.get_program()).args(inner.get_args()).arg(folder.join("m")).arg(tinywiki_model());
    let ended = Ended::of(&mut strace, b"");
    let lines = fs::read_to_string(&trace).unwrap_or_default();
    if !lines.contains("execve") {
        return println!("skipped: strace may not trace here: {}", ended.err);
    }
    ended.ok();
    let programs: Vec<&str> = lines.lines().filter(|l| l.contains("execve")).collect();
    assert!(!programs.is_empty() && programs.iter().all(|l| l.contains("/llmc\"")), "{lines}");
    assert!(lines.lines().count() > 10, "the trace has what llmc opens");
    let opened = lines.lines().filter(|l| l.contains("open")).filter_map(|l| l.split('"').nth(1));
    let tool_chain = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or(path);
        file.ends_with(".a")
            || file == "libc.so"
            || (file.contains("crt") && file.ends_with(".o"))
            || path.contains("/gcc/")
            || path.contains("/gcc-")
    };
    let read: Vec<_> = opened.filter(|path| tool_chain(path)).collect();
    assert!(read.is_empty(), "{read:?}");
}

#[test]
fn the_best_variant_of_a_list_runs() {
    let dir = folder("variants");
    let path = dir.join("m");
    compile(&tinywiki_model(), &path, &["--target", "x86-64-v3,x86-64-v2"]).ok();
    let doctor = llmc(["doctor", "--json"]);
    let doctor = Ended::of(&mut { doctor }, b"").json();
    let runs_here = |t: &str| doctor["runs_here"].as_array().expect("a list").iter().any(|n| n == t);
    let info = run(&path, &["info", "--json"], b"").json();
    assert_eq!(info["variants"].as_array().map(Vec::len), Some(2));
    let best = if runs_here("x86-64-v3") { "x86-64-v3" } else { "x86-64-v2" };
    assert_eq!(info["runtime"]["variant"], best);
    assert!(run(&path, &["run", "The river", "-n", "4"], b"").ok().len() > 2);
}

#[test]
fn a_feature_that_is_missing_is_named() {
    let have = Ended::of(&mut llmc(["doctor", "--json"]), b"").json();
    let lacking = |t: &&&str| !have["runs_here"].as_array().expect("a list").iter().any(|n| n == **t);
    let Some(target) = ["x86-64-v4", "x86-64-amx"].iter().find(lacking) else {
        return println!("skipped: this CPU has all that any target needs");
    };
    let dir = folder("lacking");
    let path = dir.join("m");
    compile(&tinywiki_model(), &path, &["--target", target]).ok();
    let feature = if *target == "x86-64-v4" { "avx512f" } else { "amx" };
    run(&path, &["run", "a", "-n", "1"], b"").failed(5, &["this CPU lacks", feature, target, "--target"]);
    run(&path, &["info"], b"").ok();
    run(&path, &["verify"], b"").ok();
}

/// Processors under emulation, each with a feature masked that the level above needs.
#[test]
fn where_a_feature_is_masked_the_next_level_runs() {
    if !available(EMULATOR) {
        return println!("skipped: there is no {EMULATOR} on this machine (apt-get install qemu-user)");
    }
    let dir = folder("masked");
    let path = dir.join("m");
    let targets = "x86-64-amx,x86-64-v4,x86-64-v3,x86-64-v2";
    compile(&tinywiki_model(), &path, &["--target", targets, "--quantize", "w8a8"]).ok();
    let prompt = ["run", "The river", "-n", "8", "--temp", "0", "-t", "2"];
    let text = run(&path, &prompt, b"");
    for (processor, target) in [("Haswell", "x86-64-v3"), ("Haswell,-fma", "x86-64-v2"), ("Nehalem", "x86-64-v2")] {
        let emulated = |args: &[&str]| {
            let mut command = Command::new(EMULATOR);
            Ended::of(command.args(["-cpu", processor]).arg(&path).args(args), b"")
        };
        assert_eq!(emulated(&["info", "--json"]).json()["runtime"]["variant"], target, "{processor}");
        assert_eq!(emulated(&prompt).ok(), text.ok(), "{processor}");
    }
    let mut command = Command::new(EMULATOR);
    let none = Ended::of(command.args(["-cpu", "Conroe"]).arg(&path).args(prompt), b"");
    none.failed(5, &["this CPU lacks sse4_2", "x86-64-v2"]);
}

/// An old processor under emulation, for compiling; code generation runs in a process of its own, so
/// it is emulated by itself.
#[test]
fn another_processor_compiles_the_same_bytes() {
    if !available(EMULATOR) {
        return println!("skipped: there is no {EMULATOR} on this machine (apt-get install qemu-user)");
    }
    let dir = folder("emulated");
    let program = llmc([""; 0]).get_program().to_owned();
    let emulated = |args: &[&str], input: &[u8]| {
        let mut command = Command::new(EMULATOR);
        Ended::of(command.args(["-cpu", "Nehalem"]).arg(&program).args(args), input)
    };
    let model = tinywiki_model();
    let model = model.to_str().expect("UTF-8");
    for target in ["x86-64-v3", "x86-64-v4", "x86-64-amx"] {
        let (here, there) = (dir.join("here"), dir.join("there"));
        let paths = [&here, &there].map(|p| p.to_str().expect("UTF-8"));
        let compile = |out| ["compile", model, "-q", "--target", target, "-o", out];
        Ended::of(&mut llmc(compile(paths[0])), b"").ok();
        emulated(&compile(paths[1]), b"").ok();
        assert!(fs::read(&here).expect("made") == fs::read(&there).expect("made"), "{target}: other bytes");
        let kir = Ended::of(&mut llmc(["compile", model, "-q", "--target", target, "--emit", "kir"]), b"");
        let generate = ["generate-code", "--target", target, "--product", "object"];
        let objects = Ended::of(&mut llmc(generate), kir.ok().as_bytes()).out;
        let others = emulated(&generate, kir.ok().as_bytes());
        assert!(!objects.is_empty() && objects == others.out, "{target}: other code");
    }
}
