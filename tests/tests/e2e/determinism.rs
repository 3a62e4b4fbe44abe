//! The same input gives the same bytes.

use llmc_tests::command::{Ended, compile, folder, llmc, tinywiki, tinywiki_model};
use std::fs;

#[test]
fn two_compiles_give_the_same_bytes() {
    let folder = folder("same");
    let best = Ended::of(&mut llmc(["doctor", "--json"]), b"").json();
    let best = best["cpu_target"].as_str().expect("this CPU has a target");
    let expected = fs::read(tinywiki()).expect("readable");
    for (i, args) in [&[][..], &["-j", "1"], &["-j", "2"], &["-j", "7"], &["--target", best]].iter().enumerate() {
        let path = folder.join(format!("m{i}"));
        compile(&tinywiki_model(), &path, args).ok();
        assert!(fs::read(&path).expect("readable") == expected, "{args:?} gives other bytes");
    }
    let file = folder.join("of-file");
    compile(&tinywiki_model().join("model.safetensors"), &file, &[]).ok();
    assert!(fs::read(&file).expect("readable") == expected, "the file's path gives other bytes than its folder's");
}

#[test]
fn cranelift_too() {
    let folder = folder("same-cranelift");
    let bytes = |name: &str, jobs: &str| {
        let path = folder.join(name);
        compile(&tinywiki_model(), &path, &["--backend", "cranelift", "-j", jobs]).ok();
        fs::read(path).expect("readable")
    };
    assert!(bytes("a", "1") == bytes("b", "3"), "the bytes differ");
}

#[test]
fn every_target_is_compiled_anywhere() {
    let folder = folder("targets");
    for target in ["x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-amx"] {
        let emit = |jobs: &str| {
            let out = folder.join(format!("{target}-{jobs}.s"));
            let mut command = llmc(["compile", "-q", "--emit", "asm", "--target", target, "-j", jobs, "-o"]);
            Ended::of(command.arg(&out).arg(tinywiki_model()), b"").ok();
            fs::read(out).expect("readable")
        };
        let first = emit("1");
        assert!(first.len() > 1000 && first == emit("2"), "{target}");
    }
}
