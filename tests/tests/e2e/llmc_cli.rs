//! The commands of `llmc` beside making an executable.

use llmc_tests::command::{Ended, folder, llmc, names, tinywiki, tinywiki_model};
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

/// `llmc ARGS` on the model.
fn model(args: &[&str]) -> Ended {
    Ended::of(llmc(args).arg(tinywiki_model()), b"")
}

fn json(args: &[&str]) -> Value {
    model(args).json()
}

#[test]
fn every_stage_can_be_shown() {
    for (emit, word) in [
        ("spec", "llama"),
        ("graph", "param embed.tokens"),
        ("opt", "qkv"),
        ("plan", "kernels"),
        ("kir", "func @llmc_"),
        ("llvm-ir", "layer0"),
        ("asm", "layer0"),
    ] {
        for backend in ["cranelift", "llvm"] {
            if backend == "llvm" && cfg!(not(feature = "llvm")) {
                continue;
            }
            let ended = model(&["compile", "-q", "--backend", backend, "--emit", emit]);
            let text = ended.ok();
            assert!(text.contains(word) && text.ends_with('\n'), "{emit} of {backend} has no {word}: {text:.300}");
        }
    }
    let dir = folder("emit");
    let out = dir.join("spec.txt");
    Ended::of(llmc(["compile", "-q", "--emit", "spec", "-o"]).arg(&out).arg(tinywiki_model()), b"").ok();
    assert_eq!(fs::read_to_string(out).expect("readable"), model(&["compile", "-q", "--emit", "spec"]).ok());
}

#[test]
fn objects() {
    let out = folder("objects");
    Ended::of(llmc(["compile", "-q", "--emit", "object", "-o"]).arg(&*out).arg(tinywiki_model()), b"").ok();
    let names = names(&out);
    assert!(names.iter().any(|n| n.contains("step")) && names.iter().any(|n| n.contains("layer0")), "{names:?}");
    for name in &names {
        let bytes = fs::read(out.join(name)).expect("readable");
        assert!(bytes.starts_with(b"\x7fELF") && name.ends_with(".o"), "{name}");
    }
    model(&["compile", "-q", "--emit", "object"]).failed(2, &["-o FOLDER"]);
    let foreign = folder("objects-aarch64");
    let mut command = llmc(["compile", "-q", "--emit", "object", "--target", "aarch64", "-o"]);
    Ended::of(command.arg(&*foreign).arg(tinywiki_model()), b"").ok();
    let first = fs::read(foreign.join(&llmc_tests::command::names(&foreign)[0])).expect("readable");
    let machine = u16::from_le_bytes([first[18], first[19]]);
    assert_eq!(machine, object::elf::EM_AARCH64);
}

#[test]
fn verbose_names_rules() {
    let dir = folder("verbose");
    let out = dir.join("m");
    let ended = Ended::of(llmc(["compile", "-v", "-o"]).arg(&out).arg(tinywiki_model()), b"");
    ended.ok();
    for word in ["block layer0", "qkv", "residual", "fired", "saves", "wrote"] {
        assert!(ended.err.contains(word), "{word} in {}", ended.err);
    }
}

#[test]
fn inspect() {
    let of_model = json(&["inspect", "--json"]);
    assert_eq!((&of_model["name"], &of_model["parameters"]), (&"tinywiki".into(), &9_966_848.into()));
    assert!(of_model["tensors"].as_array().is_some_and(|t| t.len() > 80));
    assert!(model(&["inspect"]).ok().contains("embed.tokens"));
    let of = |args: &[&str]| Ended::of(llmc(args).arg(tinywiki()), b"");
    let manifest = of(&["inspect", "--json"]).json();
    assert_eq!(manifest["model"]["parameters"], of_model["parameters"]);
    assert!(of(&["inspect"]).ok().contains("code for x86-64"));
    for (path, words) in [("/bin/sh", "not an artifact"), ("/nowhere", "No such file"), ("/etc/passwd", "neither")] {
        Ended::of(&mut llmc(["inspect", path]), b"").failed(3, &[path, words]);
    }
}

#[test]
fn plan_tells_the_memory() {
    let plan = json(&["plan", "-q", "--json", "-t", "2"]);
    let planned = plan["memory_bytes"]["total"].as_f64().expect("a number");
    assert!(plan["decode_tok_s"].as_f64().is_some_and(|t| t > 0.0), "{plan}");
    let parts = plan["memory_bytes"].as_object().expect("an object").iter().filter(|(k, _)| *k != "total");
    assert_eq!(parts.filter_map(|(_, v)| v.as_f64()).sum::<f64>(), planned);
    let measured = peak_rss(&["run", "The river", "--raw", "-n", "500", "--ignore-eos", "-t", "2"]);
    let slack = (0.1 * measured).max(f64::from(16 << 20));
    assert!((planned - measured).abs() <= slack, "planned {planned}, measured {measured}");
    assert!(model(&["plan", "-q"]).ok().contains("roofline"));
}

