//! Control tokens come from templates only; half characters are never printed.

use llmc_rt::tokenizer::{Piece, StreamDecoder, Tokenizer};

use crate::generate::{Rng, text};
use crate::oracle::{Both, tinywiki};

fn has_special(ours: &Tokenizer<'_>, ids: &[u32]) -> bool {
    ids.iter().any(|&id| ours.is_special(id))
}

#[test]
fn user_text_never_becomes_a_control_token() {
    let mut both = Both::new("tinywiki", &tinywiki());
    both.library.set_encode_special_tokens(true);
    let ours = both.ours();
    let mut rng = Rng::new(7);
    let mut spelled = 0;
    for _ in 0..20_000 {
        let user = text(&mut rng);
        let ids = ours.encode_plain(&user);
        assert!(!has_special(&ours, &ids), "{user:?}");
        assert_eq!(ids, both.library.encode_fast(user.as_str(), false).expect("any text").get_ids(), "{user:?}");
        assert_eq!(ids, ours.encode_mixed(&[Piece::Text(&user)]));
        spelled += usize::from(has_special(&ours, &ours.encode(&user, false)));
    }
    assert!(spelled > 1000, "the texts spell control tokens: {spelled}");
}

#[test]
fn a_template_keeps_its_tokens_around_hostile_text() {
    let both = Both::new("tinywiki", &tinywiki());
    let ours = both.ours();
    let mut rng = Rng::new(8);
    for _ in 0..5_000 {
        let user = text(&mut rng);
        let pieces = [
            Piece::Special("<|im_start|>user\n"),
            Piece::Text(&user),
            Piece::Special("<|im_end|>\n<|im_start|>assistant\n"),
        ];
        let ids = ours.encode_mixed(&pieces);
        let special: Vec<u32> = ids.iter().copied().filter(|&id| ours.is_special(id)).collect();
        assert_eq!(special, [8190, 8191, 8190], "{user:?}");
        if !user.contains("<|") && !user.contains("|>") {
            let whole = format!("<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n");
            assert_eq!(ids, ours.encode_with_special(&whole), "{user:?}");
        }
    }
}

#[test]
fn tokens_across_a_border_are_not_special() {
    let both = Both::new("tinywiki", &tinywiki());
    let ours = both.ours();
    let cases: [&[Piece<'_>]; 4] = [
        &[Piece::Text("<|im"), Piece::Special("_end|>")],
        &[Piece::Special("<|im"), Piece::Text("_end|>")],
        &[Piece::Text("<|im_"), Piece::Text("end|>")],
        &[Piece::Special(""), Piece::Text("<|im_end|>"), Piece::Special("")],
    ];
    for case in cases {
        assert!(!has_special(&ours, &ours.encode_mixed(case)), "{case:?}");
    }
    assert_eq!(ours.encode_mixed(&[Piece::Special("<|im_"), Piece::Special("end|>")]), [8191]);
}

#[test]
fn streaming_gives_whole_characters() {
    let both = Both::new("tinywiki", &tinywiki());
    let ours = both.ours();
    for text in ["안녕하세요, 뷁쉟 반갑습니다", "👩‍👩‍👧‍👦 😀🫠 ok", "mixed 한😀글 é"]
    {
        let mut stream = StreamDecoder::new(&ours, true);
        let parts: Vec<String> = ours.encode_plain(text).into_iter().map(|id| stream.push(id)).collect();
        assert!(parts.iter().any(String::is_empty), "some character takes several tokens: {text}");
        assert!(parts.iter().all(|p| !p.contains('\u{FFFD}')), "{parts:?}");
        assert_eq!(parts.concat(), text);
        assert_eq!(stream.finish(), "");
    }
}

#[test]
fn a_broken_end_is_one_replacement() {
    let both = Both::new("tinywiki", &tinywiki());
    let ours = both.ours();
    let mut stream = StreamDecoder::new(&ours, true);
    let ids: Vec<u32> = "😀".as_bytes()[..3]
        .iter()
        .map(|&b| {
            (0..ours.vocab_size())
                .find(|&id| ours.id_to_bytes(id).as_deref() == Some(&[b]))
                .expect("every byte has a token")
        })
        .collect();
    assert!(ids.iter().all(|&id| stream.push(id).is_empty()));
    assert_eq!(stream.finish(), "\u{FFFD}");
    assert_eq!(both.library.decode(&ids, true).expect("any ids"), "\u{FFFD}");
}
