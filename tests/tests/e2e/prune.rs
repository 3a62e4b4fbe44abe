//! `--prune` from the outside.

use llmc_tests::command::{Ended, folder, llmc, run, tinywiki_model};
use std::fs;
use std::path::Path;

fn text() -> String {
    tinywiki_model().join("reference/valid_wiki.txt").to_string_lossy().into_owned()
}

fn compile(out: &Path, args: &[&str]) -> Ended {
    Ended::of(llmc(["compile", "-q", "-o"]).arg(out).arg(tinywiki_model()).args(args), b"")
}

fn refused(args: &[&str]) -> Ended {
    let dir = folder("prune-refused");
    let out = dir.join("m");
    let ended = compile(&out, args);
    assert!(!out.exists(), "nothing is left where nothing was made");
    ended
}

#[test]
fn what_cannot_be_pruned_is_refused() {
    let text = text();
    refused(&["--prune", "layers=2"]).failed(2, &["--calibrate"]);
    refused(&["--prune", "layers=10", "--calibrate", &text]).failed(2, &["10 layers", "one has to stay"]);
    refused(&["--prune", "heads=2", "--calibrate", &text]).failed(2, &["heads=2", "layers=N"]);
    refused(&["--prune", "ffn=100%", "--calibrate", &text]).failed(2, &["less than 100 %"]);
    refused(&["--prune", "ffn=0.3", "--calibrate", &text]).failed(2, &["ffn=30%"]);
    refused(&["--prune", "auto", "--calibrate", &text]).failed(2, &["--budget"]);
    refused(&["--prune", "ffn=1%", "--calibrate", &text]).failed(2, &["768 channels", "groups of 64"]);
    refused(&["--prune", "layers=1", "--fuel", "0", "--calibrate", &text]).failed(2, &["--fuel 0"]);
    refused(&["--prune", "layers=1", "--calibrate", "/nowhere"]).failed(3, &["/nowhere", "No such file"]);
    let dir = folder("prune-short");
    let short = dir.join("short.txt");
    fs::write(&short, "Not much.").expect("a writable folder");
    refused(&["--prune", "ffn=30%", "--calibrate", &short.to_string_lossy()]).failed(3, &["tokens", "at least 64"]);
    fs::write(&short, [0xff, 0xfe, b'a']).expect("a writable folder");
    refused(&["--prune", "ffn=30%", "--calibrate", &short.to_string_lossy()]).failed(3, &["UTF-8"]);
}

/// Perplexity of some held-out text.
fn perplexity(artifact: &Path) -> f64 {
    let text = fs::read_to_string(tinywiki_model().join("reference/test_books.txt")).expect("a text");
    let path = artifact.with_added_extension("txt");
    fs::write(&path, text.chars().take(20_000).collect::<String>()).expect("a writable folder");
    let answer = run(artifact, &["perplexity", &path.to_string_lossy(), "--json"], b"").json();
    answer["perplexity"].as_f64().expect("a number")
}

#[test]
fn a_pruned_model_is_smaller_and_still_speaks() {
    let (dir, text) = (folder("prune"), text());
    let whole = dir.join("whole");
    compile(&whole, &[]).ok();
    let parameters = |info: &serde_json::Value| info["model"]["parameters"].as_u64().expect("a number");
    let all = parameters(&run(&whole, &["info", "--json"], b"").json());
    let mut sizes = vec![fs::metadata(&whole).expect("made").len()];
    let best = perplexity(&whole);
    for (prune, worst) in [("layers=2", 2.0), ("ffn=30%", 2.0), ("layers=1,ffn=20%", 2.0)] {
        let path = dir.join(prune);
        compile(&path, &["--prune", prune, "--calibrate", &text]).ok();
        run(&path, &["verify"], b"").ok();
        let found = perplexity(&path);
        assert!(found > best && found < best * worst, "{prune}: perplexity {found} against {best}");
        let info = run(&path, &["info", "--json"], b"").json();
        let layers = info["pruned"]["layers"].as_array().expect("a list").len() as u64;
        assert_eq!(info["model"]["layers"].as_u64(), Some(10 - layers), "{prune}");
        // Of 256 x 256 for q and o, half of that for k and v, 3 x 768 x 256 and two norms.
        let (layer, channel) = (3 * 256 * 256 + 3 * 768 * 256 + 2 * 256, 3 * 256);
        let channels = match prune {
            "layers=2" => 0,
            "ffn=30%" => 10 * (768 - 512),
            _ => 9 * (768 - 640),
        };
        assert_eq!(parameters(&info), all - layers * layer - channels * channel, "{prune}");
        assert_eq!(info["pruned"]["channels"].is_null(), prune == "layers=2", "{prune}");
        assert!(run(&path, &["info"], b"").ok().contains("\npruned "), "{prune}");
        sizes.push(fs::metadata(&path).expect("made").len());
    }
    assert!(sizes[1..].iter().all(|s| s + (2 << 20) < sizes[0]), "{sizes:?}");
}

#[test]
fn pruning_and_quantization_go_together_and_always_alike() {
    let (dir, text) = (folder("prune-both"), text());
    let flags = ["--prune", "layers=1,ffn=30%", "--quantize", "w4", "--calibrate", &text];
    let made: Vec<Vec<u8>> = ["1", "2"]
        .iter()
        .map(|jobs| {
            let path = dir.join(jobs);
            compile(&path, &[&flags[..], &["-j", jobs]].concat()).ok();
            fs::read(path).expect("made")
        })
        .collect();
    assert!(made[0] == made[1], "the same input gives the same bytes");
    let info = run(&dir.join("1"), &["info", "--json"], b"").json();
    let bits = 8.0 * info["weights"]["bytes"].as_f64().expect("bytes");
    let per_weight = bits / info["model"]["parameters"].as_f64().expect("a number");
    assert!((4.1..4.5).contains(&per_weight), "{per_weight} bits for each weight that is left");
    let whole = dir.join("whole");
    compile(&whole, &["--prune", "layers=0,ffn=0%"]).ok();
    compile(&dir.join("plain"), &[]).ok();
    assert!(fs::read(&whole).expect("made") == fs::read(dir.join("plain")).expect("made"), "nothing pruned");
}
