//! What Llama and its relatives share: pre-norm layers of RMSNorm, rotary attention with grouped
//! heads and a gated feed-forward network, and the tensor names of transformers.

use crate::bind::{Names, Rule, same};
use crate::config::{Config, limits, rope};
use crate::error::Result;
use crate::spec::{
    ArchSpec, AttnBias, AttnSpec, EmbedSpec, Ffn, FfnBias, HeadSpec, HeadWeight, LayerSpec, Mixer, NormSpec, Positions,
    Reach, Residual,
};
use llmc_ir::Activation;

/// Names of the tensors. A rule applies where the spec calls for its weight.
pub const NAMES: Names = Names {
    rules: &[
        same("model.embed_tokens.weight", &["embed.tokens"]),
        same("model.layers.{}.input_layernorm.weight", &["layers.{}.attn.norm.scale"]),
        same("model.layers.{}.self_attn.q_proj.weight", &["layers.{}.attn.q.weight"]),
        same("model.layers.{}.self_attn.q_proj.bias", &["layers.{}.attn.q.bias"]),
        same("model.layers.{}.self_attn.k_proj.weight", &["layers.{}.attn.k.weight"]),
        same("model.layers.{}.self_attn.k_proj.bias", &["layers.{}.attn.k.bias"]),
        same("model.layers.{}.self_attn.v_proj.weight", &["layers.{}.attn.v.weight"]),
        same("model.layers.{}.self_attn.v_proj.bias", &["layers.{}.attn.v.bias"]),
        same("model.layers.{}.self_attn.o_proj.weight", &["layers.{}.attn.o.weight"]),
        same("model.layers.{}.self_attn.o_proj.bias", &["layers.{}.attn.o.bias"]),
        same("model.layers.{}.self_attn.q_norm.weight", &["layers.{}.attn.q_norm.scale"]),
        same("model.layers.{}.self_attn.k_norm.weight", &["layers.{}.attn.k_norm.scale"]),
        same("model.layers.{}.post_attention_layernorm.weight", &["layers.{}.ffn.norm.scale"]),
        same("model.layers.{}.mlp.gate_proj.weight", &["layers.{}.ffn.gate.weight"]),
        same("model.layers.{}.mlp.gate_proj.bias", &["layers.{}.ffn.gate.bias"]),
        same("model.layers.{}.mlp.up_proj.weight", &["layers.{}.ffn.up.weight"]),
        same("model.layers.{}.mlp.up_proj.bias", &["layers.{}.ffn.up.bias"]),
        same("model.layers.{}.mlp.down_proj.weight", &["layers.{}.ffn.down.weight"]),
        same("model.layers.{}.mlp.down_proj.bias", &["layers.{}.ffn.down.bias"]),
        same("model.norm.weight", &["final_norm.scale"]),
        same("lm_head.weight", &["head.weight"]),
    ] as &[Rule],
    prefix: "model.",
    inert: &["model.layers.{}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"],
    head: "lm_head.weight",
};

/// What the members choose.
#[derive(Debug)]
pub struct Choices {
    /// Name of the family.
    pub family: &'static str,
    /// Number of key heads, where the config may leave it out.
    pub kv_heads: Missing,
    /// Elements per head, where the config leaves them out; `None` for `hidden_size / heads`.
    pub head_dim: Option<usize>,
    /// Biases of the attention.
    pub attn_bias: AttnBias,
    /// Biases of the feed-forward network.
    pub ffn_bias: FfnBias,
    /// Norm of query and key heads.
    pub qk_norm: QkNorm,
}

/// What a missing `num_key_value_heads` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// As many as query heads.
    Same,
    /// An error.
    Refused,
}

/// Whether query and key heads are normed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// They are not.
    None,
    /// By RMSNorm over each head.
    PerHead,
}

/// Reads a config of this kind; `reach` says what each layer's attention sees.
///
/// # Errors
/// [`crate::Error::Key`] for a missing or senseless key.
pub fn spec(c: &Config, choices: &Choices, reach: impl Fn(usize) -> Reach) -> Result<ArchSpec> {
    let width = c.size("hidden_size", limits::WIDTH)?;
    let context = c.size("max_position_embeddings", limits::CONTEXT)?;
    let norm = NormSpec::Rms { eps: c.positive("rms_norm_eps")? as f32 };
    let attn = attention(c, choices, width, context, norm)?;
    let ffn = Ffn::Gated {
        act: activation(c, "hidden_act")?,
        d_ff: c.size("intermediate_size", limits::D_FF)?,
        bias: choices.ffn_bias,
    };
    let layer = |i| LayerSpec {
        mixer: Mixer::Attention(AttnSpec { reach: reach(i), ..attn.clone() }),
        ffn: ffn.clone(),
        residual: Residual::PreNorm { mixer: norm, ffn: norm },
    };
    Ok(ArchSpec {
        family: choices.family,
        vocab: c.size("vocab_size", limits::VOCAB)?,
        width,
        context,
        embed: EmbedSpec { positions: Positions::None },
        layers: (0..c.size("num_hidden_layers", limits::LAYERS)?).map(layer).collect(),
        final_norm: norm,
        head: head(c, false)?,
    })
}

