//! Payloads of the fused ops: what a matmul does to its input and to its output.
//!
//! A prologue and each epilogue step may take operands; the operands of a fused op are listed in
//! the order in which the steps stand.

use super::attr::{Attr, Real, split_top};
use crate::types::DType;

/// Pointwise nonlinearities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Activation {
    /// x * sigmoid(x).
    Silu,
    /// Gaussian error linear unit with erf.
    Gelu,
    /// Its tanh approximation.
    GeluTanh,
    /// max(x, 0).
    Relu,
}

impl Activation {
    /// Every activation with its name in the text form.
    pub const TABLE: [(Activation, &'static str); 4] = [
        (Activation::Silu, "silu"),
        (Activation::Gelu, "gelu"),
        (Activation::GeluTanh, "gelu_tanh"),
        (Activation::Relu, "relu"),
    ];
}

impl Attr for Activation {
    fn print(&self) -> String {
        Self::TABLE.iter().find(|(a, _)| a == self).expect("every Activation is in TABLE").1.into()
    }
    fn parse(text: &str) -> Option<Activation> {
        Self::TABLE.iter().find(|(_, n)| *n == text).map(|(a, _)| *a)
    }
}

/// What happens to the rows of `x` before they meet the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Prologue {
    /// Nothing. Operand `x`.
    None,
    /// RMSNorm. Operands `x, scale`.
    RmsNorm(Real),
    /// LayerNorm. Operands `x, scale, bias`.
    LayerNorm(Real),
}

impl Prologue {
    /// Number of operands, `x` included.
    pub fn operands(self) -> usize {
        match self {
            Prologue::None => 1,
            Prologue::RmsNorm(_) => 2,
            Prologue::LayerNorm(_) => 3,
        }
    }
}

impl Attr for Prologue {
    fn print(&self) -> String {
        match self {
            Prologue::None => "none".into(),
            Prologue::RmsNorm(eps) => format!("rms_norm({})", eps.print()),
            Prologue::LayerNorm(eps) => format!("layer_norm({})", eps.print()),
        }
    }
    fn parse(text: &str) -> Option<Prologue> {
        match call(text)? {
            ("none", _) => Some(Prologue::None),
            ("rms_norm", a) => Real::parse(a).map(Prologue::RmsNorm),
            ("layer_norm", a) => Real::parse(a).map(Prologue::LayerNorm),
            _ => None,
        }
    }
}

/// One step applied to the product before it is stored, on rows of f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Epilogue {
    /// Adds a vector. One operand `[N]`. On a gated pair: two operands, for gate and up.
    Bias,
    /// Pointwise nonlinearity.
    Act(Activation),
    /// On a pair of weights: activation of the first product times the second.
    Gated(Activation),
    /// Adds a tensor of the result's shape. One operand.
    Residual,
    /// Multiplies by a tensor of the result's shape. One operand.
    Mul,
    /// Multiplies by a constant.
    Scale(Real),
    /// Rounds to a narrower type, to nearest even.
    Round(DType),
    /// RMSNorm of each head of `head_dim` elements. One operand `[head_dim]`.
    HeadNorm {
        /// Added to the mean square.
        eps: Real,
        /// Elements per head.
        head_dim: usize,
    },
    /// Rotary embedding of each head. One operand: the table of `rope_table`.
    Rope {
        /// Elements per head.
        head_dim: usize,
        /// Leading elements of a head that are rotated.
        rotary_dim: usize,
        /// Pairs are (2i, 2i+1) if true, (i, i + rotary_dim/2) if false.
        interleaved: bool,
    },
}

impl Epilogue {
    /// Number of operands the step takes; `paired` when it stands before a `Gated`.
    pub fn operands(self, paired: bool) -> usize {
        match self {
            Epilogue::Bias => 1 + usize::from(paired),
            Epilogue::Residual | Epilogue::Mul | Epilogue::HeadNorm { .. } | Epilogue::Rope { .. } => 1,
            Epilogue::Act(_) | Epilogue::Gated(_) | Epilogue::Scale(_) | Epilogue::Round(_) => 0,
        }
    }
}

