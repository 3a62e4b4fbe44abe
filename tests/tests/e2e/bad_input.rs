//! Bad models through the command line: exit code 3, a message that names the thing, nothing left.

use llmc_tests::command::{compile, folder, names, run};
use llmc_tests::weights;
use std::fs;
use std::path::Path;

const TENSORS: &str = "model.safetensors";
const TENSOR: &str = "model.norm.weight";

/// What a case does to a model folder.
type Damage = fn(&Path);
/// A name, the damage, and the words that the message must have.
type Case = (&'static str, Damage, &'static [&'static str]);

/// A safetensors file of this header and as many zero bytes.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn put(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    fs::write(dir.join(name), bytes).expect("written");
}

/// Replaces text in a file, which must hold it.
fn edit(dir: &Path, name: &str, from: &str, to: &str) {
    let text = fs::read_to_string(dir.join(name)).expect("text");
    assert!(text.contains(from), "{from} is in {name}");
    put(dir, name, text.replacen(from, to, 1));
}

/// Replaces text in the header of the weights; the data stay.
fn edit_header(dir: &Path, from: &str, to: &str) {
    let bytes = fs::read(dir.join(TENSORS)).expect("readable");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + length]).expect("text");
    assert!(header.contains(from), "{from} is in the header");
    put(dir, TENSORS, [&file(&header.replacen(from, to, 1), 0), &bytes[8 + length..]].concat());
}

fn config(dir: &Path, from: &str, to: &str) {
    edit(dir, "config.json", from, to);
}

