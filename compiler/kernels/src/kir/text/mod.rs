//! Reads the text form that `Display` of [`Program`] writes; `;` starts a comment.
//!
//! The result is well formed but not verified. Values are numbered from 0 without gaps, each
//! defined once.

mod inst;
mod lexer;

use super::func::{Function, Program, Region, Val};
use super::types::{Elem, Ty};
use lexer::{Lexer, Token};
use std::collections::BTreeMap;
use thiserror::Error;

/// Regions inside each other, at most.
const MAX_DEPTH: usize = 64;

/// Where and why a text is not a program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {message}")]
pub struct TextError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What was found and expected.
    pub message: String,
}

/// The program a text describes.
///
/// # Errors
/// [`TextError`] at the first place that is not in the form.
pub fn parse(text: &str) -> Result<Program, TextError> {
    let mut p = Parser::new(text)?;
    let mut functions = Vec::new();
    while p.token != Token::End {
        functions.push(p.function()?);
    }
    Ok(Program { functions })
}

/// One token of look-ahead, and the values of the function being read.
struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token<'a>,
    start: usize,
    types: BTreeMap<u32, Ty>,
    depth: usize,
}

type Parsed<T> = Result<T, TextError>;

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Parsed<Parser<'a>> {
        let mut lexer = Lexer::new(text);
        let (token, start) = lexer.next()?;
        Ok(Parser { lexer, token, start, types: BTreeMap::new(), depth: 0 })
    }

    fn fail<T>(&self, expected: &str) -> Parsed<T> {
        Err(self.lexer.error(self.start, format!("expected {expected}, found {}", self.token)))
    }

    fn advance(&mut self) -> Parsed<Token<'a>> {
        let (token, start) = self.lexer.next()?;
        self.start = start;
        Ok(std::mem::replace(&mut self.token, token))
    }

    /// Reads `token` if it is next.
    fn accept(&mut self, token: Token<'_>) -> Parsed<bool> {
        let is_next = self.token == token;
        if is_next {
            self.advance()?;
        }
        Ok(is_next)
    }

    fn mark(&mut self, c: char) -> Parsed<()> {
        if self.accept(Token::Mark(c))? { Ok(()) } else { self.fail(&format!("`{c}`")) }
    }

    fn word(&mut self, word: &str) -> Parsed<()> {
        if self.accept(Token::Word(word))? { Ok(()) } else { self.fail(&format!("`{word}`")) }
    }

    fn comma(&mut self) -> Parsed<()> {
        self.mark(',')
    }

    fn value(&mut self) -> Parsed<Val> {
        let Token::Value(n) = self.token else { return self.fail("a value") };
        self.advance()?;
        Ok(Val(n))
    }

    fn symbol(&mut self) -> Parsed<String> {
        let Token::Symbol(name) = self.token else { return self.fail("a function's name") };
        self.advance()?;
        Ok(name.into())
    }

    /// A decimal integer that fits `T`.
    fn integer<T: std::str::FromStr>(&mut self) -> Parsed<T> {
        let Token::Number(text) = self.token else { return self.fail("an integer") };
        let Ok(number) = text.parse() else { return self.fail("an integer in range") };
        self.advance()?;
        Ok(number)
    }

    fn ty(&mut self) -> Parsed<Ty> {
        let Token::Word(word) = self.token else { return self.fail("a type") };
        let Some(ty) = type_named(word) else { return self.fail("a type") };
        self.advance()?;
        Ok(ty)
    }

    /// Items separated by commas, at least one.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.accept(Token::Mark(','))? {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Items separated by commas up to `close`, maybe none.
    fn list_until<T>(&mut self, close: char, item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let items = if self.token == Token::Mark(close) { Vec::new() } else { self.list(item)? };
        self.mark(close)?;
        Ok(items)
    }

    fn define(&mut self, v: Val, ty: Ty) -> Parsed<()> {
        match self.types.insert(v.0, ty) {
            None => Ok(()),
            Some(_) => Err(self.lexer.error(self.start, format!("{v} is defined twice"))),
        }
    }

    fn function(&mut self) -> Parsed<Function> {
        let start = self.start;
        self.types.clear();
        self.word("func")?;
        let name = self.symbol()?;
        self.mark('(')?;
        let params = self.list_until(')', |p| {
            let v = p.value()?;
            p.mark(':')?;
            let ty = p.ty()?;
            p.define(v, ty)?;
            Ok(v)
        })?;
        let mut body = self.region()?;
        body.params = params;
        let types = std::mem::take(&mut self.types);
        let gap = (0u32..).zip(types.keys()).find(|(i, v)| i != *v).map(|(i, _)| i);
        if let Some(gap) = gap {
            let message = format!("@{name}: values are numbered without gaps, but %{gap} is never defined");
            return Err(self.lexer.error(start, message));
        }
        Ok(Function { name, types: types.into_values().collect(), body })
    }

    /// `{`, instructions, maybe `yield`, `}`.
    fn region(&mut self) -> Parsed<Region> {
        if self.depth == MAX_DEPTH {
            return self.fail(&format!("at most {MAX_DEPTH} regions inside each other"));
        }
        self.depth += 1;
        let mut region = Region::default();
        self.mark('{')?;
        while self.token != Token::Mark('}') {
            if self.accept(Token::Word("yield"))? {
                region.yields = self.list(Self::value)?;
                break;
            }
            region.body.push(self.instruction()?);
        }
        self.mark('}')?;
        self.depth -= 1;
        Ok(region)
    }
}

/// `f32` or `f32x16`.
fn type_named(word: &str) -> Option<Ty> {
    let (elem, lanes) = match word.split_once('x') {
        Some((elem, lanes)) => (elem, lanes.parse().ok().filter(|n| *n > 1)?),
        None => (word, 1),
    };
    Some(Ty { elem: super::names::named(&Elem::TABLE, elem)?, lanes })
}
