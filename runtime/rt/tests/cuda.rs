//! The GPU over a fake driver, `tests/mock/libcuda.c`. The loader reads its path at the start of a
//! process, so each scenario runs in a process of its own: this program again.

#[path = "support/gpu_steps.rs"]
mod gpu_steps;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use llmc_rt::cuda::energy::Meter;
use llmc_rt::cuda::{Gpu, Image, ImageKind, KernelAttributes};
use llmc_rt::error::Result;

/// Names the scenario that a process runs.
const SCENARIO: &str = "LLMC_CUDA_SCENARIO";
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/mock");

type Scenario = fn() -> Result<()>;

/// The scenarios, each run by a test of this file.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("open", || Gpu::open(0).map(drop)),
    ("open_5", || Gpu::open(5).map(drop)),
    ("info", info),
    ("memory", memory),
    ("copies", copies),
    ("upload", upload),
    ("events", events),
    ("kernel", kernel),
    ("wrong_arguments", wrong_arguments),
    ("too_much_shared", too_much_shared),
    ("no_kernel", || load(&[ptx("fill")])?.1.function("absent").map(drop)),
    ("broken", || load(&[ptx("broken")]).map(drop)),
    ("broken_both", || load(&[cubin("fill").as_image(), ptx("broken")]).map(drop)),
    ("other_device", || load(&[Image { arch: 100, ..ptx("fill") }]).map(drop)),
    ("fallback", fallback),
    ("energy", energy),
    ("decode", gpu_steps::decode),
    ("decode_without_end", gpu_steps::decode_without_end),
];

#[test]
#[ignore = "the other tests run it, each in a process of its own"]
fn scenario() {
    let Ok(name) = std::env::var(SCENARIO) else { return };
    let (_, run) = SCENARIOS.iter().find(|(n, _)| *n == name).expect("a scenario of the table");
    if let Err(error) = run() {
        eprintln!("error: {error}");
        std::process::exit(error.code());
    }
}

/// Runs a scenario with the libraries in `folder` and these settings of the fake driver.
fn run(scenario: &str, folder: &Path, settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--ignored", "--exact", "scenario", "--nocapture"]);
    command.env(SCENARIO, scenario).env("LD_LIBRARY_PATH", folder).envs(settings.iter().copied());
    let Output { status, stdout, stderr } = command.output().expect("started");
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// Runs a scenario that succeeds.
fn succeeds(scenario: &str, settings: &[(&str, &str)]) {
    let (code, output) = run(scenario, mocks(), settings);
    assert_eq!(code, Some(0), "{scenario}: {output}");
}

/// Runs a scenario that fails with this exit code and a message that has all of `words`.
fn fails(scenario: &str, settings: &[(&str, &str)], code: i32, words: &[&str]) {
    let (found, output) = run(scenario, mocks(), settings);
    assert_eq!(found, Some(code), "{scenario}: {output}");
    for word in words {
        assert!(output.contains(word), "{scenario}: no {word:?} in {output}");
    }
}

/// The folder of the fake libraries, compiled once.
fn mocks() -> &'static Path {
    static MOCKS: OnceLock<PathBuf> = OnceLock::new();
    MOCKS.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mock-cuda");
        std::fs::create_dir_all(&folder).expect("created");
        for library in ["libcuda", "libnvidia-ml"] {
            // Renamed when whole: another run of the tests may be using the library.
            let unfinished = folder.join(format!("{library}-{}", std::process::id()));
            let mut cc = Command::new("cc");
            cc.args(["-shared", "-fPIC", "-O1", "-w", "-o"]).arg(&unfinished);
            let status = cc.arg(format!("{FOLDER}/{library}.c")).status().expect("cc starts");
            assert!(status.success(), "{library}.c does not compile");
            std::fs::rename(unfinished, folder.join(format!("{library}.so.1"))).expect("renamed");
        }
        folder
    })
}

