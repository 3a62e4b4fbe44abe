//! What the ops' files share: operand checks with one wording, arithmetic, and cost terms.

use super::{Cost, Op, Sizes};
use crate::error::{Error, Result};
use crate::interp::{KvCache, RtValue};
use crate::tensor::{Data, Tensor};
use crate::types::{DType, Dim, KvType, Sym, TensorType, Type};
use std::fmt::Display;

/// Operand types of one op, with the names that error messages use.
pub(crate) struct Args<'a> {
    op: &'static str,
    names: &'a [&'static str],
    types: &'a [&'a Type],
}

impl<'a> Args<'a> {
    /// Checks the number of operands: one for each name.
    pub(crate) fn new(op: &Op, types: &'a [&'a Type], names: &'a [&'static str]) -> Result<Args<'a>> {
        if types.len() != names.len() {
            let list = if names.is_empty() { "none".into() } else { format!("{}: {}", names.len(), names.join(", ")) };
            return Err(bad(op, format!("{} operands given, expected {list}", types.len())));
        }
        Ok(Args { op: op.name(), names, types })
    }

    /// The error for operand `i` not being what `expected` says.
    pub(crate) fn wrong(&self, i: usize, expected: impl Display) -> Error {
        let message = format!("operand {i} ({}) is {}, expected {expected}", self.names[i], self.types[i]);
        Error::Op { op: self.op, message }
    }

    fn require(
        &self,
        i: usize,
        expected: impl Display,
        holds: impl FnOnce(&TensorType) -> bool,
    ) -> Result<&'a TensorType> {
        match self.types[i] {
            Type::Tensor(t) if holds(t) => Ok(t),
            _ => Err(self.wrong(i, expected)),
        }
    }

    /// Operand `i` as an f32 tensor of any rank.
    pub(crate) fn f32(&self, i: usize) -> Result<&'a TensorType> {
        self.require(i, "an f32 tensor", |t| t.dtype == DType::F32)
    }

    /// Operand `i` as an f32 tensor `[.., d]`, and its constant innermost dimension `d > 0`.
    pub(crate) fn rows(&self, i: usize) -> Result<(&'a TensorType, usize)> {
        let expected = "f32[..,d] with a constant d above 0";
        let t = self.require(i, expected, |t| t.dtype == DType::F32 && t.last().is_some_and(|d| d > 0))?;
        Ok((t, t.last().unwrap_or(0)))
    }

    /// Operand `i` as `f32[n, d]` with a constant `d`.
    pub(crate) fn matrix(&self, i: usize) -> Result<(Dim, usize)> {
        let shape = |t: &TensorType| match t.shape.as_slice() {
            [n, Dim::Const(d)] if t.dtype == DType::F32 => Some((*n, *d)),
            _ => None,
        };
        let t = self.require(i, "f32[n,d] with a constant d", |t| shape(t).is_some())?;
        shape(t).ok_or_else(|| self.wrong(i, "f32[n,d]"))
    }

    /// Operand `i` as the rows of a product: `f32[n, d]`, `bf16[n, d]` or `i8[n, d]` with a constant `d`.
    pub(crate) fn product_rows(&self, i: usize) -> Result<(Dim, usize)> {
        let expected = "[n,d] of f32, bf16 or i8 with a constant d";
        let shape = |t: &TensorType| match t.shape.as_slice() {
            [n, Dim::Const(d)] if matches!(t.dtype, DType::F32 | DType::Bf16 | DType::I8) => Some((*n, *d)),
            _ => None,
        };
        let t = self.require(i, expected, |t| shape(t).is_some())?;
        shape(t).ok_or_else(|| self.wrong(i, expected))
    }

    /// Operand `i` as `f32[n, heads, head_dim]`.
    pub(crate) fn heads(&self, i: usize) -> Result<(Dim, usize, usize)> {
        let shape = |t: &TensorType| match t.shape.as_slice() {
            [n, Dim::Const(h), Dim::Const(d)] if t.dtype == DType::F32 && *h > 0 && *d > 0 => Some((*n, *h, *d)),
            _ => None,
        };
        let t = self.require(i, "f32[n,heads,head_dim]", |t| shape(t).is_some())?;
        shape(t).ok_or_else(|| self.wrong(i, "f32[n,heads,head_dim]"))
    }

    /// Operand `i` as a floating-point tensor with constant dimensions, at least one.
    pub(crate) fn weight(&self, i: usize) -> Result<&'a TensorType> {
        let expected = "a floating-point tensor with constant dimensions";
        self.require(i, expected, |t| t.dtype.is_float() && !t.shape.is_empty() && t.elements().is_some())
    }

    /// Operand `i` as a floating-point weight `[N, K]`.
    pub(crate) fn weight2(&self, i: usize) -> Result<(DType, usize, usize)> {
        let t = self.weight(i)?;
        match t.shape.as_slice() {
            [Dim::Const(n), Dim::Const(k)] => Ok((t.dtype, *n, *k)),
            _ => Err(self.wrong(i, "a floating-point weight of two dimensions")),
        }
    }

    /// Operand `i` as a floating-point vector of `len` elements.
    pub(crate) fn vector(&self, i: usize, len: usize) -> Result<()> {
        let expected = format!("a floating-point vector [{len}]");
        self.require(i, expected, |t| t.dtype.is_float() && t.shape == [Dim::Const(len)]).map(|_| ())
    }

    /// Operand `i` as a floating-point tensor of at least one dimension.
    pub(crate) fn float(&self, i: usize) -> Result<&'a TensorType> {
        let expected = "a floating-point tensor of at least one dimension";
        self.require(i, expected, |t| t.dtype.is_float() && !t.shape.is_empty())
    }

    /// Operand `i` as exactly this tensor type.
    pub(crate) fn exactly(&self, i: usize, ty: &TensorType) -> Result<()> {
        self.require(i, ty, |t| t == ty).map(|_| ())
    }

    /// Operand `i` as `i32[n]`; the dimension.
    pub(crate) fn index(&self, i: usize) -> Result<Dim> {
        let t = self.require(i, "i32[n]", |t| t.dtype == DType::I32 && t.shape.len() == 1)?;
        Ok(t.shape[0])
    }

    /// Operand `i` as a KV cache of at least one element per position.
    pub(crate) fn kv(&self, i: usize) -> Result<KvType> {
        match self.types[i] {
            Type::Kv(kv) if kv.dtype.is_float() && kv.heads > 0 && kv.head_dim > 0 => Ok(*kv),
            _ => Err(self.wrong(i, "a floating-point KV cache")),
        }
    }
}

