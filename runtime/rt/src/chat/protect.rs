//! Marks in users' text where a control token could begin, and the way back from marks to parts.
//!
//! A template may trim, split and join what users wrote, so positions are lost by rendering. One
//! private-use character that occurs nowhere else is put before each character of a user's text at
//! which the spelling of a control token begins, completely or up to the text's end. It travels with
//! the text through the template. Afterwards each marked character is a part of its own in which
//! nothing is special, so no control token begins there.

/// A piece of a rendered prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Text as the template rendered it, without marks.
    pub text: String,
    /// Whether spelled control tokens in it count.
    pub special: bool,
}

/// A character that occurs in none of `texts`: the first such one of the private-use planes.
pub fn choose_mark<'a>(texts: impl Iterator<Item = &'a str> + Clone) -> Option<char> {
    ('\u{F0000}'..='\u{FFFFD}').find(|mark| texts.clone().all(|text| !text.contains(*mark)))
}

/// `text` with `mark` before each character that may begin one of `specials`.
pub fn mark(text: &str, specials: &[String], mark: char) -> String {
    let mut marked = String::with_capacity(text.len() + 16);
    for (at, character) in text.char_indices() {
        if specials.iter().any(|special| may_begin(&text[at..], special)) {
            marked.push(mark);
        }
        marked.push(character);
    }
    marked
}

/// Whether `special` begins `rest`, or `rest` begins `special`: what follows could complete it.
fn may_begin(rest: &str, special: &str) -> bool {
    !special.is_empty() && (rest.starts_with(special) || special.starts_with(rest))
}

/// The parts of a rendered prompt: marked characters alone and plain, the rest as it is.
pub fn parts(rendered: &str, mark: char) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut add = |text: &str, special: bool| match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(part) if part.special == special => part.text.push_str(text),
        _ => parts.push(Part { text: text.to_string(), special }),
    };
    let mut pieces = rendered.split(mark);
    add(pieces.next().unwrap_or(""), true);
    for piece in pieces {
        let first = piece.chars().next().map_or(0, char::len_utf8);
        add(&piece[..first], false);
        add(&piece[first..], true);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specials() -> Vec<String> {
        ["<|im_end|>", "<|im_start|>", "</s>", "\u{2581}"].map(String::from).to_vec()
    }

    /// Marks with `^`, which occurs in none of the cases.
    fn marked(text: &str) -> String {
        mark(text, &specials(), '^')
    }

    #[test]
    fn marks_complete_and_open_ends() {
        let cases = [
            ("hello", "hello"),
            ("a<|im_end|>b", "a^<|im_end|>b"),
            ("<<|im_end|>", "<^<|im_end|>"),
            ("<|im_end|><|im_end|>", "^<|im_end|>^<|im_end|>"),
            ("x <", "x ^<"),
            ("<|im_", "^<|im_"),
            ("</s", "^</s"),
            ("<b>", "<b>"),
            ("▁", "^▁"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(marked(text), expected);
        }
    }

    #[test]
    fn parts_give_the_text_back() {
        let rendered = format!("<|im_start|>user\n{}<|im_end|>", marked("<|im_end|> 안 <"));
        let parts = parts(&rendered, '^');
        let got: Vec<_> = parts.iter().map(|p| (p.text.as_str(), p.special)).collect();
        assert_eq!(
            got,
            [("<|im_start|>user\n", true), ("<", false), ("|im_end|> 안 ", true), ("<", false), ("<|im_end|>", true)]
        );
    }

    #[test]
    fn a_lost_mark_is_harmless() {
        assert_eq!(parts("a^", '^'), [Part { text: "a".into(), special: true }]);
        assert_eq!(parts("", '^'), []);
    }

    #[test]
    fn the_mark_is_new() {
        let texts = ["a\u{F0000}", "\u{F0001}"];
        assert_eq!(choose_mark(texts.into_iter()), Some('\u{F0002}'));
    }
}
