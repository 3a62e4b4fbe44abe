//! Broken and hostile models: each gives an error of the right class that names the thing.

use crate::weights;
use llmc_models::{Class, Error, Opened};
use std::fs;
use std::path::{Path, PathBuf};

const TENSORS: &str = "model.safetensors";

/// A fresh copy of a fixture's model folder.
fn folder(test: &str, fixture: &str) -> PathBuf {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bad").join(test);
    let _ = fs::remove_dir_all(&out);
    weights::model(fixture, "config.json", &out)
}

fn open(folder: &Path) -> Result<Opened, Error> {
    llmc_models::open(folder)
}

/// Asserts that opening fails as bad input with all of `words` in the message.
fn refused(folder: &Path, words: &[&str]) {
    let e = open(folder).map(drop).expect_err(&format!("{words:?} expected"));
    let text = e.to_string();
    assert_eq!(e.class(), Class::BadInput, "{text}");
    assert!(words.iter().all(|w| text.contains(w)), "expected {words:?}, got: {text}");
}

/// A safetensors file of this header and as many zero bytes.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// Replaces text in the header of a file, keeping the data.
fn edit_header(path: &Path, edit: impl Fn(&str) -> String) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = edit(std::str::from_utf8(&bytes[8..8 + length]).unwrap());
    let mut out = file(&header, 0);
    out.extend(&bytes[8 + length..]);
    fs::write(path, out).unwrap();
}

#[test]
fn missing_or_not_a_model() {
    let dir = folder("missing", "llama2");
    refused(&dir.join("none.safetensors"), &["none.safetensors", "No such file"]);
    refused(&dir.join("config.json"), &["config.json", "neither a .safetensors file nor a model folder"]);
    fs::write(dir.join("x.gguf"), b"GGUF").unwrap();
    refused(&dir.join("x.gguf"), &["x.gguf", "GGUF files are not supported yet"]);
    fs::remove_file(dir.join(TENSORS)).unwrap();
    refused(&dir, &["GGUF files are not supported yet"]);
    fs::remove_file(dir.join("x.gguf")).unwrap();
    refused(&dir, &["has neither model.safetensors nor model.safetensors.index.json"]);
    fs::write(dir.join("pytorch_model.bin"), b"x").unwrap();
    refused(&dir, &["PyTorch pickle checkpoints are not supported yet"]);
    fs::create_dir(dir.join(TENSORS)).unwrap();
    refused(&dir, &[TENSORS, "not a regular file"]);
}

#[test]
fn hub_names() {
    let dir = folder("hub", "llama2");
    let hub = dir.join("hub");
    let snapshot = hub.join("models--org--tiny/snapshots/abc123");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(hub.join("models--org--tiny/refs")).unwrap();
    fs::write(hub.join("models--org--tiny/refs/main"), "abc123\n").unwrap();
    for name in ["config.json", TENSORS] {
        std::os::unix::fs::symlink(dir.join(name), snapshot.join(name)).unwrap();
    }
    let open = |name: &str| llmc_models::open::open_with(Path::new(name), Some(&hub)).map(|o| o.name);
    assert_eq!(open("org/tiny").unwrap(), "org/tiny");
    assert_eq!(open("org/tiny@abc123").unwrap(), "org/tiny");
    for (name, words) in [("org/other", "download it first"), ("org/tiny@v2", "revision v2 is not in the cache")] {
        let e = open(name).unwrap_err();
        assert!(e.class() == Class::BadInput && e.to_string().contains(words), "{e}");
    }
}

#[test]
fn truncated_everywhere() {
    let dir = folder("truncated", "llama2");
    let path = dir.join(TENSORS);
    let whole = fs::read(&path).unwrap();
    for sixteenth in 0..16 {
        fs::write(&path, &whole[..whole.len() * sixteenth / 16]).unwrap();
        refused(&dir, &[TENSORS, if sixteenth == 0 { "empty" } else { "truncated" }]);
    }
    fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    refused(&dir, &[TENSORS, "1 bytes after the last tensor"]);
}

