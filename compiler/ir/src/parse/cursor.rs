//! A position in the text form: white space, comments, names and punctuation.

use crate::error::{Error, Result};
use crate::ops::Attr;
use crate::types::Type;

/// A reader of tokens. Every method first skips white space and comments.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    /// A position already passed and its line, from where the next line number is counted.
    mark: (usize, usize),
    /// Whether `;` starts a comment; between the brackets of a block's header it is punctuation.
    pub(super) semicolon_comments: bool,
}

/// True for the characters of names of parameters, blocks and values.
pub(crate) fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Cursor<'a> {
        Cursor { text, at: 0, mark: (0, 1), semicolon_comments: true }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip(&mut self) {
        loop {
            self.at = self.text.len() - self.rest().trim_start().len();
            let rest = self.rest();
            if !(rest.starts_with("//") || (self.semicolon_comments && rest.starts_with(';'))) {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    /// Number of the line where the next token stands.
    pub(super) fn line(&mut self) -> usize {
        self.skip();
        let (from, line) = if self.mark.0 <= self.at { self.mark } else { (0, 1) };
        self.mark = (self.at, line + self.text[from..self.at].matches('\n').count());
        self.mark.1
    }

    /// An error at the next token.
    pub(super) fn error(&mut self, message: impl Into<String>) -> Error {
        Error::Parse { line: self.line(), message: message.into() }
    }

    /// The error of finding something else than `what`.
    pub(super) fn expected(&mut self, what: &str) -> Error {
        self.skip();
        let word: String = self.rest().chars().take_while(|c| is_name_char(*c)).take(40).collect();
        let found = match self.rest().chars().next() {
            None => "the end of the text".into(),
            Some(c) if word.is_empty() => format!("`{c}`"),
            Some(_) => format!("`{word}`"),
        };
        self.error(format!("expected {what}, found {found}"))
    }

    pub(super) fn at_end(&mut self) -> bool {
        self.skip();
        self.rest().is_empty()
    }

    /// Takes `token` if it comes next.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        self.skip();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    pub(super) fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.expected(&format!("`{token}`"))) }
    }

    /// Takes `word` if it comes next as a whole name.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let start = self.at;
        if self.name(word).is_ok_and(|found| found == word) {
            return true;
        }
        self.at = start;
        false
    }

    /// Takes `key = ` if it comes next, then a number.
    pub(super) fn setting(&mut self, key: &str) -> Result<Option<u32>> {
        let start = self.at;
        if self.eat_word(key) && self.eat("=") {
            return self.number("a number").map(Some);
        }
        self.at = start;
        Ok(None)
    }

    /// A name: letters, digits, `_` and `.`.
    pub(super) fn name(&mut self, what: &str) -> Result<&'a str> {
        self.skip();
        let rest = self.rest();
        let len = rest.find(|c| !is_name_char(c)).unwrap_or(rest.len());
        if len == 0 {
            return Err(self.expected(what));
        }
        self.at += len;
        Ok(&rest[..len])
    }

    pub(super) fn number(&mut self, what: &str) -> Result<u32> {
        let start = self.at;
        let value = self.name(what)?.parse().ok();
        value.ok_or_else(|| {
            self.at = start;
            self.expected(what)
        })
    }

    /// The text up to the next `close`, which is taken too.
    pub(super) fn until(&mut self, close: char) -> Result<&'a str> {
        let rest = self.rest();
        let Some(len) = rest.find(close) else {
            return Err(self.error(format!("`{close}` is missing from here on")));
        };
        self.at += len + close.len_utf8();
        Ok(&rest[..len])
    }

    /// A type: `f32[T,256]` or `kv<f16,2,64>`.
    pub(super) fn ty(&mut self) -> Result<Type> {
        let line = self.line();
        let start = self.at;
        self.name("a type")?;
        let close = if self.eat("<") { '>' } else { ']' };
        self.until(close)?;
        let text: String = self.text[start..self.at].split_whitespace().collect();
        let message = || format!("expected a type such as f32[T,256] or kv<f16,2,64>, found {text}");
        Type::parse(&text).ok_or_else(|| Error::Parse { line, message: message() })
    }

    /// `item, item, ..` up to `close`, which is taken; a comma may stand at the end.
    pub(super) fn list<T>(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(item(self)?);
            if !self.eat(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(items)
    }
}
