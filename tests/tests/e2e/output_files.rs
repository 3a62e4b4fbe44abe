//! What a compilation leaves on the disk: its whole output, or nothing.

use llmc_tests::command::{Ended, compile, folder, llmc, names, tinywiki, tinywiki_model};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

const KILLS: u32 = 20;
/// Compiles tried for them: some end before they are killed.
const TRIES: u32 = 10 * KILLS;

#[test]
fn places_that_cannot_be_written() {
    let dir = folder("unwritable");
    fs::write(dir.join("file"), b"mine").expect("written");
    fs::create_dir(dir.join("folder")).expect("created");
    for (out, words) in [
        ("missing/m", &["missing/m", "No such file", "make the folder first"][..]),
        ("file/m", &["file/m", "Not a directory"]),
        ("folder", &["folder", "it is a folder", "-o"]),
    ] {
        compile(&tinywiki_model(), &dir.join(out), &[]).failed(1, words);
    }
    compile(&tinywiki_model(), Path::new("/proc/m"), &[]).failed(1, &["/proc/m"]);
    compile(&tinywiki_model(), Path::new("/dev/null"), &[]).failed(1, &["/dev/null", "a device"]);
    assert_eq!(names(&dir), ["file", "folder"]);
    assert_eq!(fs::read(dir.join("file")).expect("readable"), b"mine");
}

/// Compiles in a shell after `setup`, with the output in `dir/m`; prints the exit code and the names left.
fn in_shell(dir: &Path, namespace: bool, setup: &str) -> Option<Ended> {
    let inner = llmc(["compile", "-q"]);
    let program = inner.get_program().to_str().expect("text").to_owned();
    let model = tinywiki_model();
    let script = format!("{setup}; \"$1\" compile -q \"$2\" -o \"$3/m\"; echo code $?; ls -A \"$3\"");
    let mut command = Command::new(if namespace { "unshare" } else { "sh" });
    if namespace {
        command.args(["--user", "--map-root-user", "--mount", "sh"]);
    }
    command.args(["-c", &script, "sh", &program]).arg(model).arg(dir);
    let ended = Ended::of(&mut command, b"");
    (ended.code == 0 && ended.text().contains("code ")).then_some(ended)
}

#[test]
fn a_full_disk() {
    let Some(ended) = in_shell(&folder("full"), true, "mount -t tmpfs -o size=4m none \"$3\" || exit 9") else {
        return println!("skipped: this machine lets nobody mount a small file system");
    };
    assert_eq!(ended.text(), "code 1\n", "{}", ended.err);
    assert!(
        ended.err.contains("/m: No space left on device") && ended.err.contains("free some space"),
        "{}",
        ended.err
    );
}

#[test]
fn a_read_only_disk() {
    let Some(ended) = in_shell(&folder("read-only"), true, "mount -t tmpfs -o ro none \"$3\" || exit 9") else {
        return println!("skipped: this machine lets nobody mount a file system");
    };
    assert_eq!(ended.text(), "code 1\n", "{}", ended.err);
    assert!(ended.err.contains("Read-only file system") && ended.err.contains("writable folder"), "{}", ended.err);
}

#[test]
fn a_file_size_limit() {
    let dir = folder("limit");
    // In blocks of 512 bytes: less than the artifact.
    let ended = in_shell(&dir, false, "ulimit -f 8000").expect("shells have ulimit");
    assert_eq!(ended.text(), "code 1\n", "{}", ended.err);
    assert!(ended.err.contains("/m: File too large"), "{}", ended.err);
}

#[test]
fn killed_at_any_moment() {
    let dir = folder("killed");
    let out = dir.join("m");
    let start = Instant::now();
    compile(&tinywiki_model(), &out, &[]).ok();
    let (whole, expected) = (start.elapsed(), fs::read(&out).expect("readable"));
    fs::remove_file(&out).expect("there");
    let (mut killed, mut state) = (0, 0x9E37_79B9_7F4A_7C15u64);
    for _ in 0..TRIES {
        if killed == KILLS {
            break;
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let wait = whole.mul_f64((state >> 33) as f64 / f64::from(u32::MAX >> 1));
        let mut child = llmc(["compile", "-q", "-o"]).arg(&out).arg(tinywiki_model()).spawn().expect("llmc starts");
        std::thread::sleep(wait);
        child.kill().expect("the child is ours");
        let status = child.wait().expect("the child is ours");
        killed += u32::from(!status.success());
        if status.success() || out.exists() {
            assert!(fs::read(&out).expect("complete or absent") == expected, "half an artifact has the output's name");
            fs::remove_file(&out).expect("there");
        }
    }
    assert_eq!(killed, KILLS, "of {TRIES} compiles too few were killed in time");
    compile(&tinywiki_model(), &out, &[]).ok();
    assert_eq!(names(&dir), ["m"], "temporaries are left");
}

/// Flags with which a compile writes for most of a second, so that a signal finds it writing.
const SLOW: [&str; 4] = ["--quantize", "w4", "-j", "1"];

#[test]
fn ended_by_a_signal() {
    let dir = folder("interrupted");
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let status = interrupted(&dir, signal);
        assert_eq!(status.code(), Some(code), "{status}");
        assert!(names(&dir).is_empty(), "{:?}", names(&dir));
    }
}

/// How a compile ended that got a signal as soon as its output began to appear.
fn interrupted(dir: &Path, signal: i32) -> ExitStatus {
    let mut compile = llmc(["compile", "-q", "-o"]);
    compile.arg(dir.join("m")).arg(tinywiki_model()).args(SLOW);
    // A test that a shell runs in the background inherits an ignored SIGINT, which llmc then leaves ignored.
    let heed = move || {
        // SAFETY: the default action of a signal that exists.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        Ok(())
    };
    // SAFETY: between fork and exec only `signal` is called, which may be.
    unsafe { compile.pre_exec(heed) };
    let mut child = compile.spawn().expect("llmc starts");
    let deadline = Instant::now() + Duration::from_secs(20);
    while names(dir).is_empty() && Instant::now() < deadline {
        std::hint::spin_loop();
    }
    // SAFETY: the child is ours and has not been waited for.
    unsafe { libc::kill(child.id().cast_signed(), signal) };
    child.wait().expect("the child is ours")
}

#[test]
fn the_default_name() {
    let dir = folder("default");
    let compile = |what: &Path| Ended::of(llmc(["compile"]).arg(what).current_dir(&*dir), b"");
    let same = |name: &str| fs::read(dir.join(name)).expect(name) == fs::read(tinywiki()).expect("readable");
    compile(&tinywiki_model()).ok();
    assert!(same("tinywiki") && names(&dir) == ["tinywiki"], "{:?}", names(&dir));
    compile(&tinywiki_model().join("model.safetensors")).ok();
    assert_eq!(names(&dir), ["tinywiki"]);
    fs::remove_file(dir.join("tinywiki")).expect("there");
    fs::create_dir(dir.join("tinywiki")).expect("created");
    let ended = compile(&tinywiki_model());
    ended.ok();
    assert!(same("tinywiki.llmc") && ended.err.contains("tinywiki.llmc"), "{}", ended.err);
    assert_eq!(names(&dir.join("tinywiki")), [""; 0]);
}
