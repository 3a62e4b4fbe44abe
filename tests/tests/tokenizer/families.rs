//! Constructs of tokenizer.json beyond tinywiki's own, each against the library.

use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};

use crate::generate::every_char;
use crate::oracle::{Both, tinywiki};

const COUNT: usize = 1500;

const CONTRACTIONS: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const UPPER: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]";
const LOWER: &str = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]";
const SPACES: &str = r"\s*[\r\n]+|\s+(?!\S)|\s+";

fn byte_level(prefix: bool, regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex})
}

fn split(regex: &str, behavior: &str, invert: bool) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert})
}

fn split_text(text: &str, behavior: &str) -> Value {
    json!({"type": "Split", "pattern": {"String": text}, "behavior": behavior, "invert": false})
}

fn then_bytes(steps: &[Value]) -> Value {
    let all: Vec<Value> = steps.iter().cloned().chain([byte_level(false, false)]).collect();
    json!({"type": "Sequence", "pretokenizers": all})
}

fn isolated(regex: &str) -> Value {
    then_bytes(&[split(regex, "Isolated", false)])
}

/// tinywiki with parts exchanged.
fn variant(name: &str, parts: &[(&str, Value)]) {
    let mut file: Value = serde_json::from_str(&tinywiki()).expect("the file is JSON");
    for (key, value) in parts {
        match key.strip_prefix("model.") {
            Some(key) => file["model"][key] = value.clone(),
            None => file[*key] = value.clone(),
        }
    }
    let json = file.to_string();
    Both::new(name, &json).check_generated(COUNT, json.len() as u64);
}

#[test]
fn pre_tokenizer_patterns() {
    let o200k = format!(
        r"{UPPER}*{LOWER}+{CONTRACTIONS}?|{UPPER}+{LOWER}*{CONTRACTIONS}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}"
    );
    let qwen2 =
        format!(r"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}");
    let deepseek3 = format!(
        r"[!-/:-~][A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{SPACES}"
    );
    let patterns = [
        ("gpt2", byte_level(false, true)),
        ("gpt2 with prefix", byte_level(true, true)),
        ("qwen2", isolated(&qwen2)),
        ("grouped", isolated(&format!("(?:{qwen2})"))),
        ("o200k", isolated(&o200k)),
        (
            "deepseek3",
            then_bytes(&[
                split(r"\p{N}{1,3}", "Isolated", false),
                split("[一-龥\u{3040}-ゟ゠-ヿ]+", "Isolated", false),
                split(&deepseek3, "Isolated", false),
            ]),
        ),
        (
            "deepseek coder",
            then_bytes(&[
                split("[\r\n]", "Isolated", false),
                split(r"\s?\p{L}+", "Isolated", false),
                split(r"\s?\p{P}+", "Isolated", false),
                split("[一-龥ࠀ-一가-퟿]+", "Isolated", false),
                json!({"type": "Digits", "individual_digits": true}),
            ]),
        ),
        ("bloom", isolated(r" ?[^(\s|[.,!?…。，、।۔،])]+")),
        ("han", isolated(r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{L}&&[^\p{Han}]]+|\p{N}{1,3}|\w|.|\s+(?!\S)|\s")),
        ("look-ahead", isolated(r"\p{L}+?(?=\p{L})|\d+(?!\p{L})|\s+(?= )|[^a]")),
    ];
    for (name, value) in patterns {
        variant(name, &[("pre_tokenizer", value)]);
    }
}

#[test]
fn pre_tokenizer_kinds() {
    let sequence = |steps: Value| json!({"type": "Sequence", "pretokenizers": steps});
    let digits = |each: bool| json!({"type": "Digits", "individual_digits": each});
    let kinds = [
        ("starcoder", sequence(json!([digits(true), byte_level(false, true)]))),
        (
            "falcon",
            sequence(json!([
                {"type": "Punctuation", "behavior": "Contiguous"}, byte_level(false, true), digits(false), split("[0-9][0-9][0-9]", "Isolated", false),
            ])),
        ),
        ("punctuation", sequence(json!([{"type": "Punctuation"}, byte_level(true, false)]))),
        ("whitespace", sequence(json!([{"type": "Whitespace"}, byte_level(false, false)]))),
        ("whitespace split", sequence(json!([{"type": "WhitespaceSplit"}, byte_level(false, false)]))),
        ("delimiter", sequence(json!([{"type": "CharDelimiterSplit", "delimiter": "e"}, byte_level(false, false)]))),
        (
            "metaspace",
            sequence(
                json!([{"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"}, byte_level(false, false)]),
            ),
        ),
        ("none", Value::Null),
    ];
    for (name, value) in kinds {
        variant(name, &[("pre_tokenizer", value)]);
    }
}

#[test]
fn split_behaviors() {
    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"] {
        for invert in [false, true] {
            variant(behavior, &[("pre_tokenizer", then_bytes(&[split(r"\s|\p{L}e|--", behavior, invert)]))]);
        }
        variant(behavior, &[("pre_tokenizer", then_bytes(&[split_text("e", behavior), split_text(" t.", behavior)]))]);
    }
}

