//! Attribute types of ops and their text form.

use crate::quant::Scheme;
use crate::types::{DType, Dim, KvType, Sym, TensorType, Type};
use std::fmt;

/// A finite f32 attribute with the total order and equality that op payloads need (by bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Real(u32);

impl Real {
    /// The attribute holding `v`.
    pub fn new(v: f32) -> Real {
        Real(v.to_bits())
    }

    /// The value.
    pub fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl fmt::Debug for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.get())
    }
}

/// Something that can stand between the braces of an op: `rms_norm{eps=1e-5}`.
///
/// `parse(print(a)) == Some(a)` for every value; the text holds no comma outside brackets.
pub trait Attr: Sized {
    /// Text form.
    fn print(&self) -> String;
    /// Value of a text form.
    fn parse(text: &str) -> Option<Self>;
}

impl Attr for Real {
    fn print(&self) -> String {
        format!("{:?}", self.get())
    }
    fn parse(text: &str) -> Option<Real> {
        text.parse().ok().map(Real::new)
    }
}

impl Attr for usize {
    fn print(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Option<usize> {
        text.parse().ok()
    }
}

impl Attr for u32 {
    fn print(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Option<u32> {
        text.parse().ok()
    }
}

impl Attr for bool {
    fn print(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Option<bool> {
        text.parse().ok()
    }
}

impl Attr for Scheme {
    fn print(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Option<Scheme> {
        Scheme::from_name(text)
    }
}

impl Attr for DType {
    fn print(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Option<DType> {
        DType::from_name(text)
    }
}

impl<A: Attr> Attr for Option<A> {
    fn print(&self) -> String {
        self.as_ref().map_or("none".into(), Attr::print)
    }
    fn parse(text: &str) -> Option<Option<A>> {
        if text == "none" { Some(None) } else { A::parse(text).map(Some) }
    }
}

impl<A: Attr> Attr for Vec<A> {
    fn print(&self) -> String {
        format!("[{}]", self.iter().map(Attr::print).collect::<Vec<_>>().join(","))
    }
    fn parse(text: &str) -> Option<Vec<A>> {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        split_top(inner).map(|part| A::parse(part)).collect()
    }
}

impl Attr for Dim {
    fn print(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Option<Dim> {
        match text {
            "T" => Some(Dim::Sym(Sym::Tokens)),
            "R" => Some(Dim::Sym(Sym::Rows)),
            n => n.parse().ok().map(Dim::Const),
        }
    }
}

impl Attr for TensorType {
    fn print(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Option<TensorType> {
        let open = text.find('[')?;
        Some(TensorType { dtype: DType::from_name(&text[..open])?, shape: Attr::parse(&text[open..])? })
    }
}

impl Attr for Type {
    fn print(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Option<Type> {
        let Some(inner) = text.strip_prefix("kv<").and_then(|t| t.strip_suffix('>')) else {
            return TensorType::parse(text).map(Type::Tensor);
        };
        let mut parts = inner.split(',');
        let kv = KvType {
            dtype: DType::from_name(parts.next()?)?,
            heads: parts.next()?.parse().ok()?,
            head_dim: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(Type::Kv(kv))
    }
}

/// Splits at commas that stand outside every kind of bracket. An empty text has no parts.
pub fn split_top(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0i32;
    let mut start = 0;
    let mut parts = Vec::new();
    for (i, c) in text.char_indices() {
        match c {
            '[' | '(' | '{' | '<' => depth += 1,
            ']' | ')' | '}' | '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if !text[start..].is_empty() {
        parts.push(&text[start..]);
    }
    parts.into_iter()
}