#[test]
fn plan_predicts_for_the_machine_that_can_run_it() {
    let machine = |args: &[&str]| json(&[&["plan", "-q", "--json", "-t", "1"], args].concat())["machine"].clone();
    let here = machine(&["--target", "x86-64-v2", "--quantize", "w8a8"]);
    for key in ["read_gb_s", "decode_tok_s", "prefill_tok_s"] {
        assert!(here[key].as_f64().is_some_and(|n| n > 0.0), "{key} in {here}");
    }
    assert!(here["peaks"].as_array().is_some_and(|p| p.iter().any(|p| p["gflop_s"].as_f64() > Some(0.5))), "{here}");
    assert!(machine(&["--target", "cuda"]).is_null());
    let ended = model(&["plan", "-q", "--target", "x86-64-v2"]);
    let text = ended.ok();
    assert!(text.contains("this machine: ") && text.contains("expect about "), "{text}");
    assert!(model(&["plan", "-q", "--target", "cuda"]).ok().contains("cannot run cuda"));
}

/// A GPU's step for many tokens has the largest arena, and products are made by matrix units.
#[test]
fn plan_knows_the_forms_and_units_of_gpus() {
    let plan = json(&["plan", "-q", "--json", "--target", "cuda"]);
    let bytes = |part: &str| plan["memory_bytes"][part].as_u64().expect("bytes");
    // 2048 rows of 320 f32, and more beside them.
    assert!(bytes("arena") > 2048 * 320 * 4 && bytes("workers") == 0, "{plan}");
    let gflops = |plan: &Value| plan["assumed_gflop_s"].as_f64().expect("a number");
    let floats = json(&["plan", "-q", "--json", "--target", "cuda", "--activations", "f32"]);
    assert!(gflops(&plan) > 5.0 * gflops(&floats), "{plan} {floats}");
}

/// Peak resident bytes of the artifact with these arguments. (`ru_maxrss` would count this process's
/// memory, which the child shares before it becomes another program.)
fn peak_rss(args: &[&str]) -> f64 {
    let mut command = Command::new(tinywiki());
    let mut child = command.args(args).env_clear().stdout(Stdio::null()).spawn().expect("the artifact starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0f64;
    while child.try_wait().expect("ours").is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0.0) * 1024.0);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(child.wait().expect("ours").success());
    peak
}

#[test]
fn variables_stand_for_flags() {
    let plan = |vars: &[(&str, &str)], args: &[&str]| {
        let mut command = llmc(["plan"]);
        Ended::of(command.arg(tinywiki_model()).args(args).envs(vars.iter().copied()), b"")
    };
    let vars = [("LLMC_TARGET", "x86-64-v2"), ("LLMC_QUIET", "1"), ("LLMC_JSON", "1"), ("LLMC_THREADS", "3")];
    let ended = plan(&vars, &[]);
    let object = ended.json();
    assert_eq!((&object["target"], &object["threads"], ended.err.as_str()), (&"x86-64-v2".into(), &3.into(), ""));
    let flags = plan(&vars, &["--target", "x86-64-v3", "-t", "1"]).json();
    assert_eq!((&flags["target"], &flags["threads"]), (&"x86-64-v3".into(), &1.into()));
    assert!(plan(&[("LLMC_QUIET", "0")], &[]).err.contains("reading the model"));
}

#[test]
fn doctor() {
    let object = Ended::of(&mut llmc(["doctor", "--json"]), b"").json();
    let backends = object["backends"].as_array().expect("a list");
    assert_eq!(backends.iter().any(|b| b == "llvm"), cfg!(feature = "llvm"));
    assert!(backends.iter().any(|b| b == "cranelift"));
    let text = Ended::of(&mut llmc(["doctor"]), b"");
    assert!(text.ok().contains("--target cpu") && text.text().contains("x86-64-v3"));
}

#[test]
fn completions_are_a_script() {
    let script = Ended::of(&mut llmc(["completions", "bash"]), b"");
    assert!(script.ok().contains("compile") && script.text().contains("complete "));
    if llmc_tests::command::available("bash") {
        Ended::of(Command::new("bash").arg("-n"), &script.out).ok();
    }
    Ended::of(&mut llmc(["completions", "cmd"]), b"").failed(2, &["cmd", "bash"]);
}
