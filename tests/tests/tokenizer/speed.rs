//! Full-size vocabularies: quick to compile and to open; long words are not quadratic.

use std::time::{Duration, Instant};

use llmc_models::tokenizer::{compile, synthetic};
use llmc_rt::tokenizer::Tokenizer;

use crate::oracle::{Both, tinywiki};

const VOCAB: usize = 128_256;

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    let took = start.elapsed();
    println!("{what}: {took:?}");
    (result, took)
}

#[test]
fn a_full_size_vocabulary() {
    let (json, _) = timed("synthetic", || synthetic(VOCAB));
    assert_eq!(json, synthetic(VOCAB));
    let (bytes, compiling) = timed("compile", || compile(json.as_bytes()).expect("it is sound"));
    println!("{} bytes of JSON, {} compiled", json.len(), bytes.len());
    let opening = (0..10).map(|_| timed("from_bytes", || Tokenizer::from_bytes(&bytes).map(drop)).1).min();
    assert!(opening < Some(Duration::from_millis(1)));
    assert!(compiling < Duration::from_secs(8), "{compiling:?} on a machine that is not busy is about 1 s");
    let ours = Tokenizer::from_bytes(&bytes).expect("it is sound");
    assert_eq!(ours.vocab_size() as usize, VOCAB);
    assert_eq!((0..ours.vocab_size()).filter(|&id| ours.is_special(id)).count(), 256);
}

#[test]
fn synthetic_equals_the_library() {
    for size in [0, 1000, 20_000] {
        let both = Both::new("synthetic", &synthetic(size));
        assert_eq!(both.ours().vocab_size() as usize, size.max(512));
        both.check_generated(1000, 5);
    }
}

#[test]
fn throughput() {
    let bytes = compile(tinywiki().as_bytes()).expect("it is sound");
    let ours = Tokenizer::from_bytes(&bytes).expect("it is sound");
    let text = include_str!("../../models/tinywiki/reference/test_books.txt");
    let korean = include_str!("../../models/tinywiki/reference/test_ko.txt");
    for (name, text) in [("English", text), ("Korean", korean)] {
        let text = text.repeat(1 + (4 << 20) / text.len());
        let (ids, took) = timed(name, || ours.encode_plain(&text));
        let rate = text.len() as f64 / took.as_secs_f64() / 1e6;
        println!("{name}: {rate:.1} MB/s, {} tokens", ids.len());
        let (back, _) = timed("decode", || ours.decode(&ids, false));
        assert_eq!(back, text);
        assert!(rate > 1.0, "{rate} MB/s");
    }
}

#[test]
fn a_megabyte_without_spaces() {
    let both = Both::new("tinywiki", &tinywiki());
    let ours = both.ours();
    for piece in ["a", "가나다", "the", "=-", " ", "\n", "0", "한글abc", "\u{301}", "😀"] {
        let text = piece.repeat((1 << 20) / piece.len());
        let (ids, took) = timed(piece, || ours.encode_plain(&text));
        assert_eq!(ours.decode(&ids, false).len(), text.len());
        assert!(took < Duration::from_secs(5), "{piece:?} takes {took:?}");
        let short = piece.repeat(3000 / piece.len());
        both.check(&ours, &short);
    }
}
