//! Tokens of the text form.

use super::TextError;
use std::fmt;

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `%7`.
    Value(u32),
    /// `@name`.
    Symbol(&'a str),
    /// A letter and then letters, digits, `_` and `.`.
    Word(&'a str),
    /// A digit, or `-` and a digit, and what belongs to a number.
    Number(&'a str),
    /// One of `( ) { } [ ] , : = + -`.
    Mark(char),
    /// `->`.
    Arrow,
    /// Behind the last one.
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Value(n) => write!(f, "`%{n}`"),
            Token::Symbol(s) => write!(f, "`@{s}`"),
            Token::Word(s) | Token::Number(s) => write!(f, "`{s}`"),
            Token::Mark(c) => write!(f, "`{c}`"),
            Token::Arrow => f.write_str("`->`"),
            Token::End => f.write_str("the end of the text"),
        }
    }
}

/// Reads tokens one by one.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, at: 0 }
    }

    /// An error at byte `at` of the text.
    pub fn error(&self, at: usize, message: impl Into<String>) -> TextError {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        TextError { line, column, message: message.into() }
    }

    /// The next token and the byte at which it starts.
    pub fn next(&mut self) -> Result<(Token<'a>, usize), TextError> {
        self.skip_blanks();
        let start = self.at;
        let rest = &self.text[start..];
        let mut chars = rest.chars();
        let (Some(first), second) = (chars.next(), chars.next().unwrap_or(' ')) else {
            return Ok((Token::End, start));
        };
        let token = match first {
            '%' => {
                self.at += 1;
                let digits = self.take(|c| c.is_ascii_digit());
                let n = digits.parse().map_err(|_| self.error(start, "expected the number of a value after `%`"))?;
                Token::Value(n)
            }
            '@' => {
                self.at += 1;
                Token::Symbol(self.take(|c| c.is_ascii_alphanumeric() || c == '_'))
            }
            '-' if second == '>' => {
                self.at += 2;
                Token::Arrow
            }
            '0'..='9' => Token::Number(self.number()),
            '-' if second.is_ascii_digit() => Token::Number(self.number()),
            'a'..='z' | 'A'..='Z' => Token::Word(self.take(|c| c.is_ascii_alphanumeric() || "_.".contains(c))),
            c if "(){}[],:=+-".contains(c) => {
                self.at += 1;
                Token::Mark(c)
            }
            c => return Err(self.error(start, format!("unexpected character {c:?}"))),
        };
        Ok((token, start))
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take(char::is_whitespace);
            if !self.text[self.at..].starts_with(';') {
                return;
            }
            self.take(|c| c != '\n');
        }
    }

    fn take(&mut self, mut accept: impl FnMut(char) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let taken = &rest[..rest.find(|c| !accept(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    /// Digits, letters and points; a sign at the start and after the exponent's `e`.
    fn number(&mut self) -> &'a str {
        let hex = self.text[self.at..].starts_with("0x");
        let mut last = 'e';
        self.take(|c| {
            let sign = "+-".contains(c) && last == 'e' && !hex;
            let accept = c.is_ascii_alphanumeric() || c == '.' || sign;
            last = c;
            accept
        })
    }
}