fn attention(c: &Config, choices: &Choices, width: usize, context: usize, norm: NormSpec) -> Result<AttnSpec> {
    let q_heads = c.size("num_attention_heads", limits::HEADS)?;
    let kv_heads = match choices.kv_heads {
        Missing::Same => c.size_if("num_key_value_heads", limits::HEADS)?.unwrap_or(q_heads),
        Missing::Refused => c.size("num_key_value_heads", limits::HEADS)?,
    };
    if !q_heads.is_multiple_of(kv_heads) {
        let message = format!("is {kv_heads}, which does not divide num_attention_heads, {q_heads}");
        return Err(c.error("num_key_value_heads", message));
    }
    let head_dim = match c.size_if("head_dim", limits::HEAD_DIM)?.or(choices.head_dim) {
        Some(given) => given,
        None => split_width(c, "num_attention_heads", width, q_heads)?,
    };
    Ok(AttnSpec {
        q_heads,
        kv_heads,
        head_dim,
        scale: (1.0 / (head_dim as f64).sqrt()) as f32,
        bias: choices.attn_bias,
        qk_norm: match choices.qk_norm {
            QkNorm::None => None,
            QkNorm::PerHead => Some(norm),
        },
        rope: Some(rope::read(c, head_dim, context)?),
        reach: Reach::Full,
    })
}

/// `width / heads`, which must be whole.
///
/// # Errors
/// [`crate::Error::Key`] naming `key`, the number of heads, if it is not, or if heads get too large.
pub fn split_width(c: &Config, key: &str, width: usize, heads: usize) -> Result<usize> {
    let head_dim = width / heads;
    if !width.is_multiple_of(heads) || head_dim > limits::HEAD_DIM {
        let message = format!("is {heads}, which does not split {width} into heads of at most {}", limits::HEAD_DIM);
        return Err(c.error(key, message));
    }
    Ok(head_dim)
}

/// The nonlinearity a key names.
///
/// # Errors
/// [`crate::Error::Key`] if llmc does not know it.
pub fn activation(c: &Config, key: &str) -> Result<Activation> {
    const NAMES: [(&str, Activation); 8] = [
        ("silu", Activation::Silu),
        ("swish", Activation::Silu),
        ("gelu", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_fast", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("gelu_accurate", Activation::GeluTanh),
        ("relu", Activation::Relu),
    ];
    let name = c.text(key)?;
    NAMES.iter().find(|(n, _)| *n == name).map(|(_, a)| *a).ok_or_else(|| {
        let known: Vec<&str> = NAMES.iter().map(|(n, _)| *n).collect();
        c.error(key, format!("is {name:?}; llmc knows {}", known.join(", ")))
    })
}

/// The head, from `tie_word_embeddings`.
///
/// # Errors
/// [`crate::Error::Key`] if that is no flag.
pub fn head(c: &Config, tied_by_default: bool) -> Result<HeadSpec> {
    let tied = c.flag_or("tie_word_embeddings", tied_by_default)?;
    Ok(HeadSpec { weight: if tied { HeadWeight::Tied } else { HeadWeight::Own } })
}

/// What each layer sees in families with `use_sliding_window` and `max_window_layers`: layers from
/// `max_window_layers` on have the window, unless `layer_types` lists what each one has.
///
/// # Errors
/// [`crate::Error::Key`] for values that do not fit together.
pub fn optional_windows(c: &Config) -> Result<Vec<Reach>> {
    let layers = c.size("num_hidden_layers", limits::LAYERS)?;
    let used = c.flag_or("use_sliding_window", false)?;
    let stored = if c.only("sliding_window", 0).is_ok() { None } else { c.size_if("sliding_window", limits::CONTEXT)? };
    let window = stored.filter(|_| used);
    let first = match c.get("max_window_layers").and_then(|v| v.as_u64()) {
        Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
        None if window.is_some() => c.size("max_window_layers", limits::LAYERS)?,
        None => usize::MAX,
    };
    let Some(types) = c.texts_if("layer_types")? else {
        return Ok((0..layers).map(|i| window.filter(|_| i >= first).map_or(Reach::Full, Reach::Window)).collect());
    };
    if types.len() != layers {
        let message = format!("has {} entries, but num_hidden_layers is {layers}", types.len());
        return Err(c.error("layer_types", message));
    }
    let reach = |ty: &&str| match (*ty, window) {
        ("full_attention", _) => Ok(Reach::Full),
        ("sliding_attention", Some(n)) => Ok(Reach::Window(n)),
        ("sliding_attention", None) => {
            Err(c.error("layer_types", "has sliding_attention, but sliding_window is not set or not used"))
        }
        (other, _) => {
            let message = format!("has {other:?}; llmc knows full_attention and sliding_attention");
            Err(c.error("layer_types", message))
        }
    };
    types.iter().map(reach).collect()
}
