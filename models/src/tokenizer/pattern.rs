//! Regular expressions in Oniguruma's syntax, read with regex-syntax where the two agree.
//!
//! The `tokenizers` library matches with Oniguruma (Ruby syntax). What means something else in
//! regex-syntax is refused by name. Look-ahead is taken in the form that tokenizers use: one
//! character at the end of an alternative, as in `\s+(?!\S)`. Trying an alternative's matches in order
//! until one is followed by such a character is the same as matching the alternative with that
//! character appended and then leaving the character out.

use regex_syntax::ast::{self, Ast};
use regex_syntax::hir::{self, Hir, HirKind};

use super::TokenizerError;
use super::alphabet::CharSet;

/// One top-level alternative; earlier ones are preferred.
pub struct Alternative {
    /// What it matches, without the look-ahead.
    pub hir: Hir,
    /// What must follow.
    pub follow: Option<Follow>,
}

/// A condition on the next character.
pub struct Follow {
    /// Characters that may follow.
    pub chars: CharSet,
    /// Whether the text may end.
    pub end: bool,
}

/// The alternatives of `pattern`, none of which matches the empty text.
pub fn parse(pattern: &str) -> Result<Vec<Alternative>, TokenizerError> {
    let refuse = |reason: String| TokenizerError::Pattern { pattern: pattern.to_owned(), reason };
    let text = with_word_class(pattern);
    let alternatives = split_alternatives(&text).map_err(refuse)?;
    alternatives.into_iter().map(|a| parse_alternative(a).map_err(refuse)).collect()
}

/// The alternatives of a pattern that the library gives to the regex crate, not to Oniguruma.
pub fn parse_rust(pattern: &str) -> Result<Vec<Alternative>, TokenizerError> {
    let refuse = |reason: String| TokenizerError::Pattern { pattern: pattern.to_owned(), reason };
    pattern.split('|').map(|a| parse_alternative(a).map_err(refuse)).collect()
}

/// Oniguruma's `\w` is not regex-syntax's: it lacks the join controls, and outside of classes it
/// has the superscripts and fractions of Latin 1.
fn with_word_class(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut depth = 0usize;
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        match (c, escaped) {
            ('[', _) => depth += 1,
            (']', _) => depth = depth.saturating_sub(1),
            _ => {}
        }
        let latin1 = if depth == 0 { "²³¹¼½¾" } else { "" };
        match escaped {
            Some('w') => out.extend(["[", WORD, latin1, "]"]),
            Some('W') => out.extend(["[^", WORD, latin1, "]"]),
            _ => out.extend([Some(c), escaped].into_iter().flatten()),
        }
    }
    out
}

const WORD: &str = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}";

/// Names that POSIX gives another meaning in Oniguruma.
const POSIX_NAMES: [&str; 13] = [
    "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word", "xdigit",
];

fn check_name(class: &ast::ClassUnicode) -> Result<(), String> {
    match &class.kind {
        ast::ClassUnicodeKind::NamedValue { .. } => {
            Err("properties with values (`\\p{name=value}`) are not supported".into())
        }
        ast::ClassUnicodeKind::Named(name) if POSIX_NAMES.contains(&name.to_ascii_lowercase().as_str()) => {
            Err(format!("`\\p{{{name}}}` is not supported; use a general category like \\p{{P}}"))
        }
        _ => Ok(()),
    }
}

/// The one alternative that matches `text` itself.
pub fn literal(text: &str) -> Result<Vec<Alternative>, TokenizerError> {
    if text.is_empty() {
        return Err(TokenizerError::Pattern {
            pattern: String::new(),
            reason: "an empty text matches everywhere".into(),
        });
    }
    Ok(vec![Alternative { hir: Hir::literal(text.as_bytes()), follow: None }])
}

