//! Qwen 2 and 2.5: Llama's shape with a bias on Q, K and V, and windows on some layers.
//!
//! Source: transformers, `models/qwen2`.

use super::Family;
use super::decoder::{self, Choices, Missing, QkNorm};
use crate::config::Config;
use crate::error::Result;
use crate::spec::{ArchSpec, AttnBias, FfnBias, Reach};

/// `model_type` qwen2.
pub const FAMILY: Family =
    Family { model_type: "qwen2", architecture: "Qwen2ForCausalLM", spec, names: decoder::NAMES, inert: &[] };

fn spec(c: &Config) -> Result<ArchSpec> {
    let windows = decoder::optional_windows(c)?;
    let choices = Choices {
        family: "qwen2",
        kv_heads: Missing::Refused,
        head_dim: None,
        attn_bias: AttnBias::Qkv,
        ffn_bias: FfnBias::None,
        qk_norm: QkNorm::None,
    };
    decoder::spec(c, &choices, |i| windows.get(i).copied().unwrap_or(Reach::Full))
}
