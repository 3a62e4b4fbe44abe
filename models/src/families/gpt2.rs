//! GPT-2: LayerNorm, learned positions, a dense feed-forward network, and weights stored with a
//! column for each output, Q, K and V in one tensor.
//!
//! Source: transformers, `models/gpt2`.

use super::{Family, decoder};
use crate::bind::{Layout, Names, Rule, joined, same, transposed};
use crate::config::{Config, limits};
use crate::error::Result;
use crate::spec::{
    ArchSpec, AttnBias, AttnSpec, EmbedSpec, Ffn, FfnBias, LayerSpec, Mixer, NormSpec, Positions, Reach, Residual,
};

/// `model_type` gpt2.
pub const FAMILY: Family = Family {
    model_type: "gpt2",
    architecture: "GPT2LMHeadModel",
    spec,
    names: NAMES,
    inert: &[
        "attn_pdrop",
        "embd_pdrop",
        "n_ctx",
        "n_special",
        "output_past",
        "predict_special_tokens",
        "reorder_and_upcast_attn",
        "resid_pdrop",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
    ],
};

const NAMES: Names = Names {
    rules: &[
        same("transformer.wte.weight", &["embed.tokens"]),
        same("transformer.wpe.weight", &["embed.positions"]),
        same("transformer.h.{}.ln_1.weight", &["layers.{}.attn.norm.scale"]),
        same("transformer.h.{}.ln_1.bias", &["layers.{}.attn.norm.bias"]),
        joined(
            "transformer.h.{}.attn.c_attn.weight",
            "layers.{}.attn.qkv.weight",
            Layout::Columns,
            &["layers.{}.attn.q.weight", "layers.{}.attn.k.weight", "layers.{}.attn.v.weight"],
        ),
        joined(
            "transformer.h.{}.attn.c_attn.bias",
            "layers.{}.attn.qkv.bias",
            Layout::Rows,
            &["layers.{}.attn.q.bias", "layers.{}.attn.k.bias", "layers.{}.attn.v.bias"],
        ),
        transposed("transformer.h.{}.attn.c_proj.weight", &["layers.{}.attn.o.weight"]),
        same("transformer.h.{}.attn.c_proj.bias", &["layers.{}.attn.o.bias"]),
        same("transformer.h.{}.ln_2.weight", &["layers.{}.ffn.norm.scale"]),
        same("transformer.h.{}.ln_2.bias", &["layers.{}.ffn.norm.bias"]),
        transposed("transformer.h.{}.mlp.c_fc.weight", &["layers.{}.ffn.up.weight"]),
        same("transformer.h.{}.mlp.c_fc.bias", &["layers.{}.ffn.up.bias"]),
        transposed("transformer.h.{}.mlp.c_proj.weight", &["layers.{}.ffn.down.weight"]),
        same("transformer.h.{}.mlp.c_proj.bias", &["layers.{}.ffn.down.bias"]),
        same("transformer.ln_f.weight", &["final_norm.scale"]),
        same("transformer.ln_f.bias", &["final_norm.bias"]),
        same("lm_head.weight", &["head.weight"]),
    ] as &[Rule],
    prefix: "transformer.",
    inert: &["transformer.h.{}.attn.bias", "transformer.h.{}.attn.masked_bias"],
    head: "lm_head.weight",
};

fn spec(c: &Config) -> Result<ArchSpec> {
    let width = c.size("n_embd", limits::WIDTH)?;
    let context = c.size("n_positions", limits::CONTEXT)?;
    let norm = NormSpec::Layer { eps: c.positive("layer_norm_epsilon")? as f32 };
    c.only("scale_attn_by_inverse_layer_idx", false)?;
    let layer = LayerSpec {
        mixer: Mixer::Attention(attention(c, width)?),
        ffn: Ffn::Dense {
            act: decoder::activation(c, "activation_function")?,
            d_ff: c.size_if("n_inner", limits::D_FF)?.unwrap_or(4 * width),
            bias: FfnBias::All,
        },
        residual: Residual::PreNorm { mixer: norm, ffn: norm },
    };
    Ok(ArchSpec {
        family: "gpt2",
        vocab: c.size("vocab_size", limits::VOCAB)?,
        width,
        context,
        embed: EmbedSpec { positions: Positions::Learned { count: context } },
        layers: vec![layer; c.size("n_layer", limits::LAYERS)?],
        final_norm: norm,
        head: decoder::head(c, true)?,
    })
}

fn attention(c: &Config, width: usize) -> Result<AttnSpec> {
    let heads = c.size("n_head", limits::HEADS)?;
    let head_dim = decoder::split_width(c, "n_head", width, heads)?;
    let scaled = c.flag_or("scale_attn_weights", true)?;
    Ok(AttnSpec {
        q_heads: heads,
        kv_heads: heads,
        head_dim,
        scale: if scaled { (1.0 / (head_dim as f64).sqrt()) as f32 } else { 1.0 },
        bias: AttnBias::All,
        qk_norm: None,
        rope: None,
        reach: Reach::Full,
    })
}
