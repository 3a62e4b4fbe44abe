//! The op table: every op's name, payload and file.
//!
//! One file per op holds its type rule (`infer`), its reference meaning (`eval`) and its cost.
//! The table below yields the enum, the text form and the dispatch; an op is one file and one
//! line here.

pub mod attr;
pub(crate) mod common;
pub mod expand;
pub mod fused;
#[cfg(test)]
mod testing;

use crate::error::{Error, Result};
use crate::interp::RtValue;
use crate::quant::Scheme;
use crate::tensor::Tensor;
use crate::types::{DType, Type};
pub use attr::{Attr, Real};
pub use expand::expand;
pub use fused::{Activation, Epilogue, LinearSpec, Prologue, QkvSpec};

/// Sizes assumed for the symbolic dimensions when a cost is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Tokens in the step.
    pub tokens: usize,
    /// Rows whose logits are wanted.
    pub rows: usize,
    /// Cached positions that each token attends to.
    pub context: usize,
}

/// What one execution of an op moves and computes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Bytes read from weights and the KV cache: they do not fit in a cache near the core.
    pub memory_bytes: f64,
    /// Bytes of activations read and written.
    pub activation_bytes: f64,
    /// Floating-point operations, a fused multiply-add counting as two.
    pub flops: f64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.memory_bytes += other.memory_bytes;
        self.activation_bytes += other.activation_bytes;
        self.flops += other.flops;
    }
}

/// Defines [`Op`] from lines `Variant "text_name" module { attribute: Type, .. }`.
macro_rules! ops {
    ($($(#[$doc:meta])* $variant:ident $name:literal $module:ident { $($field:ident: $ty:ty),* $(,)? })*) => {
        $(pub mod $module;)*

        /// An operation with its attributes.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Op {
            $($(#[$doc])* $variant { $($field: $ty),* },)*
        }

        impl Op {
            /// Every op: its name and the names of its attributes, in the order of the table.
            pub const TABLE: &'static [(&'static str, &'static [&'static str])] =
                &[$(($name, &[$(stringify!($field)),*])),*];

            /// Name in the text form.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$variant { .. } => $name,)* }
            }

            /// Attributes in the order of the table, printed.
            pub fn attrs(&self) -> Vec<(&'static str, String)> {
                match self {
                    $(Op::$variant { $($field),* } => vec![$((stringify!($field), Attr::print($field))),*],)*
                }
            }

            /// The op with this name and these printed attributes, all present and in any order.
            pub fn from_text(name: &str, attrs: &[(&str, &str)]) -> Option<Op> {
                match name {
                    $($name => {
                        let expected: &[&str] = &[$(stringify!($field)),*];
                        if attrs.len() != expected.len() {
                            return None;
                        }
                        Some(Op::$variant {
                            $($field: Attr::parse(attrs.iter().find(|(n, _)| *n == stringify!($field))?.1)?,)*
                        })
                    })*
                    _ => None,
                }
            }

            /// Result types for these operand types.
            ///
            /// # Errors
            /// [`Error::Op`] saying which operand was found and what was expected.
            pub fn infer(&self, operands: &[&Type]) -> Result<Vec<Type>> {
                match self {
                    $(Op::$variant { .. } => $module::infer(self, operands),)*
                }
            }

            /// Reference meaning. Operands have the types that `infer` accepts.
            ///
            /// # Errors
            /// [`Error::Interp`] for values that no type rules out, such as an id past the table.
            pub fn eval(&self, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
                match self {
                    $(Op::$variant { .. } => $module::eval(self, operands),)*
                }
            }

            /// Bytes and flops of one execution.
            pub fn cost(&self, operands: &[&Type], sizes: Sizes) -> Cost {
                match self {
                    $(Op::$variant { .. } => $module::cost(self, operands, sizes),)*
                }
            }
        }
    };
}

