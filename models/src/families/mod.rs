//! Model families: what a config means and what its tensors are called.
//!
//! A family is one file and one line in [`FAMILIES`]. It maps config.json to a spec and lists the
//! names of its tensors; it never builds graph nodes and knows nothing of formats.

pub mod decoder;
pub mod gpt2;
pub mod llama;
pub mod mistral;
pub mod qwen2;
pub mod qwen3;

use crate::bind::Names;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::spec::ArchSpec;

/// A family of models.
#[derive(Debug)]
pub struct Family {
    /// `model_type` in config.json.
    pub model_type: &'static str,
    /// The class in `architectures` that llmc compiles.
    pub architecture: &'static str,
    /// Reads the config.
    pub spec: fn(&Config) -> Result<ArchSpec>,
    /// Names of the tensors.
    pub names: Names,
    /// Keys of config.json that do not change what this family computes.
    pub inert: &'static [&'static str],
}

/// Every family, by `model_type`.
pub const FAMILIES: [&Family; 5] = [&gpt2::FAMILY, &llama::FAMILY, &mistral::FAMILY, &qwen2::FAMILY, &qwen3::FAMILY];

/// Keys that change nothing in any family: bookkeeping, training, and defaults of generation.
const INERT: &[&str] = &[
    "_commit_hash",
    "_from_model_config",
    "_name_or_path",
    "_num_labels",
    "attention_dropout",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "bos_token_id",
    "chunk_size_feed_forward",
    "do_sample",
    "dtype",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "label2id",
    "license",
    "max_length",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "problem_type",
    "repetition_penalty",
    "return_dict",
    "sep_token_id",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
];

/// The family of a config and its spec.
///
/// # Errors
/// [`Error::Key`] for an unknown family, a missing or senseless key, or one llmc does not
/// understand; [`Error::Unsupported`] for a quantized checkpoint.
pub fn read(config: &Config) -> Result<(&'static Family, ArchSpec)> {
    let model_type = config.text("model_type")?;
    let family = FAMILIES.iter().find(|f| f.model_type == model_type).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|f| f.model_type).collect();
        config.error("model_type", format!("is {model_type:?}; llmc knows {}", known.join(", ")))
    })?;
    if let Some(classes) = config.texts_if("architectures")?
        && !classes.contains(&family.architecture)
    {
        let message = format!("is {classes:?}; of {model_type} models llmc compiles {}", family.architecture);
        return Err(config.error("architectures", message));
    }
    refuse_quantized(config)?;
    for absent in ["is_encoder_decoder", "is_decoder", "add_cross_attention"] {
        config.only(absent, false)?;
    }
    let spec = (family.spec)(config)?;
    config.finish(&[INERT, family.inert])?;
    Ok((family, spec))
}

fn refuse_quantized(config: &Config) -> Result<()> {
    let key = "quantization_config";
    let Some(quantization) = config.get(key) else { return Ok(()) };
    let method = quantization.get("quant_method").and_then(|m| m.as_str()).unwrap_or("unknown method");
    Err(Error::Unsupported {
        path: config.path().into(),
        what: format!("{key} ({}): quantized checkpoints are", crate::error::quoted(method)),
        advice: "use the model's unquantized checkpoint".into(),
    })
}
