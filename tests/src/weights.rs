//! The weight files of a fixture, written from its `weights.json` to the byte.
//!
//! A fixture in `tests/models` keeps its weights as a recipe: the header of each safetensors file,
//! and for each tensor a key, a mean and a deviation, or the values themselves. Element `i` is
//! `mean + std * n(key, i)`, where `n` sums four 16-bit parts of a hash of key and index.

use half::{bf16, f16};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of all fixtures, for any crate beside `tests`.
pub fn fixtures() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models")).to_path_buf()
}

/// Makes the model folder `out/NAME` of a fixture with the given form of its config
/// (`config.json` or `config.v5.json`), and returns its path.
pub fn model(name: &str, config: &str, out: &Path) -> PathBuf {
    let (from, to) = (fixtures().join(name), out.join(format!("{name}-{config}")));
    fs::create_dir_all(&to).expect("the temporary folder is writable");
    for (file, bytes) in files(&from) {
        put(&to.join(file), &bytes);
    }
    put(&to.join("config.json"), &fs::read(from.join(config)).expect("the fixture has this config"));
    let index = "model.safetensors.index.json";
    if let Ok(bytes) = fs::read(from.join(index)) {
        put(&to.join(index), &bytes);
    }
    to
}

/// Name and bytes of each weight file of the fixture in `folder`; panics if a sum is not the recipe's.
pub fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let text = fs::read(folder.join("weights.json")).expect("the fixture has weights.json");
    let recipe: Value = serde_json::from_slice(&text).expect("weights.json is JSON");
    let files = recipe["files"].as_object().expect("weights.json has files");
    files.iter().map(|(name, file)| (name.clone(), file_bytes(name, file))).collect()
}

fn file_bytes(name: &str, file: &Value) -> Vec<u8> {
    let text = file["header"].as_str().expect("a file has a header");
    let header: Value = serde_json::from_str(text).expect("a header is JSON");
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    for tensor in file["tensors"].as_array().expect("a file has tensors") {
        let entry = &header[tensor["name"].as_str().expect("a tensor has a name")];
        let shape = entry["shape"].as_array().expect("a tensor has a shape");
        let count = shape.iter().map(|d| d.as_u64().expect("a dimension is a number") as usize).product();
        let dtype = entry["dtype"].as_str().expect("a tensor has a dtype");
        values(tensor, count).for_each(|x| encode(dtype, x as f32, &mut bytes));
    }
    let sum: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(Some(sum.as_str()), file["sha256"].as_str(), "sum of {name}");
    bytes
}

fn values(tensor: &Value, count: usize) -> Box<dyn Iterator<Item = f64> + '_> {
    if let Some(list) = tensor["values"].as_array() {
        return Box::new(list.iter().map(|v| v.as_f64().expect("a value is a number")));
    }
    let number = |key: &str| tensor[key].as_f64().expect("mean and std are numbers");
    let (mean, std) = (number("mean"), number("std"));
    let key = fnv1a64(tensor["key"].as_str().expect("a tensor has a key"));
    Box::new((0..count as u64).map(move |i| mean + std * normal(key.wrapping_add(i.wrapping_mul(GOLDEN)))))
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn fnv1a64(key: &str) -> u64 {
    key.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3))
}

/// An approximately normal number from the finalizer of splitmix64.
fn normal(mut z: u64) -> f64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let sum: i64 = (0..4).map(|part| (z >> (16 * part) & 0xFFFF) as i64).sum();
    (sum - 131_070) as f64 * 2.6429e-05
}

fn encode(dtype: &str, x: f32, out: &mut Vec<u8>) {
    match dtype {
        "F32" => out.extend(x.to_le_bytes()),
        "F16" => out.extend(f16::from_f32(x).to_le_bytes()),
        "BF16" => out.extend(bf16::from_f32(x).to_le_bytes()),
        other => panic!("the recipe has no dtype {other}"),
    }
}

/// Writes a file so that a concurrent reader sees all of it or the same bytes from before.
fn put(path: &Path, bytes: &[u8]) {
    let unique = format!("{}.{:?}.tmp", std::process::id(), std::thread::current().id());
    let temporary = path.with_extension(unique);
    fs::write(&temporary, bytes).expect("the temporary folder is writable");
    fs::rename(&temporary, path).expect("the temporary folder is writable");
}
