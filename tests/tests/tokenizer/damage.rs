//! Broken files and broken tables: errors, never panics.

use llmc_models::tokenizer::compile;
use llmc_rt::tokenizer::{StreamDecoder, Tokenizer};
use serde_json::{Value, json};

use crate::generate::Rng;
use crate::oracle::tinywiki;

const MUTATIONS: usize = 10_000;

/// A small file with most constructs.
fn small(byte_level: bool) -> Value {
    let letters = ["Ġ", "a", "b", "c", "▁", "<0x41>", "<0xEA>", "ab", "abc", "Ġa", "<s>", "<unk>", "ê", "°", "Ģ"];
    let vocab: Value =
        letters.iter().zip(0..).map(|(t, id)| (t.to_string(), json!(id))).collect::<serde_json::Map<_, _>>().into();
    let token = |id: u32, content: &str, flag: bool| json!({"id": id, "content": content, "single_word": flag, "lstrip": flag, "rstrip": false, "normalized": flag, "special": true});
    let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let (pre_tokenizer, decoder) = if byte_level {
        (
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "(?i:'s)|\\p{L}+|\\d{1,3}|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            ]}),
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        )
    } else {
        (
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
            json!({"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 1}]}),
        )
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [token(10, "<s>", false), token(15, "<|x|>", true)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend", "prepend": "a"}]},
        "pre_tokenizer": pre_tokenizer, "decoder": decoder,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [10], "tokens": ["<s>"]}}},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": !byte_level, "ignore_merges": false, "vocab": vocab,
            "merges": [["a", "b"], ["ab", "c"], ["Ġ", "a"]]},
    })
}

fn mutate(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..1 + rng.below(4) {
        if out.is_empty() {
            break;
        }
        let at = rng.below(out.len());
        match rng.below(6) {
            0 => out[at] = rng.next() as u8,
            1 => out[at] ^= 1 << rng.below(8),
            2 => out.truncate(at),
            3 => drop(out.remove(at)),
            4 => out.insert(at, b"0123456789{}[]\",:\\+*?|(-"[rng.below(24)]),
            _ => {
                let from = rng.below(out.len());
                let part = out[from..(from + 1 + rng.below(24)).min(out.len())].to_vec();
                out.splice(at..at, part);
            }
        }
    }
    out
}

/// Uses a tokenizer in every way; what comes out does not matter.
fn exercise(bytes: &[u8]) -> bool {
    let Ok(tokenizer) = Tokenizer::from_bytes(bytes) else { return false };
    let text = "abc 's <s> <|x|> 12345 \u{1100}\u{1161} \u{ea}\u{b0}\u{80} 한 \n\n  a";
    let mut ids = tokenizer.encode(text, true);
    ids.extend(tokenizer.encode_plain(text));
    ids.extend((0..20).chain([u32::MAX, 1 << 24]));
    tokenizer.decode(&ids, true);
    tokenizer.decode_bytes(&ids, false);
    let mut stream = StreamDecoder::new(&tokenizer, false);
    ids.iter().for_each(|&id| drop(stream.push(id)));
    stream.finish();
    let spelled = ids.iter().filter_map(|&id| tokenizer.id_to_token(id));
    let known = spelled.filter(|s| tokenizer.token_to_id(s).is_some()).count();
    known <= ids.len()
}

#[test]
fn mutated_files_are_errors_or_tokenizers() {
    let mut rng = Rng::new(1);
    let files = [small(true).to_string(), small(false).to_string()];
    let mut accepted = 0;
    for i in 0..MUTATIONS {
        let file = mutate(files[i % 2].as_bytes(), &mut rng);
        match compile(&file) {
            Ok(bytes) => {
                accepted += 1;
                exercise(&bytes);
            }
            Err(error) => assert!(error.to_string().starts_with("tokenizer.json: "), "{error}"),
        }
    }
    assert!((100..MUTATIONS - 1000).contains(&accepted), "{accepted}");
}

#[test]
fn mutated_tables_never_panic() {
    let mut rng = Rng::new(2);
    let tables =
        [true, false].map(|byte_level| compile(small(byte_level).to_string().as_bytes()).expect("the file is sound"));
    assert!(tables.iter().all(|t| exercise(t)));
    let mut opened = 0;
    for i in 0..MUTATIONS {
        let table = &tables[i % 2];
        let mut bytes = table.clone();
        for _ in 0..1 + rng.below(8) {
            // Half of the damage goes where small numbers steer much.
            let reach = if rng.below(2) == 0 { 1500.min(bytes.len()) } else { bytes.len() };
            let at = rng.below(reach);
            bytes[at] = if rng.below(2) == 0 { rng.next() as u8 } else { bytes[at] ^ 1 << rng.below(8) };
        }
        if rng.below(20) == 0 {
            bytes.truncate(rng.below(bytes.len()));
        }
        opened += usize::from(exercise(&bytes));
    }
    assert!(opened > 1000, "{opened}");
}

#[test]
fn truncated_files() {
    let file = tinywiki();
    for part in 0..16 {
        let mut cut = file.len() * part / 16;
        while !file.is_char_boundary(cut) {
            cut -= 1;
        }
        assert!(compile(&file.as_bytes()[..cut]).is_err());
    }
}

#[test]
fn errors_name_the_construct() {
    let split =
        |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let cases: [(&str, Value, &str); 14] = [
        ("/model/type", json!("Unigram"), "model of type \"Unigram\""),
        ("/model/type", json!("WordPiece"), "model of type \"WordPiece\""),
        ("/model/dropout", json!(0.1), "dropout"),
        ("/model/end_of_word_suffix", json!("</w>"), "end_of_word_suffix"),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": ""}), "Precompiled"),
        ("/pre_tokenizer", json!({"type": "BertPreTokenizer"}), "BertPreTokenizer"),
        ("/decoder", json!({"type": "WordPiece", "prefix": "##", "cleanup": true}), "WordPiece"),
        ("/pre_tokenizer", split(r"\p{L}++|a"), "possessive"),
        ("/pre_tokenizer", split(r"(?<=a)b"), "look-behind"),
        ("/pre_tokenizer", split(r"a(?!bc)"), "look-ahead for `bc`"),
        ("/pre_tokenizer", split(r"a*"), "empty"),
        ("/pre_tokenizer", split(r"a\b"), "word boundaries"),
        ("/model/merges", json!([["a", "zz"]]), "\"zz\" is not in the vocabulary"),
        ("/model/vocab/a", json!(0), "id 0 belongs to two tokens"),
    ];
    for (pointer, value, want) in cases {
        let mut file = small(true);
        *file.pointer_mut(pointer).expect("a place in the file") = value;
        let error = compile(file.to_string().as_bytes()).expect_err(want).to_string();
        assert!(error.contains(want), "{error}\nshould say {want}");
    }
}
