//! `--target cuda` on a machine without a GPU, and with a driver that is not good enough: the fake of
//! tests/mock.

use llmc_tests::command::{Ended, Folder, available, compile, folder, llmc, run, tinywiki, tinywiki_model};
use std::path::Path;
use std::process::Command;

/// A folder with an artifact `m` in it.
fn compiled(name: &str, targets: &str) -> Folder {
    let folder = folder(&format!("cuda-{name}"));
    compile(&tinywiki_model(), &folder.join("m"), &["--target", targets]).ok();
    folder
}

#[test]
fn without_a_driver() {
    if Path::new("/dev/nvidiactl").exists() {
        return eprintln!("skipped: this machine has a GPU");
    }
    let folder = compiled("alone", "cuda");
    let alone = folder.join("m");
    run(&alone, &["run", "The river", "-n", "8"], b"").failed(5, &["no CUDA driver", "libcuda.so.1", "525"]);
    run(&alone, &["run", "a", "--device", "cpu"], b"").failed(5, &["GPUs alone", "cpu,cuda"]);
    run(&alone, &["verify"], b"").ok();
    let folder = compiled("both", "cpu,cuda");
    let both = folder.join("m");
    let args = ["run", "The river", "--raw", "-n", "16"];
    let ended = run(&both, &args, b"");
    assert_eq!(ended.ok(), run(tinywiki(), &args, b"").ok(), "the same text as compiled for the CPU alone");
    assert!(ended.err.contains("running on the CPU"), "{}", ended.err);
    run(&both, &[&args[..], &["--device", "cuda"]].concat(), b"").failed(5, &["no CUDA driver"]);
    assert_eq!(run(&both, &[&args[..], &["-q"]].concat(), b"").err, "", "quiet says nothing of it");
}

#[test]
fn devices_are_named() {
    run(tinywiki(), &["run", "a", "--device", "gpu"], b"").failed(2, &["gpu", "cuda:N"]);
    run(tinywiki(), &["run", "a", "--device", "cuda:1"], b"").failed(5, &["CPU alone", "--target cuda"]);
}

#[test]
fn drivers_that_do_not_do() {
    if !available("cc") {
        return eprintln!("skipped: no cc");
    }
    let dir = folder("cuda-mock");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("mock/libcuda.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-w", "-o"]).arg(dir.join("libcuda.so.1")).arg(source);
    Ended::of(&mut cc, b"").ok();
    let artifact = compiled("mock", "cuda");
    let with = |settings: &[(&str, &str)], args: &[&str]| {
        let mut command = Command::new(artifact.join("m"));
        command.args(["run", "The river", "-n", "4"]).args(args).env("LD_LIBRARY_PATH", &*dir);
        Ended::of(command.envs(settings.iter().copied()), b"")
    };
    with(&[("MOCK_CUDA_DRIVER", "11040")], &[]).failed(5, &["11.4", "12.0"]);
    with(&[("MOCK_CUDA_DEVICES", "0")], &[]).failed(5, &["GPU"]);
    with(&[], &["--device", "cuda:3"]).failed(5, &["3"]);
    with(&[("MOCK_CUDA_MEMORY", "1000000")], &[]).failed(4, &["weights"]);
}

#[test]
fn ptx_is_shown() {
    let ended = Ended::of(llmc(["compile", "-q", "--target", "cuda", "--emit", "ptx"]).arg(tinywiki_model()), b"");
    let text = ended.ok();
    assert!(text.contains(".target sm_80") && text.contains("mma.sync") && text.contains("ld.global.nc"), "PTX");
    assert_eq!(text.matches(".visible .entry").count(), 3, "kernels for few tokens, many and one");
}
