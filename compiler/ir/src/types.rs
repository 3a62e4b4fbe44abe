//! Element types, symbolic dimensions and tensor types.

use crate::quant::Scheme;
use std::fmt;

/// Element type of a tensor as stored or computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    Bf16,
    /// Signed 32-bit integer: token ids, positions, row indices.
    I32,
    /// Activations as 8-bit integers with a scale for each row.
    I8,
    /// Keys and values as e4m3fn with a scale for each head and position.
    E4m3,
    /// Weights in few bits.
    Quant(Scheme),
}

impl DType {
    /// Every type but the quantized ones, with its name in the text form; theirs is the scheme's.
    pub const TABLE: [(DType, &'static str); 6] = [
        (DType::F32, "f32"),
        (DType::F16, "f16"),
        (DType::Bf16, "bf16"),
        (DType::I32, "i32"),
        (DType::I8, "i8"),
        (DType::E4m3, "e4m3"),
    ];

    /// Bytes per element; of a quantized type the bytes that hold a code by itself.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::Bf16 => 2,
            DType::I8 | DType::E4m3 | DType::Quant(_) => 1,
        }
    }

    /// Bytes per element in rows of `width` elements, scales included.
    pub fn bytes_per_element(self, width: usize) -> f64 {
        match self {
            DType::Quant(scheme) => scheme.bits_per_weight(width.max(1)) / 8.0,
            other => other.size() as f64,
        }
    }

    /// True for the types that hold real numbers.
    pub fn is_float(self) -> bool {
        self != DType::I32
    }

    /// True for the types that a checkpoint may hold weights in.
    pub fn is_stored_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::Bf16)
    }

    /// The type named `name` in the text form.
    pub fn from_name(name: &str) -> Option<DType> {
        let plain = Self::TABLE.iter().find(|(_, n)| *n == name).map(|(t, _)| *t);
        plain.or_else(|| Scheme::from_name(name).map(DType::Quant))
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DType::Quant(scheme) => scheme.fmt(f),
            plain => f.write_str(Self::TABLE.iter().find(|(t, _)| t == plain).expect("is in TABLE").1),
        }
    }
}

/// A dimension known only when a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sym {
    /// Tokens in this step, over all sequences. Printed `T`.
    Tokens,
    /// Rows whose logits are wanted in this step. Printed `R`.
    Rows,
}

/// One dimension: a constant, or known only at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// Known at compile time.
    Const(usize),
    /// Known when a step runs.
    Sym(Sym),
}

impl Dim {
    /// The constant, if it is one.
    pub fn constant(self) -> Option<usize> {
        match self {
            Dim::Const(n) => Some(n),
            Dim::Sym(_) => None,
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::Const(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Const(n) => write!(f, "{n}"),
            Dim::Sym(Sym::Tokens) => f.write_str("T"),
            Dim::Sym(Sym::Rows) => f.write_str("R"),
        }
    }
}

/// Dimensions, outermost first.
pub type Shape = Vec<Dim>;

/// A dense row-major tensor: element type and shape. Printed `f32[T,256]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Shape,
}

impl TensorType {
    /// A tensor type from anything that converts to dimensions.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = Dim>) -> TensorType {
        TensorType { dtype, shape: shape.into_iter().collect() }
    }

    /// The constant innermost dimension, if there is one.
    pub fn last(&self) -> Option<usize> {
        self.shape.last().and_then(|d| d.constant())
    }

    /// Number of elements, if every dimension is constant and the product fits.
    pub fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(d.constant()?))
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, d) in self.shape.iter().enumerate() {
            write!(f, "{}{d}", if i == 0 { "" } else { "," })?;
        }
        f.write_str("]")
    }
}

/// The KV cache of one layer: `heads` key and value heads of `head_dim` elements per position.
/// Printed `kv<f16,2,64>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KvType {
    /// Stored element type.
    pub dtype: DType,
    /// Number of key (and of value) heads.
    pub heads: usize,
    /// Elements per head.
    pub head_dim: usize,
}

/// The type of a value: a tensor, or the state of one layer's KV cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    /// A dense tensor.
    Tensor(TensorType),
    /// A KV cache.
    Kv(KvType),
}

impl Type {
    /// The tensor type, if it is one.
    pub fn tensor(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(t) => Some(t),
            Type::Kv(_) => None,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Tensor(t) => t.fmt(f),
            Type::Kv(k) => write!(f, "kv<{},{},{}>", k.dtype, k.heads, k.head_dim),
        }
    }
}

impl From<TensorType> for Type {
    fn from(t: TensorType) -> Type {
        Type::Tensor(t)
    }
}

impl From<KvType> for Type {
    fn from(k: KvType) -> Type {
        Type::Kv(k)
    }
}
