//! A checkpoint of `make-model` as a GGUF file (format version 3, as specified in ggml's docs/gguf.md), for
//! measuring other programs on the same weights. Heads are not permuted, as only time is measured.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write, copy};
use std::path::Path;

/// What the data of tensors is aligned to.
const ALIGN: u64 = 32;
/// Types of values.
const U32: u32 = 4;
const F32: u32 = 6;
const STRING: u32 = 8;
/// Types of tensors.
const TENSOR_F32: u32 = 0;
const TENSOR_BF16: u32 = 30;

/// Names of a layer's weights: in the checkpoint, and in the file.
const LAYER: [(&str, &str); 9] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
const ENDS: [(&str, &str); 3] =
    [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// A tensor of the checkpoint, in bf16.
struct Tensor {
    name: String,
    shape: Vec<u64>,
    /// Its bytes in the checkpoint.
    from: (u64, u64),
}

impl Tensor {
    /// Norms are read as f32.
    fn is_vector(&self) -> bool {
        self.shape.len() == 1
    }

    fn bytes(&self) -> u64 {
        (self.from.1 - self.from.0) * if self.is_vector() { 2 } else { 1 }
    }
}

/// Writes the model in `folder`, of Llama's architecture and in one file, to `path`.
pub fn write(folder: &Path, path: &Path) -> Result<()> {
    let config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    if config["model_type"] != "llama" {
        bail!("{}: only models of type llama are measured beside others", folder.display());
    }
    let mut checkpoint = BufReader::new(File::open(folder.join("model.safetensors")).context("model.safetensors")?);
    let tensors = tensors(&mut checkpoint)?;
    let mut out = BufWriter::new(File::create(path).with_context(|| path.display().to_string())?);
    let head = head(&config, &tensors)?;
    out.write_all(&head)?;
    pad(&mut out, head.len() as u64)?;
    for tensor in &tensors {
        checkpoint.seek(SeekFrom::Start(tensor.from.0))?;
        let mut data = (&mut checkpoint).take(tensor.from.1 - tensor.from.0);
        if tensor.is_vector() {
            let mut bytes = Vec::new();
            data.read_to_end(&mut bytes)?;
            for pair in bytes.chunks_exact(2) {
                out.write_all(&[0, 0, pair[0], pair[1]])?;
            }
        } else {
            copy(&mut data, &mut out)?;
        }
        pad(&mut out, tensor.bytes())?;
    }
    Ok(out.flush()?)
}

fn pad(out: &mut impl Write, written: u64) -> Result<()> {
    let zeros = [0; ALIGN as usize];
    Ok(out.write_all(&zeros[..(written.next_multiple_of(ALIGN) - written) as usize])?)
}

fn tensors(checkpoint: &mut impl Read) -> Result<Vec<Tensor>> {
    let mut length = [0; 8];
    checkpoint.read_exact(&mut length)?;
    let mut header = vec![0; usize::try_from(u64::from_le_bytes(length))?];
    checkpoint.read_exact(&mut header)?;
    let data = 8 + header.len() as u64;
    let header: Value = serde_json::from_slice(&header)?;
    let entries =
        header.as_object().context("a safetensors header")?.iter().filter(|(name, _)| *name != "__metadata__");
    entries
        .map(|(name, entry)| {
            if entry["dtype"] != "BF16" {
                bail!("{name} is in {}, bf16 is expected", entry["dtype"]);
            }
            let numbers = |v: &Value| v.as_array().map(|l| l.iter().filter_map(Value::as_u64).collect::<Vec<_>>());
            let shape = numbers(&entry["shape"]).context("a tensor has a shape")?;
            let offsets = numbers(&entry["data_offsets"]).filter(|l| l.len() == 2).context("a tensor has offsets")?;
            Ok(Tensor { name: renamed(name)?, shape, from: (data + offsets[0], data + offsets[1]) })
        })
        .collect()
}

/// `model.layers.3.mlp.up_proj.weight` as `blk.3.ffn_up.weight`.
fn renamed(name: &str) -> Result<String> {
    let unknown = || format!("{name} has no name in GGUF");
    let stem = name.strip_suffix(".weight").with_context(unknown)?;
    if let Some((_, new)) = ENDS.iter().find(|(old, _)| *old == stem) {
        return Ok(format!("{new}.weight"));
    }
    let (layer, part) = stem.strip_prefix("model.layers.").and_then(|r| r.split_once('.')).with_context(unknown)?;
    let (_, new) = LAYER.iter().find(|(old, _)| *old == part).with_context(unknown)?;
    Ok(format!("blk.{layer}.{new}.weight"))
}

/// Everything before the data.
fn head(config: &Value, tensors: &[Tensor]) -> Result<Vec<u8>> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    let values = values(config)?;
    out.extend((values.len() as u64).to_le_bytes());
    for (key, kind, value) in values {
        string(&mut out, key);
        out.extend(kind.to_le_bytes());
        out.extend(value);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        string(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|d| out.extend(d.to_le_bytes()));
        out.extend(if tensor.is_vector() { TENSOR_F32 } else { TENSOR_BF16 }.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGN);
    }
    Ok(out)
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn values(config: &Value) -> Result<Vec<(&'static str, u32, Vec<u8>)>> {
    let number = |key: &str| config[key].as_u64().with_context(|| format!("config.json lacks {key}"));
    let integer = |key: &str| Ok::<_, anyhow::Error>(u32::try_from(number(key)?)?.to_le_bytes().to_vec());
    let float = |key: &str| {
        let value = config[key].as_f64().with_context(|| format!("config.json lacks {key}"))?;
        Ok::<_, anyhow::Error>((value as f32).to_le_bytes().to_vec())
    };
    let text = |text: &str| {
        let mut out = Vec::new();
        string(&mut out, text);
        out
    };
    Ok(vec![
        ("general.architecture", STRING, text("llama")),
        ("general.file_type", U32, 32u32.to_le_bytes().to_vec()),
        ("llama.context_length", U32, integer("max_position_embeddings")?),
        ("llama.embedding_length", U32, integer("hidden_size")?),
        ("llama.block_count", U32, integer("num_hidden_layers")?),
        ("llama.feed_forward_length", U32, integer("intermediate_size")?),
        ("llama.attention.head_count", U32, integer("num_attention_heads")?),
        ("llama.attention.head_count_kv", U32, integer("num_key_value_heads")?),
        ("llama.attention.layer_norm_rms_epsilon", F32, float("rms_norm_eps")?),
        ("llama.rope.freq_base", F32, float("rope_theta")?),
        ("llama.rope.dimension_count", U32, integer("head_dim")?),
        ("llama.vocab_size", U32, integer("vocab_size")?),
        ("tokenizer.ggml.model", STRING, text("no_vocab")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_renamed() {
        let name = |old: &str| renamed(old).ok();
        assert_eq!(name("model.layers.12.mlp.up_proj.weight").as_deref(), Some("blk.12.ffn_up.weight"));
        assert_eq!(name("model.norm.weight").as_deref(), Some("output_norm.weight"));
        assert_eq!((name("model.layers.1.router.weight"), name("model.norm.bias")), (None, None));
    }

    #[test]
    fn data_begins_where_the_head_says() {
        let tensor = |name: &str, shape: &[u64], from| Tensor { name: name.into(), shape: shape.to_vec(), from };
        let tensors = [tensor("a", &[3], (10, 16)), tensor("b", &[2, 5], (16, 36))];
        let config = serde_json::json!({
            "max_position_embeddings": 1, "hidden_size": 1, "num_hidden_layers": 1, "intermediate_size": 1,
            "num_attention_heads": 1, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "head_dim": 1,
            "vocab_size": 1,
        });
        let head = head(&config, &tensors).expect("complete");
        // The vector of three becomes 12 bytes of f32, padded to 32: the matrix begins there.
        assert_eq!(head[head.len() - 8..], 32u64.to_le_bytes());
        assert_eq!(head[head.len() - 28..head.len() - 12], [5u64.to_le_bytes(), 2u64.to_le_bytes()].concat());
        assert!(super::head(&serde_json::json!({}), &tensors).is_err());
    }
}