/// Whether this machine has a driver of its own, which is found without the fake one.
fn has_driver() -> bool {
    // SAFETY: the name is NUL-terminated; loading the vendor's library does nothing more.
    !unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_LAZY) }.is_null()
}

#[test]
fn a_machine_without_a_driver_says_so() {
    if has_driver() {
        return;
    }
    let (code, output) = run("open", Path::new("/nonexistent"), &[]);
    assert_eq!(code, Some(5), "{output}");
    for word in ["no CUDA driver", "libcuda.so.1", "525", "--device cpu"] {
        assert!(output.contains(word), "no {word:?} in {output}");
    }
}

#[test]
fn the_machine_s_faults_have_their_exit_codes() {
    fails(
        "open",
        &[("MOCK_CUDA_DEVICES", "0")],
        5,
        &["CUDA_ERROR_NO_DEVICE", "no CUDA-capable device", "--device cpu"],
    );
    fails("open_5", &[("MOCK_CUDA_DEVICES", "2")], 5, &["no GPU cuda:5", "cuda:0 is Mock 0, cuda:1 is Mock 1"]);
    fails("open", &[("MOCK_CUDA_DRIVER", "11080")], 5, &["too old", "CUDA 11.8", "12.0 is needed", "525"]);
    fails("open", &[("MOCK_CUDA_DRIVER", "0")], 5, &["no working CUDA driver (error 34)", "--device cpu"]);
    succeeds("open", &[("MOCK_CUDA_DRIVER", "12000")]);
    succeeds("open_5", &[("MOCK_CUDA_DEVICES", "6")]);
}

#[test]
fn a_device_is_described() {
    succeeds("info", &[("MOCK_CUDA_ARCH", "103"), ("MOCK_CUDA_DRIVER", "13010")]);
}

fn info() -> Result<()> {
    let gpu = Gpu::open(0)?;
    let info = gpu.info();
    assert_eq!((info.name.as_str(), info.bus.as_str()), ("Mock 0", "0000:00:00.0"));
    assert_eq!((info.major, info.minor, info.driver, info.multiprocessors), (10, 3, 13010, 4));
    assert_eq!((info.shared_bytes, info.l2_bytes, info.memory_total), (99 << 10, 8 << 20, 1 << 30));
    Ok(())
}

#[test]
fn memory_is_given_back_and_its_lack_is_said() {
    let megabyte = [("MOCK_CUDA_MEMORY", "1000000")];
    fails("memory", &megabyte, 4, &["no room for the KV cache: 600000 bytes are wanted, 500000 of 1000000 are free"]);
    fails("memory", &[("MOCK_CUDA_MEMORY", "1000000"), ("MOCK_CUDA_BY_NAME", "1")], 4, &["600000 bytes"]);
}

fn memory() -> Result<()> {
    let gpu = Gpu::open(0)?;
    assert_eq!(gpu.memory_free()?, 1_000_000);
    drop(gpu.alloc(600_000, "scratch")?);
    let empty = gpu.alloc(0, "nothing")?;
    gpu.zero(&empty)?;
    gpu.upload(&empty, &[])?;
    assert!(empty.is_empty() && empty.address() != 0);
    drop(empty);
    let weights = gpu.alloc(500_000, "weights")?;
    assert_eq!((gpu.memory_free()?, weights.len()), (500_000, 500_000));
    gpu.alloc(600_000, "the KV cache").map(drop)
}

#[test]
fn copies_arrive() {
    succeeds("copies", &[]);
    succeeds("copies", &[("MOCK_CUDA_BY_NAME", "1")]);
}