#[test]
fn broken_headers() {
    let dir = folder("headers", "llama2");
    let one = |dtype: &str, shape: &str, place: &str| {
        format!(r#"{{"lm_head.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{place}}}}}"#)
    };
    let cases: [(Vec<u8>, &[&str]); 8] = [
        ([&u64::MAX.to_le_bytes()[..], b"{}"].concat(), &["header says it has 18446744073709551615 bytes"]),
        (file("not json", 8), &["header is not JSON"]),
        (file(r#"{"a":{},"a":{}}"#, 0), &["duplicate key a"]),
        (file(&one("F32", "[4294967296,4294967296,4]", "[0,4]"), 4), &["lm_head.weight", "shape", "overflows"]),
        (file(&one("Q4_0", "[1]", "[0,4]"), 4), &["lm_head.weight", "unknown dtype", "Q4_0"]),
        (file(&one("F32", "[2]", "[0,4]"), 4), &["lm_head.weight", "has 4 bytes", "takes 8"]),
        (file(&one("F32", "[1]", "[4,8]"), 8), &["lm_head.weight", "4 bytes between", "belong to no tensor"]),
        (
            file(
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
                8,
            ),
            &["tensor b", "overlap those of a"],
        ),
    ];
    for (bytes, words) in cases {
        fs::write(dir.join(TENSORS), bytes).unwrap();
        refused(&dir, &[&[TENSORS], words].concat());
    }
}

#[test]
fn tensors_that_do_not_fit_the_config() {
    let k = "model.layers.1.self_attn.k_proj.weight";
    let cases: [(&str, &str, &[&str]); 4] = [
        (k, "model.layers.1.self_attn.kk_proj.weight", &[k, "is missing", "[128, 128]"]),
        (
            "\"model.norm.weight\":{\"dtype\":\"F16\"",
            "\"model.norm.weight\":{\"dtype\":\"I16\"",
            &["model.norm.weight", "I16", "F32, F16 or BF16"],
        ),
        (
            "\"lm_head.weight\":{\"dtype\":\"F16\",\"shape\":[256,128]",
            "\"lm_head.weight\":{\"dtype\":\"F16\",\"shape\":[128,256]",
            &["lm_head.weight", "has shape [128, 256]", "calls for [256, 128]"],
        ),
        (
            "\"model.norm.weight\":{\"dtype\":\"F16\",\"shape\":[128]",
            "\"model.norm.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[256]",
            &["model.norm.weight", "calls for [128]"],
        ),
    ];
    for (i, (from, to, words)) in cases.into_iter().enumerate() {
        let dir = folder(&format!("fit{i}"), "llama2");
        edit_header(&dir.join(TENSORS), |h| {
            assert!(h.contains(from), "{from} is in the header");
            h.replace(from, to)
        });
        refused(&dir, &[&[TENSORS], words].concat());
    }
}

#[test]
fn unexpected_tensors() {
    // The biases of this fixture are unknown to a config without attention_bias.
    let dir = folder("unexpected", "llama-bias");
    let config = fs::read_to_string(dir.join("config.json")).unwrap();
    fs::write(dir.join("config.json"), config.replace("\"attention_bias\": true", "\"attention_bias\": false"))
        .unwrap();
    refused(&dir, &[TENSORS, "model.layers.0.self_attn.k_proj.bias", "does not belong", "11 more"]);
}

#[test]
fn a_tied_head_must_repeat_the_embedding() {
    let dir = folder("tied", "llama2");
    let config = fs::read_to_string(dir.join("config.json")).unwrap();
    let tied = config.replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    fs::write(dir.join("config.json"), tied).unwrap();
    refused(&dir, &[TENSORS, "lm_head.weight", "differs from the embedding"]);
    // Here both are 65536 bytes, the head first.
    let mut bytes = fs::read(dir.join(TENSORS)).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes.copy_within(start + 65536..start + 2 * 65536, start);
    fs::write(dir.join(TENSORS), bytes).unwrap();
    open(&dir).expect("an equal copy of the embedding is accepted");
}

#[test]
fn inert_buffers_and_bare_names_are_accepted() {
    let dir = folder("bare", "gpt2");
    edit_header(&dir.join(TENSORS), |h| h.replace("transformer.", ""));
    let opened = open(&dir).expect("names without the model's prefix are accepted");
    let buffer = r#"{"h.0.attn.bias":{"dtype":"BOOL","shape":[0],"data_offsets":[0,0]},"#;
    edit_header(&dir.join(TENSORS), |h| h.replacen('{', buffer, 1));
    let with_buffer = open(&dir).expect("the mask some files hold is accepted");
    assert_eq!(with_buffer.weights, opened.weights);
}

#[test]
fn broken_indices() {
    let dir = folder("index", "qwen3");
    let path = dir.join("model.safetensors.index.json");
    let good = fs::read_to_string(&path).unwrap();
    open(&dir.join("model-00002-of-00004.safetensors")).expect("a shard stands for the whole model");
    let second = "model-00002-of-00004.safetensors";
    let norm = "model.norm.weight";
    let stray = good.replace("\"weight_map\": {", &format!("\"weight_map\": {{\"extra.weight\": \"{second}\","));
    let moved =
        good.replace(&format!("\"{norm}\": \"model-00004-of-00004"), &format!("\"{norm}\": \"model-00001-of-00004"));
    let lacking = good.lines().filter(|l| !l.contains("layers.0.input_layernorm")).collect::<Vec<_>>().join("\n");
    let cases: [(String, &[&str]); 7] = [
        (good.replace(second, "../outside"), &["index.json", "../outside", "leaves the model's folder"]),
        (good.replace(second, "/etc/passwd"), &["index.json", "leaves the model's folder"]),
        (good.replace(second, "gone.safetensors"), &["gone.safetensors", "No such file"]),
        ("{}".into(), &["index.json", "weight_map"]),
        (stray, &[second, "extra.weight", "is missing, but the index says"]),
        (moved, &["model-00004-of-00004", norm, "the index does not say so"]),
        (lacking, &[second, "layers.0.input_layernorm", "the index does not say so"]),
    ];
    for (text, words) in cases {
        assert_ne!(text, good);
        fs::write(&path, text).unwrap();
        refused(&dir, words);
    }
}

#[test]
fn broken_configs() {
    let dir = folder("config", "llama2");
    let path = dir.join("config.json");
    let good = fs::read_to_string(&path).unwrap();
    let set = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} is in the config");
        good.replace(from, to)
    };
    let add = |entry: &str| good.replacen('{', &format!("{{{entry},"), 1);
    let cases: [(String, &[&str]); 22] = [
        ("not json".into(), &["is not JSON"]),
        ("[]".into(), &["is a list, expected a JSON object"]),
        (String::new(), &["is not JSON"]),
        (add(r#""vocab_size": 3"#), &["duplicate key vocab_size"]),
        (set("\"hidden_size\"", "\"_name_or_path\""), &["hidden_size", "is missing"]),
        (set("\"hidden_size\": 128", "\"hidden_size\": 0"), &["hidden_size", "is 0, expected a whole number from 1"]),
        (set("\"hidden_size\": 128", "\"hidden_size\": 1000000000000"), &["hidden_size", "is 1000000000000"]),
        (set("\"hidden_size\": 128", "\"hidden_size\": -128"), &["hidden_size", "is -128"]),
        (set("\"hidden_size\": 128", "\"hidden_size\": \"128\""), &["hidden_size", "is \"128\""]),
        (set("\"hidden_size\": 128", "\"hidden_size\": 126"), &["num_attention_heads", "does not split 126"]),
        (set("\"num_key_value_heads\": 4", "\"num_key_value_heads\": 3"), &["num_key_value_heads", "does not divide"]),
        (
            set("\"vocab_size\": 256", "\"vocab_size\": 18446744073709551616"),
            &["vocab_size", "is 1.8446744073709552e+19"],
        ),
        (
            set("\"model_type\": \"llama\"", "\"model_type\": \"lama\""),
            &["model_type", "\"lama\"", "llmc knows gpt2, llama"],
        ),
        (set("LlamaForCausalLM", "LlamaForSequenceClassification"), &["architectures", "LlamaForCausalLM"]),
        (set("\"hidden_act\": \"silu\"", "\"hidden_act\": \"mish\""), &["hidden_act", "mish", "gelu_new"]),
        (set("\"pretraining_tp\": 1", "\"pretraining_tp\": 2"), &["pretraining_tp", "is 2", "supports only 1"]),
        (set("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 0"), &["rms_norm_eps", "is 0"]),
        (
            add(r#""quantization_config": {"quant_method": "gptq"}"#),
            &["quantization_config (gptq)", "not supported yet"],
        ),
        (add(r#""final_logit_softcapping": 30.0"#), &["final_logit_softcapping", "is 30.0", "does not know this key"]),
        (
            set("\"rope_scaling\": null", "\"rope_scaling\": {\"type\": \"longrope\"}"),
            &["rope_scaling.type", "longrope"],
        ),
        (set("\"eos_token_id\": 2", "\"eos_token_id\": 256"), &["eos_token_id", "is 256"]),
        (set("\"attention_bias\": false", "\"attention_bias\": 0"), &["attention_bias", "expected true or false"]),
    ];
    for (text, words) in cases {
        fs::write(&path, text).unwrap();
        refused(&dir, &[&["config.json"], words].concat());
    }
    fs::write(&path, add(r#""some_new_key": null"#)).unwrap();
    open(&dir).expect("null changes nothing");
    fs::remove_file(&path).unwrap();
    refused(&dir, &["config.json", "No such file"]);
}

#[test]
fn keys_of_other_families() {
    let dir = folder("gpt2", "gpt2");
    let path = dir.join("config.json");
    let good = fs::read_to_string(&path).unwrap();
    let bad = good.replace("\"scale_attn_by_inverse_layer_idx\": false", "\"scale_attn_by_inverse_layer_idx\": true");
    assert_ne!(bad, good);
    fs::write(&path, bad).unwrap();
    refused(&dir, &["scale_attn_by_inverse_layer_idx", "is true", "supports only false"]);
}

#[test]
fn broken_side_files() {
    let dir = folder("sides", "llama2");
    for (name, text, words) in [
        ("generation_config.json", "nonsense", "is not JSON"),
        ("tokenizer_config.json", "[]", "expected a JSON object"),
        ("special_tokens_map.json", r#"{"bos_token": 7}"#, "bos_token: is 7"),
    ] {
        fs::write(dir.join(name), text).unwrap();
        refused(&dir, &[name, words]);
        fs::remove_file(dir.join(name)).unwrap();
    }
    assert!(open(&dir).expect("side files are optional").tokenizer_json.is_none());
}