fn index(dir: &Path, shard: &str) {
    fs::remove_file(dir.join(TENSORS)).expect("there");
    let map = format!(r#"{{"metadata":{{}},"weight_map":{{"{TENSOR}":"{shard}"}}}}"#);
    put(dir, "model.safetensors.index.json", map);
}

const CHECKPOINT: &[Case] = &[
    ("missing", |d| fs::remove_file(d.join(TENSORS)).expect("there"), &[TENSORS]),
    ("empty", |d| put(d, TENSORS, b""), &[TENSORS, "empty"]),
    ("long header", |d| put(d, TENSORS, [&u64::MAX.to_le_bytes()[..], b"{}"].concat()), &[TENSORS, "header"]),
    ("not JSON", |d| put(d, TENSORS, file("not json", 8)), &[TENSORS, "header is not JSON"]),
    ("duplicate", |d| put(d, TENSORS, file(r#"{"a":{},"a":{}}"#, 0)), &[TENSORS, "duplicate key a"]),
    (
        "overlap",
        |d| {
            let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
            put(d, TENSORS, file(header, 8));
        },
        &[TENSORS, "tensor b", "overlap"],
    ),
    (
        "hole",
        |d| put(d, TENSORS, file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8)),
        &[TENSORS, "belong to no tensor"],
    ),
    (
        "overflow",
        |d| {
            let header = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,4]}}"#;
            put(d, TENSORS, file(header, 4));
        },
        &[TENSORS, "overflows"],
    ),
    (
        "dtype",
        |d| put(d, TENSORS, file(r#"{"a":{"dtype":"Q4_0","shape":[1],"data_offsets":[0,4]}}"#, 4)),
        &[TENSORS, "Q4_0"],
    ),
    ("tensor missing", |d| edit_header(d, "model.norm.weight", "model.nork.weight"), &[TENSOR, "missing"]),
    ("tensor's shape", |d| edit_header(d, "[256,128]", "[128,256]"), &["shape [128, 256]", "calls for [256, 128]"]),
    (
        "unexpected",
        |d| edit_header(d, "{", r#"{"stray":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"#),
        &[TENSORS, "stray", "does not belong"],
    ),
    ("outside", |d| index(d, "../outside"), &["index.json", "../outside", "leaves the model's folder"]),
];

const CONFIG: &[Case] = &[
    ("no config", |d| fs::remove_file(d.join("config.json")).expect("there"), &["config.json"]),
    ("not JSON", |d| put(d, "config.json", "{,"), &["config.json", "is not JSON"]),
    ("key missing", |d| config(d, "\"hidden_size\"", "\"_name_or_path\""), &["config.json", "hidden_size", "missing"]),
    ("zero", |d| config(d, "\"hidden_size\": 128", "\"hidden_size\": 0"), &["hidden_size", "is 0"]),
    ("huge", |d| config(d, "\"hidden_size\": 128", "\"hidden_size\": 1000000000000"), &["hidden_size"]),
    ("many layers", |d| config(d, "\"num_hidden_layers\": ", "\"num_hidden_layers\": 99999"), &["num_hidden_layers"]),
    ("model_type", |d| config(d, "\"model_type\": \"llama\"", "\"model_type\": \"lama\""), &["model_type", "lama"]),
    (
        "quantized",
        |d| config(d, "{", "{\"quantization_config\": {\"quant_method\": \"gptq\"},"),
        &["quantization_config", "gptq", "not supported yet"],
    ),
    ("unknown key", |d| config(d, "{", "{\"attn_logit_softcapping\": 50.0,"), &["attn_logit_softcapping", "50.0"]),
    ("tokenizer", |d| put(d, "tokenizer.json", "{\"model\": {\"type\": \"BPE\""), &["tokenizer.json"]),
    ("tokenizer's kind", |d| put(d, "tokenizer.json", "{\"model\": {\"type\": \"Nope\"}}"), &["tokenizer.json"]),
];

/// Applies each case to a copy of a small fixture and compiles that.
fn refused(name: &str, cases: &[Case]) {
    let dir = folder(name);
    let out = dir.join("out");
    fs::create_dir(&out).expect("created");
    for (case, damage, words) in cases {
        let model = dir.join("model");
        let _ = fs::remove_dir_all(&model);
        fs::rename(weights::model("llama2", "config.json", &dir), &model).expect("renamed");
        damage(&model);
        println!("{name}: {case}");
        compile(&model, &out.join("m"), &[]).failed(3, words);
        assert!(names(&out).is_empty(), "{case} leaves {:?}", names(&out));
    }
}

#[test]
fn checkpoints() {
    refused("bad-checkpoint", CHECKPOINT);
}

#[test]
fn configs_and_tokenizers() {
    refused("bad-config", CONFIG);
}

#[test]
fn truncated_at_every_sixteenth() {
    let dir = folder("bad-truncated");
    let model = weights::model("llama2", "config.json", &dir);
    let whole = fs::read(model.join(TENSORS)).expect("readable");
    for sixteenth in 0..16 {
        put(&model, TENSORS, &whole[..whole.len() * sixteenth / 16]);
        compile(&model, &dir.join("m"), &[]).failed(3, &[TENSORS]);
    }
    assert_eq!(names(&dir), [model.file_name().expect("a name").to_str().expect("text")]);
}

#[test]
fn what_is_no_model() {
    let dir = folder("bad-model");
    put(&dir, "m.gguf", b"GGUF");
    put(&dir, "m.txt", b"text");
    for (path, words) in [
        ("none", &["none", "No such file"][..]),
        ("m.gguf", &["m.gguf", "GGUF files are not supported yet"]),
        ("m.txt", &["m.txt", "neither"]),
    ] {
        compile(&dir.join(path), &dir.join("out"), &[]).failed(3, words);
    }
    assert_eq!(names(&dir), ["m.gguf", "m.txt"]);
}

#[test]
fn bad_usage_of_compile() {
    let dir = folder("bad-usage");
    let model = weights::model("llama2", "config.json", &dir);
    for (args, words) in [
        (&["--ctx-size", "100000000"][..], &["--ctx-size 100000000", "positions"][..]),
        (&["--ctx-size", "0"], &["--ctx-size 0"]),
        (&["--target", "z80"], &["unknown target `z80`", "x86-64-v3"]),
        (&["--target", "aarch64"], &["--target aarch64", "--emit object"]),
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["--backend", "gcc"], &["gcc", "cranelift"]),
        (&["-j", "0"], &["-j 0"]),
        (&["--disable-rule", "no-such-rule"], &["no-such-rule"]),
        (&["--emit", "wasm"], &["wasm", "llvm-ir"]),
    ] {
        compile(&model, &dir.join("out"), args).failed(2, words);
        assert!(!dir.join("out").exists(), "{args:?}");
    }
}

#[test]
fn without_a_tokenizer_tokens_work() {
    let dir = folder("bare");
    let model = weights::model("llama2", "config.json", &dir);
    let path = dir.join("m");
    let ended = compile(&model, &path, &[]);
    ended.ok();
    assert!(ended.err.contains("warning") && ended.err.contains("tokenizer.json"), "{}", ended.err);
    run(&path, &["run", "text"], b"").failed(3, &["no tokenizer", "--tokens"]);
    run(&path, &["tokenize", "text"], b"").failed(3, &["no tokenizer"]);
    let text = run(&path, &["run", "--tokens", "1,2,3", "-n", "4", "--ignore-eos"], b"");
    assert_eq!(text.ok().trim().split(',').filter_map(|t| t.parse::<u32>().ok()).count(), 4, "{:?}", text.text());
    run(&path, &["verify"], b"").ok();
}
