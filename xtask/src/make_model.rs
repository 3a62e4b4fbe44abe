//! Random-weight checkpoints of real shapes, for measuring what does not depend on the weights.

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// A shape to write.
struct Shape {
    name: &'static str,
    model_type: &'static str,
    architecture: &'static str,
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab: usize,
    context: usize,
    theta: f64,
    tied: bool,
    qk_norm: bool,
    eps: f64,
}

#[rustfmt::skip]
const SHAPES: [Shape; 5] = [
    Shape { name: "llama-1b", model_type: "llama", architecture: "LlamaForCausalLM", hidden: 2048, ffn: 8192, layers: 16, heads: 32,
            kv_heads: 8, head_dim: 64, vocab: 128256, context: 131072, theta: 5e5, tied: true, qk_norm: false, eps: 1e-5 },
    Shape { name: "qwen3-0.6b", model_type: "qwen3", architecture: "Qwen3ForCausalLM", hidden: 1024, ffn: 3072, layers: 28, heads: 16,
            kv_heads: 8, head_dim: 128, vocab: 151936, context: 40960, theta: 1e6, tied: true, qk_norm: true, eps: 1e-6 },
    Shape { name: "llama-8b", model_type: "llama", architecture: "LlamaForCausalLM", hidden: 4096, ffn: 14336, layers: 32, heads: 32,
            kv_heads: 8, head_dim: 128, vocab: 128256, context: 131072, theta: 5e5, tied: false, qk_norm: false, eps: 1e-5 },
    // One layer of two of them, with few tokens.
    Shape { name: "llama-1b-layer", model_type: "llama", architecture: "LlamaForCausalLM", hidden: 2048, ffn: 8192, layers: 1, heads: 32,
            kv_heads: 8, head_dim: 64, vocab: 4096, context: 131072, theta: 5e5, tied: true, qk_norm: false, eps: 1e-5 },
    Shape { name: "llama-8b-layer", model_type: "llama", architecture: "LlamaForCausalLM", hidden: 4096, ffn: 14336, layers: 1, heads: 32,
            kv_heads: 8, head_dim: 128, vocab: 4096, context: 131072, theta: 5e5, tied: false, qk_norm: false, eps: 1e-5 },
];

/// Bytes of weights in a shard.
const SHARD_BYTES: usize = 4 << 30;
/// Elements written at a time.
const CHUNK: usize = 1 << 22;

/// What tensors hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// Numbers that look random.
    Random,
    /// Nothing: a hole in the file, which takes no room on the disk.
    Zeros,
}

/// Writes the checkpoint `name` into `folder`.
pub fn run(name: &str, folder: &Path, of: Weights) -> Result<()> {
    let Some(shape) = SHAPES.iter().find(|s| s.name == name) else {
        bail!("unknown shape {name}; known are {}", SHAPES.map(|s| s.name).join(", "));
    };
    std::fs::create_dir_all(folder)?;
    let write = |file: &str, text: String| std::fs::write(folder.join(file), text).with_context(|| file.to_owned());
    write("config.json", format!("{:#}\n", config(shape)))?;
    eprintln!("tokenizer of {} entries", shape.vocab);
    write("tokenizer.json", llmc_models::tokenizer::synthetic(shape.vocab))?;
    write("generation_config.json", format!("{:#}\n", json!({ "eos_token_id": shape.vocab - 1 })))?;
    weights(shape, folder, of)?;
    eprintln!("wrote {}", folder.display());
    Ok(())
}

fn config(s: &Shape) -> Value {
    json!({
        "architectures": [s.architecture], "model_type": s.model_type, "vocab_size": s.vocab, "hidden_size": s.hidden,
        "intermediate_size": s.ffn, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads, "head_dim": s.head_dim, "hidden_act": "silu",
        "max_position_embeddings": s.context, "rms_norm_eps": s.eps, "rope_theta": s.theta,
        "tie_word_embeddings": s.tied, "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": s.vocab - 1,
    })
}