/// An error of `op` about its attributes.
pub(crate) fn bad(op: &Op, message: impl Into<String>) -> Error {
    Error::Op { op: op.name(), message: message.into() }
}

/// Checks `start..start + len` against a dimension of `size` elements.
pub(crate) fn check_range(op: &Op, start: usize, len: usize, size: usize) -> Result<()> {
    match start.checked_add(len) {
        Some(end) if len > 0 && end <= size => Ok(()),
        _ => Err(bad(op, format!("start={start}, len={len} is not a range of {size} elements"))),
    }
}

/// Operand `i` as f32 elements.
pub(crate) fn floats<'a>(operands: &[&'a RtValue], i: usize) -> Result<&'a [f32]> {
    super::tensor(operands, i)?.as_f32()
}

/// Operand `i` as i32 elements.
pub(crate) fn ints<'a>(operands: &[&'a RtValue], i: usize) -> Result<&'a [i32]> {
    super::tensor(operands, i)?.as_i32()
}

/// Operand `i` as a KV cache.
pub(crate) fn cache<'a>(operands: &[&'a RtValue], i: usize) -> Result<&'a KvCache> {
    match operands.get(i) {
        Some(RtValue::Kv(kv)) => Ok(kv),
        _ => Err(Error::Interp(format!("operand {i} is not a KV cache"))),
    }
}

/// The single floating-point result of an op.
pub(crate) fn result(shape: &[usize], data: Vec<f32>) -> Result<Vec<RtValue>> {
    Ok(vec![RtValue::Tensor(Tensor { shape: shape.to_vec(), data: Data::F32(data) })])
}

