//! What a model is: dimensions and choices, as orthogonal enums with payloads.
//!
//! A family file makes an [`ArchSpec`] from a config; the builder walks it. A model that needs
//! something new gets a variant here and a place in `blocks/`, and then every family has it.

use llmc_ir::Activation;
use std::fmt;
use std::ops::RangeInclusive;

/// A decoder-only language model.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchSpec {
    /// Name of the family: `llama`.
    pub family: &'static str,
    /// Rows of the embedding, and logits per token.
    pub vocab: usize,
    /// Elements of the residual stream.
    pub width: usize,
    /// Most positions the model was made for.
    pub context: usize,
    /// How ids become the residual stream.
    pub embed: EmbedSpec,
    /// The layers in order.
    pub layers: Vec<LayerSpec>,
    /// Norm before the head.
    pub final_norm: NormSpec,
    /// How the residual stream becomes logits.
    pub head: HeadSpec,
}

/// How ids become the residual stream.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedSpec {
    /// What is added for the position.
    pub positions: Positions,
}

/// What the embedding adds for a token's position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// Nothing; attention knows positions by itself.
    None,
    /// A learned row for each of `count` positions.
    Learned {
        /// Number of rows.
        count: usize,
    },
}

/// One layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// What mixes tokens.
    pub mixer: Mixer,
    /// What works on each token.
    pub ffn: Ffn,
    /// How the two meet the residual stream.
    pub residual: Residual,
}

/// What mixes tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    /// Softmax attention over a KV cache.
    Attention(AttnSpec),
}

/// Softmax attention with `q_heads / kv_heads` query heads to each key head.
#[derive(Clone, Debug, PartialEq)]
pub struct AttnSpec {
    /// Query heads.
    pub q_heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Factor on the scores before the softmax.
    pub scale: f32,
    /// Which projections add a bias.
    pub bias: AttnBias,
    /// Norm of each query and key head before the rotation.
    pub qk_norm: Option<NormSpec>,
    /// Rotary embedding of queries and keys.
    pub rope: Option<RopeSpec>,
    /// What a token sees of its past.
    pub reach: Reach,
}

/// Which projections of an attention add a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttnBias {
    /// None.
    None,
    /// Query, key and value.
    Qkv,
    /// Query, key, value and output.
    All,
}

/// What a token sees of its past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everything.
    Full,
    /// The last positions, its own included.
    Window(usize),
}

/// A rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// Leading elements of a head that are rotated.
    pub rotary_dim: usize,
    /// Which elements make a pair.
    pub pairing: Pairing,
    /// How frequencies are changed for long contexts.
    pub scaling: RopeScaling,
}

/// Which elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `(i, i + rotary_dim / 2)`.
    Halves,
}

/// How a rotary embedding's frequencies are changed for contexts longer than those trained on.
/// The formulas are those of transformers' `modeling_rope_utils`.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not changed.
    None,
    /// All divided by `factor`.
    Linear {
        /// Divisor of every frequency.
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, a smooth step between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Periods per original context below which a frequency is low.
        low_freq_factor: f64,
        /// Periods per original context above which a frequency is high.
        high_freq_factor: f64,
        /// Context the model was first trained on.
        original_context: usize,
    },
    /// YaRN, <https://arxiv.org/abs/2309.00071>.
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Periods per original context above which a frequency is kept.
        beta_fast: f64,
        /// Periods per original context below which a frequency is divided.
        beta_slow: f64,
        /// Factor on cosines and sines.
        attention_factor: f64,
        /// Context the model was first trained on.
        original_context: usize,
        /// How the ramp's ends are rounded.
        ramp: YarnRamp,
    },
}

/// Where YaRN's ramp between kept and divided frequencies begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum YarnRamp {
    /// At whole indices: down at the beginning, up at the end.
    Whole,
    /// Where the formula says.
    Exact,
}

/// What works on each token.
#[derive(Clone, Debug, PartialEq)]
pub enum Ffn {
    /// `down(act(gate(x)) * up(x))`.
    Gated {
        /// Nonlinearity.
        act: Activation,
        /// Elements between.
        d_ff: usize,
        /// Whether the three projections add a bias.
        bias: FfnBias,
    },
    /// `down(act(up(x)))`.
    Dense {
        /// Nonlinearity.
        act: Activation,
        /// Elements between.
        d_ff: usize,
        /// Whether the two projections add a bias.
        bias: FfnBias,
    },
}