/// The one alternative that matches a character of `set`.
pub fn one_of(set: &CharSet) -> Vec<Alternative> {
    let ranges =
        set.iter().filter_map(|&(a, b)| Some(hir::ClassUnicodeRange::new(char::from_u32(a)?, char::from_u32(b)?)));
    let class = hir::Class::Unicode(hir::ClassUnicode::new(ranges));
    vec![Alternative { hir: Hir::class(class), follow: None }]
}

fn parse_alternative(text: &str) -> Result<Alternative, String> {
    let (body, look) = split_look_ahead(text)?;
    let hir = parse_hir(body)?;
    if hir.properties().minimum_len() == Some(0) {
        return Err(format!("`{text}` can match the empty text"));
    }
    let follow = look.map(|(negative, inner)| parse_follow(negative, inner)).transpose()?;
    Ok(Alternative { hir, follow })
}

fn parse_follow(negative: bool, inner: &str) -> Result<Follow, String> {
    let refuse = || format!("look-ahead for `{inner}`: only that of a single character is supported");
    let hir = parse_hir(inner)?;
    let mut class = match hir.kind() {
        HirKind::Class(hir::Class::Unicode(class)) => class.clone(),
        HirKind::Literal(hir::Literal(bytes)) => {
            let mut chars = std::str::from_utf8(bytes).map_err(|_| refuse())?.chars();
            let (Some(c), None) = (chars.next(), chars.next()) else { return Err(refuse()) };
            hir::ClassUnicode::new([hir::ClassUnicodeRange::new(c, c)])
        }
        _ => return Err(refuse()),
    };
    if negative {
        class.negate();
    }
    Ok(Follow { chars: ranges_of(&class), end: negative })
}

/// The ranges of a class.
pub fn ranges_of(class: &hir::ClassUnicode) -> CharSet {
    class.ranges().iter().map(|r| (r.start() as u32, r.end() as u32)).collect()
}

fn parse_hir(text: &str) -> Result<Hir, String> {
    let ast = ast::parse::ParserBuilder::new()
        .nest_limit(64)
        .build()
        .parse(text)
        .map_err(|e| format!("`{text}`: {}", e.kind()))?;
    ast::visit(&ast, Check { folds: folds_case(text) })?;
    let translated = hir::translate::TranslatorBuilder::new().build().translate(text, &ast);
    translated.map_err(|e| format!("`{text}`: {}", e.kind()))
}

fn folds_case(text: &str) -> bool {
    text.contains("(?i")
}

/// Refuses what Oniguruma reads differently.
struct Check {
    folds: bool,
}

