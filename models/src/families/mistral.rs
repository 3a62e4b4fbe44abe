//! Mistral: Llama's shape with a sliding window on every layer.
//!
//! Source: transformers, `models/mistral`.

use super::Family;
use super::decoder::{self, Choices, Missing, QkNorm};
use crate::config::{Config, limits};
use crate::error::Result;
use crate::spec::{ArchSpec, AttnBias, FfnBias, Reach};

/// `model_type` mistral.
pub const FAMILY: Family =
    Family { model_type: "mistral", architecture: "MistralForCausalLM", spec, names: decoder::NAMES, inert: &[] };

/// Window of a config that does not mention one, as in transformers; `null` means none.
const DEFAULT_WINDOW: usize = 4096;

fn spec(c: &Config) -> Result<ArchSpec> {
    let window = match c.size_if("sliding_window", limits::CONTEXT)? {
        None if !c.mentions("sliding_window") => Some(DEFAULT_WINDOW),
        window => window,
    };
    let choices = Choices {
        family: "mistral",
        kv_heads: Missing::Refused,
        head_dim: None,
        attn_bias: AttnBias::None,
        ffn_bias: FfnBias::None,
        qk_norm: QkNorm::None,
    };
    decoder::spec(c, &choices, |_| window.map_or(Reach::Full, Reach::Window))
}