/// Applies `f` to every element of operand 0.
pub(crate) fn map(operands: &[&RtValue], f: impl Fn(f32) -> f32) -> Result<Vec<RtValue>> {
    let x = super::tensor(operands, 0)?;
    result(&x.shape, x.as_f32()?.iter().map(|v| f(*v)).collect())
}

/// Applies `f` to the elements of operands 0 and 1 in pairs.
pub(crate) fn zip(operands: &[&RtValue], f: impl Fn(f32, f32) -> f32) -> Result<Vec<RtValue>> {
    let (a, b) = (super::tensor(operands, 0)?, floats(operands, 1)?);
    result(&a.shape, a.as_f32()?.iter().zip(b).map(|(a, b)| f(*a, *b)).collect())
}

/// Applies `f` to every row (innermost dimension) of operand 0, appending to the result.
pub(crate) fn map_rows(operands: &[&RtValue], f: impl Fn(&[f32], &mut Vec<f32>)) -> Result<Vec<RtValue>> {
    let x = super::tensor(operands, 0)?;
    let data = x.as_f32()?;
    let mut out = Vec::with_capacity(data.len());
    if let Some(d @ 1..) = x.shape.last().copied() {
        data.chunks_exact(d).for_each(|row| f(row, &mut out));
    }
    result(&x.shape, out)
}

/// Sum of products in f64, in a fixed order of eight partial sums.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0f64; 8];
    let (ca, cb) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 = ca.remainder().iter().zip(cb.remainder()).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
    for (x, y) in ca.zip(cb) {
        for ((s, x), y) in sums.iter_mut().zip(x).zip(y) {
            *s += f64::from(*x) * f64::from(*y);
        }
    }
    sums.iter().sum::<f64>() + tail
}

/// `v` rounded to `dtype`, to nearest even.
pub(crate) fn round_to(dtype: DType, v: f32) -> f32 {
    match dtype {
        DType::F16 => half::f16::from_f32(v).to_f32(),
        DType::Bf16 => half::bf16::from_f32(v).to_f32(),
        DType::F32 | DType::I32 | DType::I8 | DType::E4m3 | DType::Quant(_) => v,
    }
}

/// Elements of a tensor at these sizes.
pub(crate) fn elements(ty: &TensorType, sizes: Sizes) -> f64 {
    let size = |d: &Dim| match d {
        Dim::Const(n) => *n as f64,
        Dim::Sym(Sym::Tokens) => sizes.tokens as f64,
        Dim::Sym(Sym::Rows) => sizes.rows as f64,
    };
    ty.shape.iter().map(size).product()
}

/// Bytes of a tensor at these sizes.
pub(crate) fn bytes(ty: &TensorType, sizes: Sizes) -> f64 {
    elements(ty, sizes) * ty.dtype.bytes_per_element(ty.last().unwrap_or(1))
}

/// Bytes that reading the operands and writing the results moves. A tensor without a symbolic
/// dimension is a weight; KV caches count nothing here.
pub(crate) fn traffic(operands: &[&Type], results: &[Type], sizes: Sizes) -> Cost {
    let mut cost = Cost::default();
    for t in operands.iter().filter_map(|t| t.tensor()) {
        match t.elements() {
            Some(_) => cost.memory_bytes += bytes(t, sizes),
            None => cost.activation_bytes += bytes(t, sizes),
        }
    }
    cost.activation_bytes += results.iter().filter_map(Type::tensor).map(|t| bytes(t, sizes)).sum::<f64>();
    cost
}

/// Cost of an op that does `flops` operations for each element of its results.
pub(crate) fn pointwise(op: &Op, operands: &[&Type], sizes: Sizes, flops: f64) -> Cost {
    let results = op.infer(operands).unwrap_or_default();
    let computed: f64 = results.iter().filter_map(Type::tensor).map(|t| elements(t, sizes)).sum();
    Cost { flops: computed * flops, ..traffic(operands, &results, sizes) }
}

/// Bytes of one position of a KV cache, scales of bytes included.
pub(crate) fn kv_position_bytes(kv: KvType) -> f64 {
    let scale = if matches!(kv.dtype, DType::I8 | DType::E4m3) { 4.0 } else { 0.0 };
    2.0 * kv.heads as f64 * (kv.head_dim as f64 * kv.dtype.size() as f64 + scale)
}
