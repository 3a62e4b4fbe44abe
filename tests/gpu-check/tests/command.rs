//! `gpu-check` as a command, without a driver and with a fake one.

use gpu_check::bundle::{Bundle, CODE, LIST, LOGITS, MANIFEST, Model, WEIGHTS};
use gpu_check::kernels::{self, Elem, Expected, KernelCheck, Try};
use llmc_abi::Manifest;
use llmc_abi::device::{DeviceImage, DeviceKind};
use llmc_abi::manifest::{GroupInfo, KvInfo, ModelInfo, PhaseInfo, StepInfo, VERSION, VariantInfo};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of this test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the temporary folder is writable");
    folder
}

/// Exit code, messages and table, with the driver in a folder.
fn check(bundle: &Path, driver: Option<&Path>) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-check"));
    if let Some(driver) = driver {
        command.env("LD_LIBRARY_PATH", driver);
    }
    let out = command.arg(bundle).output().expect("the command runs");
    let [table, messages] = [&out.stdout, &out.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (out.status.code(), messages, table)
}

#[test]
fn a_folder_that_is_no_bundle_is_named() {
    let empty = folder("empty");
    let (code, message, _) = check(&empty, None);
    assert!(code == Some(3) && message.contains(LIST) && message.contains("make the bundle again"), "{message}");
    fs::write(empty.join(LIST), "{}").expect("written");
    let (code, message, _) = check(&empty, None);
    assert!(code == Some(3) && message.contains("models"), "{message}");
}

/// Tokens and logits of the fake driver's model, whose kernel `step` makes a token of the one before and its position.
const VOCAB: u32 = 97;

fn next(token: u32, position: usize) -> u32 {
    (token * 31 + position as u32 * 7 + 1) % VOCAB
}

fn logits(token: u32, position: usize) -> impl Iterator<Item = f32> {
    let next = next(token, position);
    (0..VOCAB).map(move |t| -(t.abs_diff(next) as f32))
}

/// Writes a bundle with that model, whose first logit is expected to be off by so much.
fn bundle(name: &str, off: f32) -> PathBuf {
    let bundle = folder(name);
    let model = bundle.join("model");
    fs::create_dir_all(&model).expect("written");
    let group = GroupInfo { kernel: "step".into(), threads: 256, tokens: 16, sync_bytes: 256 };
    let variant =
        VariantInfo { arena_bytes: 64, phases: vec![PhaseInfo::default()], group: Some(group), ..Default::default() };
    let manifest = Manifest {
        version: VERSION,
        model: ModelInfo { vocab: VOCAB as usize, context: 50, ..Default::default() },
        step: StepInfo { tokens: 16, rows: 8 },
        kv: KvInfo { dtype: "f32".into(), page_positions: 4, page_bytes: 64, ..KvInfo::default() },
        variants: vec![variant],
        ..Default::default()
    };
    let kind = DeviceKind::Ptx;
    let image = DeviceImage { step: 0, kind, arch: 80, specific: false, shared_bytes: 1024, bytes: b"step".to_vec() };
    let ids = vec![1, 2, 3];
    let mut expected: Vec<f32> = ids.iter().enumerate().flat_map(|(i, id)| logits(*id, i)).collect();
    expected[0] += off;
    let greedy = (2..7).scan(3, |token, position| {
        *token = next(*token, position);
        Some(*token)
    });
    let known = Model { name: "model".into(), tolerance: 1e-6, ids, greedy: greedy.collect() };
    let list = Bundle { models: vec![known], speeds: vec![] };
    let put = |path: PathBuf, bytes: Vec<u8>| fs::write(path, bytes).expect("written");
    put(model.join(MANIFEST), serde_json::to_vec(&manifest).expect("JSON"));
    put(model.join(CODE), llmc_abi::device::write(&[image]));
    put(model.join(WEIGHTS), vec![]);
    put(model.join(LOGITS), expected.iter().flat_map(|v| v.to_le_bytes()).collect());
    put(bundle.join(LIST), serde_json::to_vec(&list).expect("JSON"));
    kernels::write(&bundle, &[kernel(off)]).expect("written");
    bundle
}

/// The kernel `step` by itself, on two rows of whose first a logit is expected to be off by so much.
fn kernel(off: f32) -> KernelCheck {
    let words = |v: [i32; 3]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut want: Vec<f64> = logits(9, 4).chain(logits(5, 6)).map(f64::from).collect();
    want[3] += f64::from(off);
    let buffers = [
        ("logits", vec![0xff; 8 * VOCAB as usize]),
        ("ids", words([5, 7, 9])),
        ("positions", words([6, 5, 4])),
        ("rows", words([2, 0, 0])),
        ("sampling", vec![0; 32]),
        ("sampled", vec![0; 16]),
    ];
    let expected = Expected {
        buffer: "logits".into(),
        elem: Elem::F32,
        at: (0..2 * VOCAB).map(|i| 4 * i).collect(),
        scales: vec![],
        bound: vec![1e-6; want.len()],
        want,
    };
    let buffers = buffers.map(|(name, bytes)| (name.to_string(), bytes)).into();
    let counts = vec![("n_rows".into(), 2)];
    let kind = DeviceKind::Ptx;
    let image = DeviceImage { step: 0, kind, arch: 80, specific: false, shared_bytes: 0, bytes: b"step".to_vec() };
    let (code, tries) = (llmc_abi::device::write(&[image]), vec![Try { buffers, counts, expected: vec![expected] }]);
    KernelCheck { name: "a step".into(), code, kernel: "step".into(), threads: 256, tries }
}

#[test]
fn without_a_gpu_nothing_is_checked() {
    if Path::new("/dev/nvidia0").exists() {
        return eprintln!("skipped: there is a GPU");
    }
    let (code, message, _) = check(&bundle("no-gpu", 0.0), None);
    assert_eq!(code, Some(77), "{message}");
}

#[test]
fn what_agrees_and_what_does_not_is_told() {
    let driver = folder("driver");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(driver.join("libcuda.so.1"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../mock/libcuda.c"))
        .status();
    assert!(made.is_ok_and(|s| s.success()), "the fake driver is compiled");
    let (code, message, table) = check(&bundle("right", 0.0), Some(&driver));
    assert!(
        code == Some(0) && table.contains("5/5") && table.contains("1 of 1 kernels and 1 of 1 models agree"),
        "{message}{table}"
    );
    let (code, message, table) = check(&bundle("wrong", 1.0), Some(&driver));
    assert!(code == Some(1) && table.contains("0 of 1 kernels and 0 of 1 models"), "{message}{table}");
    assert!(table.contains("WRONG: try 0: ") && table.matches("WRONG").count() == 2, "{table}");
}