impl ast::Visitor for Check {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        match ast {
            Ast::Flags(_) => Err("flags that reach to the end of a group are not supported; write (?i:..)".into()),
            Ast::Assertion(_) => Err("anchors and word boundaries are not supported".into()),
            Ast::Group(group) => check_group(group),
            Ast::Repetition(repetition) => check_repetition(repetition),
            Ast::ClassUnicode(class) => check_name(class),
            Ast::Concat(concat) if self.folds => check_folding(&concat.asts),
            _ => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ast::ClassSetItem) -> Result<(), String> {
        match item {
            ast::ClassSetItem::Unicode(class) => check_name(class),
            ast::ClassSetItem::Ascii(_) => Err("POSIX classes like [:alpha:] are not supported; use \\p{..}".into()),
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, op: &ast::ClassSetBinaryOp) -> Result<(), String> {
        match op.kind {
            ast::ClassSetBinaryOpKind::Intersection => Ok(()),
            _ => Err("`--` and `~~` in a class are not supported".into()),
        }
    }
}

fn check_group(group: &ast::Group) -> Result<(), String> {
    let Some(flags) = group.flags() else { return Ok(()) };
    let only_i = flags.items.iter().all(|f| matches!(f.kind, ast::FlagsItemKind::Flag(ast::Flag::CaseInsensitive)));
    if only_i { Ok(()) } else { Err("no group flag but i is supported".into()) }
}

fn check_repetition(repetition: &ast::Repetition) -> Result<(), String> {
    use ast::{RepetitionKind::*, RepetitionRange::Exactly};
    let inner_is_repeated = |simple: bool| match &*repetition.ast {
        Ast::Repetition(inner) => !simple || !matches!(inner.op.kind, Range(_)),
        _ => false,
    };
    if matches!(repetition.op.kind, OneOrMore) && inner_is_repeated(true) {
        return Err("possessive quantifiers (`?+`, `*+`, `++`) are not supported".into());
    }
    if matches!(repetition.op.kind, Range(Exactly(_))) && !repetition.greedy {
        return Err("`{n}?` is not supported".into());
    }
    Ok(())
}

/// Oniguruma folds one character with two or three (`ss` with `ß`); regex-syntax does not.
fn check_folding(asts: &[Ast]) -> Result<(), String> {
    let letters: Vec<Option<char>> = asts
        .iter()
        .map(|a| match a {
            Ast::Literal(l) => Some(l.c.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    for pair in letters.windows(2) {
        if let [Some(a), Some(b)] = pair {
            let folds = matches!((a, b), ('s', 's' | 't') | ('f', 'f' | 'i' | 'l'));
            if folds || (!a.is_ascii() || !b.is_ascii()) {
                return Err(format!("`{a}{b}` where case is ignored is not supported"));
            }
        }
    }
    Ok(())
}

/// Cuts at `|` outside groups and classes, having removed groups around the whole.
fn split_alternatives(pattern: &str) -> Result<Vec<&str>, String> {
    let scan = Scan::new(pattern)?;
    if scan.bars.is_empty()
        && let [(0, end)] = scan.groups[..]
        && end == pattern.len()
    {
        if let Some(inner) = pattern.strip_prefix("(?:") {
            return split_alternatives(&inner[..inner.len() - 1]);
        }
        if !pattern.starts_with("(?") {
            return split_alternatives(&pattern[1..pattern.len() - 1]);
        }
    }
    let mut parts = Vec::new();
    let mut start = 0;
    for bar in scan.bars {
        parts.push(&pattern[start..bar]);
        start = bar + 1;
    }
    parts.push(&pattern[start..]);
    Ok(parts)
}

/// An alternative without the look-ahead at its end, and that (negative, inner).
type Looked<'a> = (&'a str, Option<(bool, &'a str)>);

fn split_look_ahead(text: &str) -> Result<Looked<'_>, String> {
    let scan = Scan::new(text)?;
    let Some(&(start, end)) = scan.groups.last().filter(|(_, end)| *end == text.len()) else {
        return Ok((text, None));
    };
    let inner = |len: usize| &text[start + len..end - 1];
    Ok(match &text[start..] {
        group if group.starts_with("(?!") => (&text[..start], Some((true, inner(3)))),
        group if group.starts_with("(?=") => (&text[..start], Some((false, inner(3)))),
        _ => (text, None),
    })
}

/// Where groups and bars of the outermost level are.
struct Scan {
    bars: Vec<usize>,
    /// Start and end of each group.
    groups: Vec<(usize, usize)>,
}

impl Scan {
    fn new(text: &str) -> Result<Self, String> {
        let mut scan = Scan { bars: Vec::new(), groups: Vec::new() };
        let (mut depth, mut class, mut open) = (0usize, 0usize, 0);
        let mut chars = text.char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => drop(chars.next()),
                '[' => class += 1,
                ']' if class > 0 => class -= 1,
                _ if class > 0 => {}
                '(' => {
                    if depth == 0 {
                        open = i;
                    }
                    depth += 1;
                }
                ')' => {
                    depth = depth.checked_sub(1).ok_or("unopened group")?;
                    if depth == 0 {
                        scan.groups.push((open, i + 1));
                    }
                }
                '|' if depth == 0 => scan.bars.push(i),
                _ => {}
            }
        }
        if depth > 0 { Err("unclosed group".into()) } else { Ok(scan) }
    }
}