impl Attr for Epilogue {
    fn print(&self) -> String {
        match self {
            Epilogue::Bias => "bias".into(),
            Epilogue::Act(a) => format!("act({})", a.print()),
            Epilogue::Gated(a) => format!("gated({})", a.print()),
            Epilogue::Residual => "residual".into(),
            Epilogue::Mul => "mul".into(),
            Epilogue::Scale(s) => format!("scale({})", s.print()),
            Epilogue::Round(t) => format!("round({t})"),
            Epilogue::HeadNorm { eps, head_dim } => format!("head_norm({},{head_dim})", eps.print()),
            Epilogue::Rope { head_dim, rotary_dim, interleaved } => {
                format!("rope({head_dim},{rotary_dim},{interleaved})")
            }
        }
    }
    fn parse(text: &str) -> Option<Epilogue> {
        let (name, args) = call(text)?;
        let args: Vec<&str> = split_top(args).collect();
        Some(match (name, args.as_slice()) {
            ("bias", []) => Epilogue::Bias,
            ("act", [a]) => Epilogue::Act(Attr::parse(a)?),
            ("gated", [a]) => Epilogue::Gated(Attr::parse(a)?),
            ("residual", []) => Epilogue::Residual,
            ("mul", []) => Epilogue::Mul,
            ("scale", [s]) => Epilogue::Scale(Attr::parse(s)?),
            ("round", [t]) => Epilogue::Round(Attr::parse(t)?),
            ("head_norm", [e, d]) => Epilogue::HeadNorm { eps: Attr::parse(e)?, head_dim: Attr::parse(d)? },
            ("rope", [h, r, i]) => {
                Epilogue::Rope { head_dim: Attr::parse(h)?, rotary_dim: Attr::parse(r)?, interleaved: Attr::parse(i)? }
            }
            _ => return None,
        })
    }
}

/// `name` or `name(args)`.
fn call(text: &str) -> Option<(&str, &str)> {
    match text.find('(') {
        None => Some((text, "")),
        Some(open) => Some((&text[..open], text[open + 1..].strip_suffix(')')?)),
    }
}

/// A matmul with what surrounds it: `y = epilogue(round(prologue(x)) . w^T)`.
///
/// Operands: prologue operands; one weight `[N,K]`, or two (gate, up) if the epilogue has a
/// `Gated`; then the operands of each epilogue step in order. Result `f32[rows,N]`. The operand x is
/// `f32[rows,K]`, or `f32[rows,heads,head_dim]` with heads * head_dim = K, the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinearSpec {
    /// What is done to x first.
    pub prologue: Prologue,
    /// Rounding of the prologue's result before the product (bf16 activations).
    pub round: Option<DType>,
    /// Steps applied to the product, in order.
    pub epilogue: Vec<Epilogue>,
}

impl LinearSpec {
    /// True when the op multiplies with two weights, gate and up.
    pub fn is_gated(&self) -> bool {
        self.epilogue.iter().any(|e| matches!(e, Epilogue::Gated(_)))
    }

    /// Number of operands of each epilogue step.
    pub fn epilogue_operands(&self) -> Vec<usize> {
        let gate = self.epilogue.iter().position(|e| matches!(e, Epilogue::Gated(_)));
        self.epilogue.iter().enumerate().map(|(i, e)| e.operands(gate.is_some_and(|g| i < g))).collect()
    }
}

/// Q, K and V of one attention joined: three products of the same rows, each with its own steps,
/// K and V stored into the cache.
///
/// Operands: prologue operands; `wq, wk, wv`; operands of the q, k and v steps in order; then
/// `kv, positions, seqs`. Results: `q: f32[T,heads,head_dim]` and the new `kv`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QkvSpec {
    /// What is done to x first.
    pub prologue: Prologue,
    /// Rounding of the prologue's result before the products.
    pub round: Option<DType>,
    /// Elements per head.
    pub head_dim: usize,
    /// Steps applied to q.
    pub q: Vec<Epilogue>,
    /// Steps applied to k before it is stored.
    pub k: Vec<Epilogue>,
    /// Steps applied to v before it is stored.
    pub v: Vec<Epilogue>,
}
