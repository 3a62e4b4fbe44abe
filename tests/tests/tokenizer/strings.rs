//! tinywiki: stored strings and generated ones.

use serde_json::Value;

use crate::generate::every_char;
use crate::oracle::{Both, tinywiki};

fn reference() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tinywiki/reference/tokenizer.json");
    let text = std::fs::read_to_string(path).expect("tests/models/tinywiki is part of the tree");
    serde_json::from_str(&text).expect("the reference is JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list of ids").iter().map(|v| v.as_u64().expect("an id") as u32).collect()
}

fn string<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().expect("a string")
}

#[test]
fn stored_strings() {
    let both = Both::new("tinywiki", &tinywiki());
    let (ours, reference) = (both.ours(), reference());
    for (name, id) in reference["special"].as_object().expect("special tokens") {
        assert_eq!(ours.token_to_id(name).map(u64::from), id.as_u64(), "{name}");
    }
    let cases = reference["encode"].as_array().expect("strings");
    assert!(cases.len() >= 20);
    for case in cases {
        let text = string(case, "text");
        assert_eq!(ours.encode(text, false), ids(&case["ids"]), "{text:?}");
        assert_eq!(ours.encode(text, true), ids(&case["ids_with_special"]), "{text:?}");
        assert_eq!(ours.decode(&ids(&case["ids"]), false), string(case, "decoded"));
        both.check(&ours, text);
    }
}

#[test]
fn one_hundred_thousand_strings() {
    let both = Both::new("tinywiki", &tinywiki());
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let both = &both;
            scope.spawn(move || both.check_generated(25_000, seed));
        }
    });
}

#[test]
fn every_token_has_its_spelling_and_bytes() {
    let both = Both::new("tinywiki", &tinywiki());
    let ours = both.ours();
    for id in 0..ours.vocab_size() {
        let spelled = both.library.id_to_token(id);
        assert_eq!(ours.id_to_token(id).as_deref(), spelled.as_deref());
        assert_eq!(spelled.and_then(|s| ours.token_to_id(&s)), Some(id));
    }
    let text = "한국어 😀 text";
    assert_eq!(ours.decode_bytes(&ours.encode_plain(text), false), text.as_bytes());
    assert_eq!(ours.id_to_bytes(ours.vocab_size()), None);
}

/// Every character by itself and after a letter: normalization and classes agree in all of Unicode.
#[test]
fn every_character() {
    let both = Both::new("tinywiki", &tinywiki());
    let ours = both.ours();
    for chunk in every_char().chunks(64) {
        let text: String = chunk.iter().flat_map(|&c| ['a', c, ' ', c, '1']).collect();
        let want = both.library.encode_fast(text.as_str(), false).expect("the library encodes any text");
        assert_eq!(ours.encode_with_special(&text), want.get_ids(), "from {:?}", chunk[0]);
    }
}
