//! A full-size tokenizer.json without a training corpus.

use std::collections::BTreeSet;
use std::fmt::Write;

use llmc_abi::tokenizer::byte_level;

const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Special tokens at the end of the vocabulary, as many as Llama 3 has.
const SPECIAL: usize = 256;
const NAMED: [&str; 4] = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"];
const SYLLABLES: [&str; 40] = [
    " the", " of", " and", " a", "th", "in", "er", "on", "re", "at", "en", "st", "or", "es", "ar", "al", "te", "co",
    "de", "ing", " to", " s", " c", " p", " w", "ion", "le", "it", "is", "an", "ed", "ou", "ch", "ly", "ro", "ra",
    "ne", "ve", "me", "ri",
];
const SCRIPTS: [std::ops::RangeInclusive<char>; 4] = ['가'..='힣', 'ぁ'..='ヶ', '一'..='鿿', 'а'..='я'];

/// A byte-level BPE tokenizer.json in the shape of Llama 3's, with `vocab_size` ids (at least 512
/// are made) of which the last 256 are special tokens, and merges that make every other token. The
/// same size gives the same text.
pub fn synthetic(vocab_size: usize) -> String {
    let special = SPECIAL;
    let wanted = vocab_size.max(512) - special;
    let mut made = Words::new();
    for script in SCRIPTS {
        script.for_each(|c| made.add_all(c.encode_utf8(&mut [0; 4]).as_bytes(), wanted / 2));
    }
    SYLLABLES.iter().for_each(|s| made.add_all(s.as_bytes(), wanted));
    made.grow(wanted);
    made.to_json(special)
}

/// Tokens and the merges that make them, in order.
struct Words {
    tokens: Vec<Vec<u8>>,
    merges: Vec<(Vec<u8>, Vec<u8>)>,
    known: BTreeSet<Vec<u8>>,
}

impl Words {
    fn new() -> Self {
        let tokens: Vec<Vec<u8>> = (0..=255).map(|b| vec![b]).collect();
        Words { known: tokens.iter().cloned().collect(), tokens, merges: Vec::new() }
    }

    fn add(&mut self, left: &[u8], right: &[u8]) {
        let joined = [left, right].concat();
        if self.known.insert(joined.clone()) {
            self.tokens.push(joined);
            self.merges.push((left.to_vec(), right.to_vec()));
        }
    }

    /// Adds every prefix of `text`, up to `limit` tokens.
    fn add_all(&mut self, text: &[u8], limit: usize) {
        for len in 2..=text.len() {
            if self.tokens.len() < limit {
                self.add(&text[..len - 1], &text[len - 1..len]);
            }
        }
    }

    /// Appends syllables to tokens until there are `wanted`.
    fn grow(&mut self, wanted: usize) {
        let mut from = 0;
        while self.tokens.len() < wanted {
            let stem = self.tokens[from].clone();
            let is_word = stem.iter().all(|b| b.is_ascii_alphabetic() || *b == b' ');
            for syllable in SYLLABLES.iter().filter(|s| is_word && !s.starts_with(' ')) {
                if self.tokens.len() < wanted && stem.len() < 16 {
                    self.add(&stem, syllable.as_bytes());
                }
            }
            from += 1;
        }
    }

    fn to_json(&self, special: usize) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let spelled = |bytes: &[u8]| quoted(&byte_level::spell(bytes));
        let names: Vec<String> = (0..special)
            .map(|i| match NAMED.get(i) {
                Some(name) => (*name).to_owned(),
                None => format!("<|reserved_special_token_{}|>", i - NAMED.len()),
            })
            .collect();
        let first = self.tokens.len();
        let mut out = String::from("{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[");
        for (i, name) in names.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let rest = "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true";
            put(&mut out, format_args!("{comma}{{\"id\":{},\"content\":{},{rest}}}", first + i, quoted(name)));
        }
        let byte_level =
            "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}";
        let split = format!(
            "{{\"type\":\"Split\",\"pattern\":{{\"Regex\":{}}},\"behavior\":\"Isolated\",\"invert\":false}}",
            quoted(PATTERN)
        );
        put(
            &mut out,
            format_args!(
                "],\"normalizer\":null,\"pre_tokenizer\":{{\"type\":\"Sequence\",\"pretokenizers\":[{split},{byte_level}]}},"
            ),
        );
        put(&mut out, format_args!("\"post_processor\":{},", template(&names[0], first)));
        put(
            &mut out,
            format_args!("\"decoder\":{byte_level},\"model\":{{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"),
        );
        out.push_str("\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,");
        out.push_str("\"ignore_merges\":true,\"vocab\":{");
        for (i, token) in self.tokens.iter().enumerate() {
            put(&mut out, format_args!("{}{}:{i}", if i > 0 { "," } else { "" }, spelled(token)));
        }
        out.push_str("},\"merges\":[");
        for (i, (a, b)) in self.merges.iter().enumerate() {
            put(&mut out, format_args!("{}[{},{}]", if i > 0 { "," } else { "" }, spelled(a), spelled(b)));
        }
        out.push_str("]}}");
        out
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String cannot fail");
}

fn template(name: &str, id: usize) -> String {
    serde_json::json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]}},
    })
    .to_string()
}
