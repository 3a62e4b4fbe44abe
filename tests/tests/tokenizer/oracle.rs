//! One tokenizer.json, compiled and in the library, and what must agree.

use llmc_rt::tokenizer::{StreamDecoder, Tokenizer};
use tokenizers::Tokenizer as Library;

use crate::generate::{Rng, text};

/// The stored tinywiki tokenizer.
pub fn tinywiki() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tinywiki/tokenizer.json");
    std::fs::read_to_string(path).expect("tests/models/tinywiki is part of the tree")
}

/// Both readings of one file.
pub struct Both {
    pub name: String,
    pub library: Library,
    pub bytes: Vec<u8>,
}

impl Both {
    pub fn new(name: &str, json: &str) -> Self {
        let library = Library::from_bytes(json.as_bytes()).unwrap_or_else(|e| panic!("{name}: library: {e}"));
        let bytes = llmc_models::tokenizer::compile(json.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
        Both { name: name.to_owned(), library, bytes }
    }

    pub fn ours(&self) -> Tokenizer<'_> {
        Tokenizer::from_bytes(&self.bytes).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// Encodes and decodes `text` both ways.
    pub fn check(&self, ours: &Tokenizer<'_>, text: &str) {
        let ids =
            |special| self.library.encode_fast(text, special).expect("the library encodes any text").get_ids().to_vec();
        let name = &self.name;
        let want = ids(false);
        assert_eq!(ours.encode_with_special(text), want, "{name}: {text:?}");
        let with_special = ids(true);
        assert_eq!(ours.encode(text, true), with_special, "{name}: {text:?}");
        self.check_decode(ours, &with_special);
    }

    /// Decodes `ids` both ways, at once and as a stream.
    pub fn check_decode(&self, ours: &Tokenizer<'_>, ids: &[u32]) {
        for skip in [false, true] {
            let want = self.library.decode(ids, skip).expect("the library decodes any ids");
            let name = &self.name;
            assert_eq!(ours.decode(ids, skip), want, "{name}: {ids:?}");
            let mut stream = StreamDecoder::new(ours, skip);
            let mut streamed: String = ids.iter().map(|&id| stream.push(id)).collect();
            streamed.push_str(&stream.finish());
            assert_eq!(streamed, want, "{name}: streamed {ids:?}");
        }
    }

    /// `count` generated texts, and as many random lists of ids.
    pub fn check_generated(&self, count: usize, seed: u64) {
        let ours = self.ours();
        let mut rng = Rng::new(seed);
        for _ in 0..count {
            self.check(&ours, &text(&mut rng));
        }
        let vocab = ours.vocab_size() as usize;
        for _ in 0..count / 10 {
            let ids: Vec<u32> = (0..rng.below(12)).map(|_| rng.below(vocab + 2) as u32).collect();
            self.check_decode(&ours, &ids);
        }
    }
}