/// Which projections of a feed-forward network add a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FfnBias {
    /// None.
    None,
    /// All.
    All,
}

/// How a layer's two halves meet the residual stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Residual {
    /// `h += mixer(norm(h)); h += ffn(norm(h))`.
    PreNorm {
        /// Norm before the mixer.
        mixer: NormSpec,
        /// Norm before the feed-forward network.
        ffn: NormSpec,
    },
}

/// A norm over the last dimension, with a learned scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormSpec {
    /// Root mean square.
    Rms {
        /// Added to the mean square.
        eps: f32,
    },
    /// Mean and variance, with a learned bias.
    Layer {
        /// Added to the variance.
        eps: f32,
    },
}

/// How the residual stream becomes logits.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSpec {
    /// Where its weight comes from.
    pub weight: HeadWeight,
}

/// Where the head's weight comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadWeight {
    /// It is the embedding.
    Tied,
    /// It is stored by itself.
    Own,
}

impl ArchSpec {
    /// Runs of equal layers, as inclusive ranges.
    pub fn layer_runs(&self) -> Vec<(RangeInclusive<usize>, &LayerSpec)> {
        let mut runs: Vec<(RangeInclusive<usize>, &LayerSpec)> = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            match runs.last_mut() {
                Some((range, first)) if *first == layer => *range = *range.start()..=i,
                _ => runs.push((i..=i, layer)),
            }
        }
        runs
    }
}

impl fmt::Display for ArchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "family      {}", self.family)?;
        writeln!(f, "vocab       {}", self.vocab)?;
        writeln!(f, "width       {}", self.width)?;
        writeln!(f, "context     {}", self.context)?;
        match self.embed.positions {
            Positions::None => writeln!(f, "embed       tokens")?,
            Positions::Learned { count } => writeln!(f, "embed       tokens + learned positions ({count})")?,
        }
        for (range, layer) in self.layer_runs() {
            writeln!(f, "layers      {}..={}", range.start(), range.end())?;
            write!(f, "{layer}")?;
        }
        writeln!(f, "final_norm  {}", self.final_norm)?;
        let head = match self.head.weight {
            HeadWeight::Tied => "tied to the embedding",
            HeadWeight::Own => "own weight",
        };
        writeln!(f, "head        {head}")
    }
}

impl fmt::Display for LayerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Residual::PreNorm { mixer, ffn } = &self.residual;
        writeln!(f, "  residual  pre-norm, mixer {mixer}, ffn {ffn}")?;
        let Mixer::Attention(attn) = &self.mixer;
        writeln!(f, "  mixer     {attn}")?;
        writeln!(f, "  ffn       {}", self.ffn)
    }
}

impl fmt::Display for AttnSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AttnSpec { q_heads, kv_heads, head_dim, scale, .. } = self;
        write!(f, "attention, {q_heads} heads, {kv_heads} kv heads of {head_dim}, scale {scale:?}")?;
        match self.bias {
            AttnBias::None => {}
            AttnBias::Qkv => write!(f, ", bias on q k v")?,
            AttnBias::All => write!(f, ", bias on q k v o")?,
        }
        if let Some(norm) = &self.qk_norm {
            write!(f, ", q and k {norm}")?;
        }
        if let Some(rope) = &self.rope {
            write!(f, ", rope theta {:?} on {}", rope.theta, rope.rotary_dim)?;
            if rope.scaling != RopeScaling::None {
                write!(f, ", {:?}", rope.scaling)?;
            }
        }
        match self.reach {
            Reach::Full => Ok(()),
            Reach::Window(n) => write!(f, ", window {n}"),
        }
    }
}

impl fmt::Display for Ffn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, act, d_ff, bias) = match self {
            Ffn::Gated { act, d_ff, bias } => ("gated", act, d_ff, bias),
            Ffn::Dense { act, d_ff, bias } => ("dense", act, d_ff, bias),
        };
        let bias = if *bias == FfnBias::All { ", bias" } else { "" };
        write!(f, "{kind} {act:?} {d_ff}{bias}")
    }
}

impl fmt::Display for NormSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NormSpec::Rms { eps } => write!(f, "rms_norm(eps={eps:?})"),
            NormSpec::Layer { eps } => write!(f, "layer_norm(eps={eps:?})"),
        }
    }
}