ops! {
    /// A value the step or an earlier block provides. No operands; never evaluated.
    Input "input" input { index: u32, ty: Type }
    /// A formal weight of the block. No operands; never evaluated.
    Param "param" param { index: u32, ty: Type }
    /// A small constant tensor of f32. No operands.
    Const "const" constant { shape: Vec<usize>, data: Vec<Real> }
    /// Rows of a table: `(table [V,d], ids i32[n]) -> f32[n,d]`.
    Embed "embed" embed {}
    /// Rows of a tensor: `(x f32[n,d], rows i32[m]) -> f32[m,d]`.
    Gather "gather" gather {}
    /// Product with a weight stored by output row: `(x f32[n,K], w [N,K]) -> f32[n,N]`, summed in f32.
    MatMul "matmul" matmul {}
    /// Swaps the two dimensions of a weight: `[a,b] -> [b,a]`.
    Transpose "transpose" transpose {}
    /// Joins weights along dimension 0: `[a,K], [b,K], .. -> [a+b+..,K]`.
    Concat "concat" concat {}
    /// Elements `start..start+len` of the last dimension.
    Slice "slice" slice { start: usize, len: usize }
    /// Rows `start..start+len` of a weight or vector (dimension 0).
    SliceRows "slice_rows" slice_rows { start: usize, len: usize }
    /// Rows (axis 0) or columns (axis 1) that an ascending index lists: `(x [a,b], keep i32[m]) -> [m,b]` or `[a,m]`.
    Select "select" select { axis: usize }
    /// Columns of a weight at their places among zeros: `(w [N,m], keep i32[m]) -> [N,size]`.
    Scatter "scatter" scatter { size: usize }
    /// The same elements in another shape; a symbolic dimension stays outermost.
    Reshape "reshape" reshape { shape: Vec<crate::types::Dim> }
    /// Sum of two tensors of one shape.
    Add "add" add {}
    /// Product of two tensors of one shape.
    Mul "mul" mul {}
    /// Adds a vector to every row: `(x f32[..,N], b [N])`.
    Bias "bias" bias {}
    /// Multiplies by a constant.
    Scale "scale" scale { factor: Real }
    /// Converts to a narrower type, to nearest even.
    Round "round" round { dtype: DType }
    /// Stores a weight in few bits: `[N,K] -> scheme[N,K]`.
    Quantize "quantize" quantize { scheme: Scheme }
    /// The values of a narrow tensor where another type is expected: the identity.
    Dequantize "dequantize" dequantize { dtype: DType }
    /// Pointwise nonlinearity.
    Act "act" act { kind: Activation }
    /// RMSNorm over the last dimension: `(x f32[..,d], scale [d])`.
    RmsNorm "rms_norm" rms_norm { eps: Real }
    /// LayerNorm over the last dimension: `(x f32[..,d], scale [d], bias [d])`.
    LayerNorm "layer_norm" layer_norm { eps: Real }
    /// The weights of a mixture's experts for each token: `(logits f32[..,E]) -> f32[..,E]`, the scores of the `top`
    /// highest, zero for the others.
    Route "route" route { top: usize, sigmoid: bool, normalize: bool, scale: Real }
    /// Angles of a rotary embedding: `(positions i32[T], inv_freq [r/2]) -> f32[T,r]`, cosines then
    /// sines of `position * inv_freq` (rounded to f32 first), times `scaling`. With a period, positions
    /// count within it.
    RopeTable "rope_table" rope_table { scaling: Real, period: Option<usize> }
    /// Rotary embedding of heads: `(x f32[T,H,hd], table f32[T,rotary_dim]) -> f32[T,H,hd]`.
    Rope "rope" rope { rotary_dim: usize, interleaved: bool }
    /// Stores keys and values: `(kv, k f32[T,H,hd], v f32[T,H,hd], positions i32[T], seqs i32[T]) -> kv`.
    KvAppend "kv_append" kv_append {}
    /// Causal attention of each token to its own sequence:
    /// `(q f32[T,Hq,hd], kv, positions i32[T], seqs i32[T]) -> f32[T,Hq,hd]`. With a window, a token at
    /// position p sees positions p-window+1..=p.
    Attention "attention" attention { scale: Real, window: Option<usize>, softcap: Option<Real> }
    /// Attention of each token to the `sinks` first and the `window` last pages of its own sequence, its own
    /// page included: `(q, kv, positions, seqs, turns f32[(sinks+window)*rotary_dim])`. Queries and keys
    /// are turned by their places in their pages; row d of `turns` has the angles of d pages. With a
    /// reach, a token at position p sees no position before p-reach+1. Where it is `counted`, its kernel also
    /// counts in the cache how much attention each position got, for a runtime that forgets those used least; the
    /// value does not depend on it.
    SinkAttention "sink_attention" sink_attention {
        scale: Real, softcap: Option<Real>, reach: Option<usize>, page: usize, sinks: usize, window: usize,
        rotary_dim: usize, interleaved: bool, counted: bool,
    }
    /// A matmul with prologue and epilogue; see [`LinearSpec`].
    Linear "linear" linear { prologue: Prologue, round: Option<DType>, epilogue: Vec<Epilogue> }
    /// Joined Q, K and V with the KV store; see [`QkvSpec`].
    Qkv "qkv" qkv {
        prologue: Prologue, round: Option<DType>, head_dim: usize,
        q: Vec<Epilogue>, k: Vec<Epilogue>, v: Vec<Epilogue>,
    }
}

impl Op {
    /// True for the ops that only the e-graph creates.
    pub fn is_fused(&self) -> bool {
        matches!(self, Op::Linear { .. } | Op::Qkv { .. })
    }
}

/// Operand `i` as a tensor, for `eval`.
pub(crate) fn tensor<'a>(operands: &[&'a RtValue], i: usize) -> Result<&'a Tensor> {
    match operands.get(i) {
        Some(RtValue::Tensor(t)) => Ok(t),
        _ => Err(Error::Interp(format!("operand {i} is not a tensor"))),
    }
}