#[test]
fn normalizers() {
    let kind = |name: &str| json!({"type": name});
    let replace = json!({"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "});
    let strip = json!({"type": "Strip", "strip_left": true, "strip_right": false});
    let cases = [
        kind("NFD"),
        kind("NFC"),
        kind("NFKC"),
        kind("NFKD"),
        kind("Lowercase"),
        kind("StripAccents"),
        kind("Nmt"),
        strip.clone(),
        replace.clone(),
        json!({"type": "Prepend", "prepend": "▁x"}),
        json!({"type": "Sequence", "normalizers": [kind("NFD"), kind("StripAccents"), replace, strip, kind("Lowercase"), kind("NFC")]}),
    ];
    for value in cases {
        variant(&value.to_string(), &[("normalizer", value.clone())]);
    }
}

#[test]
fn added_tokens() {
    let token = |id: u32, content: &str, flags: [bool; 5]| json!({"id": id, "content": content, "single_word": flags[0], "lstrip": flags[1], "rstrip": flags[2], "normalized": flags[3], "special": flags[4]});
    let (no, yes) = (false, true);
    let added = json!([
        token(8187, "<|bos|>", [no, yes, no, no, yes]),
        token(8188, "<|eos|>", [no, no, yes, no, yes]),
        token(8189, "<|pad|>", [yes, no, no, no, yes]),
        token(8190, "<|im_start|>", [no, yes, yes, yes, yes]),
        token(8191, "<|im_end|>", [no, no, no, yes, no]),
        token(8192, "É", [no, no, no, yes, no]),
        token(8193, "  ", [no, no, no, no, no]),
        token(8194, "<|", [no, no, no, no, no]),
        token(8195, "the", [yes, no, no, yes, no]),
        token(262, " a", [no, no, no, no, no]),
        token(8196, "|>", [no, yes, yes, no, no]),
    ]);
    variant("added", &[("added_tokens", added.clone())]);
    variant("added, lower case", &[("added_tokens", added), ("normalizer", json!({"type": "Lowercase"}))]);
}

#[test]
fn models_and_processors() {
    variant("ignore_merges", &[("model.ignore_merges", json!(true))]);
    variant(
        "roberta",
        &[(
            "post_processor",
            json!({
                "type": "RobertaProcessing", "sep": ["<|eos|>", 8188], "cls": ["<|bos|>", 8187], "trim_offsets": true, "add_prefix_space": true,
            }),
        )],
    );
    variant("no processor, no decoder", &[("post_processor", Value::Null), ("decoder", Value::Null)]);
}

/// A character-level vocabulary with byte tokens, as SentencePiece models have.
fn sentencepiece(mark: bool, fallback: bool) -> Value {
    let books = include_str!("../../models/tinywiki/reference/test_books.txt");
    let korean = include_str!("../../models/tinywiki/reference/test_ko.txt");
    let words = books
        .split_whitespace()
        .chain(korean.split_whitespace())
        .map(|w| if mark { format!("▁{w}") } else { w.to_owned() });
    let mut trainer = BpeTrainer::builder().vocab_size(2500).show_progress(false).build();
    tokenizers::Trainer::feed(&mut trainer, words, |w| Ok(vec![w.to_owned()])).expect("words");
    let mut bpe = BPE::default();
    tokenizers::Trainer::train(&trainer, &mut bpe).expect("training");
    let _ = TrainerWrapper::from(trainer);
    let mut model = serde_json::to_value(&bpe).expect("a model is JSON");
    let vocab = model["vocab"].as_object_mut().expect("a vocabulary");
    let bytes = (0..=255u8).filter(|_| fallback).map(|b| format!("<0x{b:02X}>"));
    for token in ["<unk>".to_owned(), "▁".to_owned()].into_iter().chain(bytes) {
        let next = json!(vocab.len());
        vocab.entry(token).or_insert(next);
    }
    model["unk_token"] = json!("<unk>");
    model["byte_fallback"] = json!(fallback);
    model["fuse_unk"] = json!(true);
    model
}

