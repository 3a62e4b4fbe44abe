//! Llama 1 to 3 and the many models that took its shape.
//!
//! Source: transformers, `models/llama`.

use super::Family;
use super::decoder::{self, Choices, Missing, QkNorm};
use crate::config::Config;
use crate::error::Result;
use crate::spec::{ArchSpec, AttnBias, FfnBias, Reach};

/// `model_type` llama.
pub const FAMILY: Family =
    Family { model_type: "llama", architecture: "LlamaForCausalLM", spec, names: decoder::NAMES, inert: &[] };

fn spec(c: &Config) -> Result<ArchSpec> {
    c.only("pretraining_tp", 1)?;
    c.only("is_llama_config", true)?;
    c.only("rope_interleaved", false)?;
    let choices = Choices {
        family: "llama",
        kv_heads: Missing::Same,
        head_dim: None,
        attn_bias: if c.flag_or("attention_bias", false)? { AttnBias::All } else { AttnBias::None },
        ffn_bias: if c.flag_or("mlp_bias", false)? { FfnBias::All } else { FfnBias::None },
        qk_norm: QkNorm::None,
    };
    decoder::spec(c, &choices, |_| Reach::Full)
}