fn copies() -> Result<()> {
    let gpu = Gpu::open(0)?;
    let (mut from, to) = (gpu.pinned(4096)?, gpu.pinned(4096)?);
    assert_eq!((from.len(), from.slice::<u64>().len()), (4096, 512));
    assert_ne!(from.device_address(), 0);
    from.slice_mut::<u64>().iter_mut().zip(0..).for_each(|(slot, i)| *slot = i);
    let buffer = gpu.alloc(4096, "test")?;
    gpu.zero(&buffer)?;
    gpu.copy_in(&buffer, 1024, &from, 80, 800)?;
    gpu.copy_out(&to, 0, &buffer, 0, 4096)?;
    gpu.synchronize()?;
    let expected: Vec<u64> = (0..512).map(|i| if (128..228).contains(&i) { i - 128 + 10 } else { 0 }).collect();
    assert_eq!(to.slice::<u64>(), expected);
    let outside = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gpu.copy_in(&buffer, 4000, &from, 0, 97)));
    assert!(outside.is_err(), "a copy past the end");
    Ok(())
}

#[test]
fn an_upload_arrives() {
    succeeds("upload", &[]);
}

fn upload() -> Result<()> {
    let gpu = Gpu::open(0)?;
    let mut state = 1;
    let data: Vec<u8> = std::iter::repeat_with(|| next(&mut state)).take(21 << 20).flat_map(u64::to_le_bytes).collect();
    // Below and above the limit of the driver's own copy, one slot, all slots, and slots used again.
    for bytes in [3, 4 << 20, (4 << 20) + 1, 32 << 20, 100 << 20, (164 << 20) + 12_345] {
        let buffer = gpu.alloc(bytes, "weights")?;
        gpu.upload(&buffer, &data[..bytes])?;
        let back = gpu.pinned(bytes)?;
        gpu.copy_out(&back, 0, &buffer, 0, bytes)?;
        gpu.synchronize()?;
        assert!(back.slice::<u8>() == &data[..bytes], "{bytes} bytes differ");
    }
    Ok(())
}

/// The next of a sequence of numbers that looks random (xorshift).
fn next(state: &mut u64) -> u64 {
    for (left, by) in [(true, 13), (false, 7), (true, 17)] {
        *state ^= if left { *state << by } else { *state >> by };
    }
    *state
}

#[test]
fn events_happen_in_order() {
    succeeds("events", &[]);
}

fn events() -> Result<()> {
    let gpu = Gpu::open(0)?;
    let buffer = gpu.alloc(64, "test")?;
    let (begin, end) = (gpu.event()?, gpu.event()?);
    end.wait()?;
    assert!(end.done()?, "never recorded");
    gpu.record(&begin)?;
    gpu.zero(&buffer)?;
    gpu.record(&end)?;
    begin.wait()?;
    assert!(begin.done()? && !end.done()?);
    assert!(end.elapsed_ms(&begin).is_err(), "not yet");
    end.wait()?;
    assert!(end.done()? && end.elapsed_ms(&begin)? > 0.0);
    let elsewhere = || gpu.make_current().and_then(|()| gpu.record(&begin)).and_then(|()| begin.wait());
    std::thread::scope(|scope| scope.spawn(elsewhere).join()).expect("no panic")
}

fn ptx(text: &str) -> Image<'_> {
    Image { kind: ImageKind::Ptx, arch: 80, specific: false, bytes: text.as_bytes() }
}

struct Cubin(Vec<u8>);

/// Machine code as the fake driver takes it.
fn cubin(text: &str) -> Cubin {
    let mut bytes = b"\x7fELF".to_vec();
    bytes.resize(64, 0);
    bytes.extend(text.as_bytes());
    Cubin(bytes)
}

impl Cubin {
    fn as_image(&self) -> Image<'_> {
        Image { kind: ImageKind::Cubin, arch: 90, specific: true, bytes: &self.0 }
    }
}

