//! No parser of this crate panics: seeded mutations of good inputs give a value or an error.

use crate::weights;
use llmc_models::checkpoint::{index, safetensors::Table};
use llmc_models::config::Config;
use llmc_models::config::text::{self, Side, Sides};
use llmc_models::families;
use std::fs;
use std::path::Path;

const ROUNDS: u64 = 10_000;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Texts that trouble parsers of JSON and of numbers.
const TOKENS: [&str; 20] = [
    "0",
    "-1",
    "1",
    "18446744073709551615",
    "9223372036854775808",
    "4294967296",
    "1e308",
    "1e-320",
    "0.5",
    "null",
    "true",
    "\"\"",
    "[]",
    "{}",
    "\"..\"",
    "\"default\"",
    "\"yarn\"",
    ",",
    "\\u0000",
    "[[[[[[[[",
];

/// One to four changes: a flipped bit, an inserted, repeated or removed piece, a truncation, or
/// the value after a colon or in a list replaced.
fn mutate(r: &mut Random, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=r.below(4) {
        let at = r.below(bytes.len());
        let end = (at + r.below(20)).min(bytes.len());
        match r.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << r.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => drop(bytes.splice(at..at, TOKENS[r.below(TOKENS.len())].bytes())),
            _ => replace_value(r, &mut bytes),
        }
    }
    bytes
}

fn replace_value(r: &mut Random, bytes: &mut Vec<u8>) {
    let starts: Vec<usize> = (0..bytes.len()).filter(|i| matches!(bytes[*i], b':' | b'[')).collect();
    let Some(start) = starts.get(r.below(starts.len())).map(|s| s + 1) else { return };
    let length = bytes[start..].iter().position(|b| matches!(b, b',' | b'}' | b']' | b'\n')).unwrap_or(0);
    bytes.splice(start..start + length, TOKENS[r.below(TOKENS.len())].bytes());
}

/// Runs `parse` on mutations of each good input; both outcomes must occur.
fn survives(seed: u64, good: &[Vec<u8>], mut parse: impl FnMut(&[u8]) -> bool) {
    for input in good {
        assert!(parse(input), "the input itself parses");
    }
    let mut r = Random(seed);
    let parsed = (0..ROUNDS).filter(|i| parse(&mutate(&mut r, &good[*i as usize % good.len()]))).count() as u64;
    assert!((1..ROUNDS).contains(&parsed), "{parsed} of {ROUNDS} mutations parse");
}

#[test]
fn safetensors_headers() {
    let header = r#"{"__metadata__":{"format":"pt"},"a.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"c":{"dtype":"I64","shape":[],"data_offsets":[32,40]}}"#;
    let path = Path::new("m.safetensors");
    let whole = |header: &[u8], data: usize| [&(header.len() as u64).to_le_bytes(), header, &vec![7; data]].concat();
    survives(1, &[whole(header.as_bytes(), 40)], |b| Table::parse(path, b).is_ok());
    // With a right length in front, more of the header's own checks are reached.
    survives(2, &[header.as_bytes().to_vec()], |b| match Table::parse(path, &whole(b, 40)) {
        Ok(table) => table.names().iter().all(|n| table.get(n).is_some_and(|i| i.data_offsets.1 <= 40)),
        Err(_) => false,
    });
}

#[test]
fn indices() {
    let text = fs::read(weights::fixtures().join("qwen3/model.safetensors.index.json")).unwrap();
    survives(3, &[text], |b| index::parse(Path::new("m.index.json"), b).is_ok());
}

#[test]
fn configs() {
    let mut good = Vec::new();
    for name in ["llama3-rope", "llama-yarn", "mistral", "qwen2-sliding", "qwen3", "gpt2"] {
        for form in ["config.json", "config.v5.json"] {
            good.push(fs::read(weights::fixtures().join(name).join(form)).unwrap());
        }
    }
    survives(4, &good, |b| {
        let config = Config::parse(Path::new("config.json"), b);
        let Ok((_, spec)) = config.and_then(|c| families::read(&c)) else { return false };
        let small = spec.layers.len() < 100;
        !small || !llmc_models::weights::shapes(&spec).is_empty() && !spec.to_string().is_empty()
    });
}

#[test]
fn side_files() {
    let tinywiki = weights::fixtures().join("tinywiki");
    let good: Vec<Vec<u8>> = ["generation_config.json", "special_tokens_map.json", "tokenizer_config.json"]
        .iter()
        .map(|n| fs::read(tinywiki.join(n)).unwrap())
        .collect();
    survives(5, &good, |b| {
        let side = Side { path: Path::new("x.json"), bytes: Some(b) };
        let none = Side { path: Path::new("x.json"), bytes: None };
        let sides = Sides { config: none, generation: side, special: side, tokenizer: side, template: none };
        text::read(&sides, 8192).is_ok()
    });
}
