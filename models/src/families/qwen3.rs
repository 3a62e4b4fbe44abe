//! Qwen 3 (dense): Llama's shape with RMSNorm on query and key heads, and windows on some layers.
//!
//! Source: transformers, `models/qwen3`.

use super::Family;
use super::decoder::{self, Choices, Missing, QkNorm};
use crate::config::Config;
use crate::error::Result;
use crate::spec::{ArchSpec, AttnBias, FfnBias, Reach};

/// `model_type` qwen3.
pub const FAMILY: Family =
    Family { model_type: "qwen3", architecture: "Qwen3ForCausalLM", spec, names: decoder::NAMES, inert: &[] };

/// Elements per head of a config that does not say, as in transformers.
const DEFAULT_HEAD_DIM: usize = 128;

fn spec(c: &Config) -> Result<ArchSpec> {
    let windows = decoder::optional_windows(c)?;
    let choices = Choices {
        family: "qwen3",
        kv_heads: Missing::Refused,
        head_dim: Some(DEFAULT_HEAD_DIM),
        attn_bias: if c.flag_or("attention_bias", false)? { AttnBias::All } else { AttnBias::None },
        ffn_bias: FfnBias::None,
        qk_norm: QkNorm::PerHead,
    };
    decoder::spec(c, &choices, |i| windows.get(i).copied().unwrap_or(Reach::Full))
}