fn load(images: &[Image<'_>]) -> Result<(Gpu, llmc_rt::cuda::Module)> {
    let gpu = Gpu::open(0)?;
    let module = gpu.load(images)?;
    Ok((gpu, module))
}

#[test]
fn kernels_run() {
    succeeds("kernel", &[]);
    succeeds("kernel", &[("MOCK_CUDA_BY_NAME", "1")]);
}

fn kernel() -> Result<()> {
    let (gpu, module) = load(&[ptx("fill"), cubin("fill").as_image()])?;
    assert_eq!(module.image(), 1);
    let fill = module.function("fill")?;
    // The kernel keeps what it needs.
    drop(module);
    let needs = KernelAttributes { registers: 32, local_bytes: 8, shared_bytes: 16, max_threads: 1024 };
    assert_eq!((fill.name(), fill.attributes()?), ("fill", needs));
    assert_eq!(fill.blocks_per_multiprocessor(256, 0)?, 8);
    fill.allow_shared(99 << 10)?;
    let (buffer, back) = (gpu.alloc(80, "test")?, gpu.pinned(80)?);
    for (value, cooperative) in [(3, false), (5, true)] {
        fill.launch(&gpu, 4, 256, 0, &[buffer.address(), value, 10], cooperative)?;
        gpu.copy_out(&back, 0, &buffer, 0, 80)?;
        gpu.synchronize()?;
        assert_eq!(back.slice::<u64>(), [value; 10]);
    }
    Ok(())
}

#[test]
fn wrong_launches_are_errors() {
    fails("wrong_arguments", &[], 1, &["fill takes 3 arguments, 2 were given"]);
    fails("too_much_shared", &[], 1, &["kernel fill 300000 bytes of shared memory", "CUDA_ERROR_INVALID_VALUE (mock)"]);
    fails("no_kernel", &[], 1, &["find the kernel absent", "CUDA_ERROR_NOT_FOUND"]);
}

fn wrong_arguments() -> Result<()> {
    let (gpu, module) = load(&[ptx("fill")])?;
    module.function("fill")?.launch(&gpu, 1, 32, 0, &[0, 0], false)
}

fn too_much_shared() -> Result<()> {
    load(&[ptx("fill")])?.1.function("fill")?.allow_shared(300_000)
}

#[test]
fn the_compiler_s_words_are_shown() {
    let log = "CUDA_ERROR_INVALID_PTX (mock): ptxas application ptx input, line 7; fatal: broken";
    fails("broken", &[], 1, &["ptx sm_80", log, "newer NVIDIA driver"]);
    let refuse = [("MOCK_CUDA_REFUSE_CUBIN", "1")];
    fails("broken_both", &refuse, 1, &["cubin sm_90a: CUDA_ERROR_NO_BINARY_FOR_GPU", log]);
    fails("other_device", &[], 5, &["no code for Mock 0 (sm_90): it holds ptx sm_100"]);
}

#[test]
fn text_is_taken_where_machine_code_is_refused() {
    succeeds("fallback", &[("MOCK_CUDA_REFUSE_CUBIN", "1")]);
}

fn fallback() -> Result<()> {
    let (_, module) = load(&[cubin("fill").as_image(), ptx("fill")])?;
    assert_eq!(module.image(), 1);
    module.function("fill").map(drop)
}

#[test]
fn joules_are_counted_where_the_library_is() {
    succeeds("energy", &[("MOCK_CUDA_DEVICES", "2")]);
}

fn energy() -> Result<()> {
    let meter = Meter::of(Gpu::open(0)?.info()).expect("a counter");
    let before = meter.joules().expect("a reading");
    assert_eq!(meter.joules(), Some(before + 1.5));
    assert!(Meter::of(Gpu::open(1)?.info()).is_none(), "a device that NVML does not list");
    Ok(())
}

#[test]
fn the_next_step_begins_before_the_token_is_read() {
    succeeds("decode", &[]);
    succeeds("decode", &[("MOCK_CUDA_BY_NAME", "1")]);
}

#[test]
fn pages_are_forgotten_before_the_next_step_begins() {
    succeeds("decode_without_end", &[]);
}
