//! `--quantize` from the outside.

use llmc_tests::command::{Ended, folder, llmc, run, tinywiki_model};
use std::fs;

fn compile(args: &[&str]) -> Ended {
    let dir = folder("quantize-usage");
    let ended = Ended::of(llmc(["compile", "-q", "-o"]).arg(dir.join("m")).arg(tinywiki_model()).args(args), b"");
    assert!(ended.code == 0 || !dir.join("m").exists(), "nothing is left where nothing was made");
    ended
}

#[test]
fn what_does_not_go_together_is_refused() {
    compile(&["--quantize", "w7"]).failed(2, &["w7", "w8a8"]);
    compile(&["--quantize", "w8:group=48"]).failed(2, &["48", "32"]);
    compile(&["--quantize", "nf4", "--activations", "int8"]).failed(2, &["nf4(64)", "bf16 or f32"]);
    compile(&["--quantize", "w4", "--activations", "f32"]).failed(2, &["--activations", "8-bit integers"]);
    compile(&["--activations", "int8"]).failed(2, &["--quantize"]);
    compile(&["--quantize", "w4", "--fuel", "0"]).failed(2, &["--fuel 0"]);
}

#[test]
fn a_cache_of_bytes_takes_half_the_memory() {
    let dir = folder("cache");
    let page = |kv: &str| {
        let path = dir.join(kv);
        Ended::of(llmc(["compile", "-q", "--kv", kv, "-o"]).arg(&path).arg(tinywiki_model()), b"").ok();
        assert!(!run(&path, &["run", "The river", "--raw", "-n", "8"], b"").ok().trim().is_empty(), "{kv}");
        let info = run(&path, &["info", "--json"], b"").json();
        let dtype = [("int8", "i8"), ("fp8", "e4m3")].into_iter().find(|(name, _)| *name == kv).map_or(kv, |(_, d)| d);
        assert_eq!(info["kv"]["dtype"].as_str(), Some(dtype));
        info["kv"]["page_bytes"].as_u64().expect("bytes")
    };
    // 10 layers, 2 heads of 64, 32 positions; a scale of 4 bytes for each head and position.
    let bytes = 10 * 2 * 2 * 32 * (64 + 4);
    assert_eq!([page("f16"), page("int8"), page("fp8")], [10 * 2 * 2 * 32 * 128, bytes, bytes]);
    compile(&["--kv", "int4"]).failed(2, &["fp8", "int8"]);
}

#[test]
fn a_quantized_artifact_is_smaller_and_says_so() {
    let dir = folder("quantize");
    let mut sizes = Vec::new();
    for scheme in ["none", "w8", "w4"] {
        let path = dir.join(scheme);
        Ended::of(llmc(["compile", "-q", "--quantize", scheme, "-o"]).arg(&path).arg(tinywiki_model()), b"").ok();
        run(&path, &["verify"], b"").ok();
        let info = run(&path, &["info", "--json"], b"").json();
        let schemes: Vec<&str> = info["weights"]["tensors"]
            .as_array()
            .expect("tensors")
            .iter()
            .filter_map(|t| t["scheme"].as_str())
            .collect();
        let expected = if scheme == "w8" { "w8(32)" } else { scheme };
        assert!(scheme == "none" || schemes.contains(&expected), "{schemes:?}");
        assert!(scheme == "none" || info["activations"].as_str().is_some_and(|a| a.contains("int8")), "{info}");
        assert!(!run(&path, &["run", "The river", "--raw", "-n", "8"], b"").ok().trim().is_empty());
        sizes.push(fs::metadata(&path).expect("made").len());
    }
    assert!(sizes[0] > sizes[1] + (6 << 20) && sizes[1] > sizes[2] + (4 << 20), "{sizes:?}");
}