fn special(id: u64, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
}

#[test]
fn sentencepiece_families() {
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let llama_normalizer =
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")]});
    let llama_decoder = json!({"type": "Sequence", "decoders": [
        replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]});
    let gemma_decoder =
        json!({"type": "Sequence", "decoders": [replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}]});
    let metaspace = |scheme: &str, split: bool| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split});
    let cases = [
        ("llama 2", llama_normalizer, Value::Null, llama_decoder.clone()),
        ("gemma", replace(" ", "▁"), split_text(" ", "MergedWithPrevious"), gemma_decoder),
        ("metaspace first", Value::Null, metaspace("first", false), llama_decoder),
        ("metaspace always", Value::Null, metaspace("always", true), metaspace("always", true)),
        ("metaspace never", json!({"type": "NFKC"}), metaspace("never", true), metaspace("never", true)),
    ];
    for (mark, fallback) in [(true, true), (false, true), (true, false)] {
        let model = sentencepiece(mark, fallback);
        let next = model["vocab"].as_object().expect("a vocabulary").len() as u64;
        for (name, normalizer, pre_tokenizer, decoder) in &cases {
            let file = json!({
                "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(next, "<s>"), special(next + 1, "</s>")],
                "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model,
            });
            Both::new(&format!("{name}, marked {mark}, fallback {fallback}"), &file.to_string())
                .check_generated(COUNT, 3);
        }
    }
}

#[test]
fn merges_as_lines() {
    let mut file: Value = serde_json::from_str(&tinywiki()).expect("the file is JSON");
    let lines = file["model"]["merges"]
        .as_array()
        .expect("merges")
        .iter()
        .map(|m| json!(format!("{} {}", m[0].as_str().expect("a token"), m[1].as_str().expect("a token"))));
    let lines: Value = lines.collect();
    let pairs = llmc_models::tokenizer::compile(file.to_string().as_bytes()).expect("pairs compile");
    file["model"]["merges"] = lines;
    assert_eq!(llmc_models::tokenizer::compile(file.to_string().as_bytes()).expect("lines compile"), pairs);
}

/// Every character in the classes that the patterns use: both regex engines know the same Unicode.
#[test]
fn classes_of_every_character() {
    let classes = [
        r"\p{L}",
        r"\p{Lu}",
        r"\p{Ll}",
        r"\p{Lt}",
        r"\p{Lm}",
        r"\p{Lo}",
        r"\p{M}",
        r"\p{N}",
        r"\p{Nd}",
        r"\p{P}",
        r"\p{S}",
        r"\p{Z}",
        r"\p{C}",
        r"\s",
        r"[^\s]",
        r"\d",
        r"\w",
        r"\W",
        r"[\w]",
        r"[^\w]",
        r"\p{Han}",
        r"\p{Hangul}",
        r"\p{Hiragana}",
        r"(?i:[k-så-ÿ])",
        r"(?i:s|k|ſ|é)",
        ".",
    ];
    let all = every_char();
    for class in classes {
        let runs = format!("(?:{class})+");
        let file = json!({"version": "1.0", "added_tokens": [], "decoder": byte_level(false, false), "pre_tokenizer": then_bytes(&[split(&runs, "Removed", false)]),
            "model": {"type": "BPE", "vocab": vocabulary_of_bytes(), "merges": []}});
        let both = Both::new(class, &file.to_string());
        let ours = both.ours();
        for chunk in all.chunks(4096) {
            let text: String = chunk.iter().collect();
            let want = both.library.encode_fast(text.as_str(), false).expect("any text");
            let (got, want) = (ours.decode(&ours.encode_plain(&text), false), ours.decode(want.get_ids(), false));
            let differs = got.chars().zip(want.chars()).find(|(a, b)| a != b);
            assert_eq!(got.len(), want.len(), "{class}: {differs:x?}");
            assert_eq!(differs, None, "{class}");
        }
    }
}

fn vocabulary_of_bytes() -> Value {
    let tokens = (0..=255u8).map(|b| (llmc_abi::tokenizer::byte_level::spell(&[b]), json!(b)));
    Value::Object(tokens.collect())
}