/// Names and shapes of the tensors.
fn tensors(s: &Shape) -> Vec<(String, Vec<usize>)> {
    let (q, kv) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
    let mut out = vec![("model.embed_tokens.weight".to_owned(), vec![s.vocab, s.hidden])];
    for i in 0..s.layers {
        let mut layer = vec![
            ("input_layernorm", vec![s.hidden]),
            ("self_attn.q_proj", vec![q, s.hidden]),
            ("self_attn.k_proj", vec![kv, s.hidden]),
            ("self_attn.v_proj", vec![kv, s.hidden]),
            ("self_attn.o_proj", vec![s.hidden, q]),
            ("post_attention_layernorm", vec![s.hidden]),
            ("mlp.gate_proj", vec![s.ffn, s.hidden]),
            ("mlp.up_proj", vec![s.ffn, s.hidden]),
            ("mlp.down_proj", vec![s.hidden, s.ffn]),
        ];
        if s.qk_norm {
            layer.extend([("self_attn.q_norm", vec![s.head_dim]), ("self_attn.k_norm", vec![s.head_dim])]);
        }
        out.extend(layer.into_iter().map(|(n, shape)| (format!("model.layers.{i}.{n}.weight"), shape)));
    }
    out.push(("model.norm.weight".into(), vec![s.hidden]));
    if !s.tied {
        out.push(("lm_head.weight".into(), vec![s.vocab, s.hidden]));
    }
    out
}

fn weights(s: &Shape, folder: &Path, of: Weights) -> Result<()> {
    let mut shards: Vec<Vec<(String, Vec<usize>)>> = vec![vec![]];
    let mut used = 0;
    for (name, shape) in tensors(s) {
        let bytes = 2 * shape.iter().product::<usize>();
        if used + bytes > SHARD_BYTES {
            shards.push(vec![]);
            used = 0;
        }
        used += bytes;
        shards.last_mut().expect("a shard").push((name, shape));
    }
    if let [only] = shards.as_slice() {
        return shard(&folder.join("model.safetensors"), only, of);
    }
    let mut map = serde_json::Map::new();
    for (i, tensors) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        shard(&folder.join(&file), tensors, of)?;
        map.extend(tensors.iter().map(|(n, _)| (n.clone(), Value::from(file.as_str()))));
    }
    let index = json!({ "metadata": {}, "weight_map": map });
    std::fs::write(folder.join("model.safetensors.index.json"), format!("{index:#}\n")).context("index")
}

fn shard(path: &Path, tensors: &[(String, Vec<usize>)], of: Weights) -> Result<()> {
    eprintln!("{}", path.display());
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (name, shape) in tensors {
        let end = offset + 2 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({ "dtype": "BF16", "shape": shape, "data_offsets": [offset, end] }));
        offset = end;
    }
    let mut text = Value::Object(header).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(text.as_bytes())?;
    if of == Weights::Zeros {
        let end = 8 + text.len() + offset;
        return Ok(out.into_inner().map_err(|e| e.into_error())?.set_len(end as u64)?);
    }
    let normal = normal_table();
    for (i, (name, shape)) in tensors.iter().enumerate() {
        let n: usize = shape.iter().product();
        let norm = shape.len() == 1;
        for start in (0..n).step_by(CHUNK) {
            let bytes = chunk(&normal, norm, (i as u64) << 40 | start as u64, CHUNK.min(n - start));
            out.write_all(&bytes).with_context(|| name.clone())?;
        }
    }
    out.flush()?;
    Ok(())
}

/// 4096 values of a normal distribution with deviation 0.02, as bf16.
fn normal_table() -> Vec<u16> {
    let uniform = |i: u64| (mix(i) >> 11) as f64 / (1u64 << 53) as f64;
    (0..4096u64)
        .map(|i| {
            let sum: f64 = (0..12).map(|j| uniform(i * 12 + j)).sum();
            (((sum - 6.0) * 0.02) as f32).to_bits().wrapping_add(0x8000) >> 16
        })
        .map(|bits| bits as u16)
        .collect()
}

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// `n` elements: ones for a norm, else picks from the table.
fn chunk(normal: &[u16], norm: bool, seed: u64, n: usize) -> Vec<u8> {
    let mut out = vec![0u8; 2 * n];
    out.par_chunks_mut(2 * 4096).enumerate().for_each(|(block, out)| {
        for (i, o) in out.chunks_exact_mut(2).enumerate() {
            let bits = match norm {
                true => 0x3f80,
                false => normal[(mix(seed.wrapping_add((block * 4096 + i) as u64)) & 4095) as usize],
            };
            o.copy_from_slice(&bits.to_le_bytes());
        }
    });
    out
}
