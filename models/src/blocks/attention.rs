//! Softmax attention over the layer's KV cache.

use super::{BlockBuilder, per_token, rope};
use crate::error::Result;
use crate::spec::{AttnBias, AttnSpec, Pairing, Reach, RopeSpec};
use llmc_abi::manifest::PAGE_POSITIONS;
use llmc_ir::ops::Real;
use llmc_ir::{Op, Value};

/// `o(attend(q(x), kv_append(kv, k(x), v(x))))`; `x` is `f32[T, width]`, rounded already. Writes
/// `kv`. `ropes` are the tables of the step.
pub fn attention(b: &mut BlockBuilder, a: &AttnSpec, ropes: &[&RopeSpec], x: Value) -> Result<Value> {
    let q = heads(b, a, ropes, "q", a.q_heads, x)?;
    let k = heads(b, a, ropes, "k", a.kv_heads, x)?;
    let v = split(b, a, "v", a.kv_heads, x)?;
    let kv = b.kv_input(a.kv_heads, a.head_dim)?;
    let (positions, seqs) = (b.token_input("positions")?, b.token_input("seqs")?);
    let kv = b.push(Op::KvAppend {}, &[kv, k, v, positions, seqs])?;
    let window = match a.reach {
        Reach::Full => None,
        Reach::Window(n) => Some(n),
    };
    let scale = Real::new(a.scale);
    let mixed = match (b.keep(), &a.rope) {
        (Some(keep), Some(rope)) => {
            let turns = rope::turns(b, rope, keep.pages())?;
            let op = Op::SinkAttention {
                scale,
                softcap: None,
                reach: window,
                page: PAGE_POSITIONS,
                sinks: keep.sinks,
                window: keep.window,
                rotary_dim: rope.rotary_dim,
                interleaved: interleaved(rope),
                counted: keep.by_use,
            };
            b.push(op, &[q, kv, positions, seqs, turns])?
        }
        _ => b.push(Op::Attention { scale, window, softcap: None }, &[q, kv, positions, seqs])?,
    };
    let rows = b.push(Op::Reshape { shape: per_token(&[a.q_heads * a.head_dim]).shape }, &[mixed])?;
    let rows = b.round(rows)?;
    b.output("kv", kv);
    b.project("attn.o", a.bias == AttnBias::All, rows)
}

/// A projection as `f32[T, heads, head_dim]`.
fn split(b: &mut BlockBuilder, a: &AttnSpec, which: &str, heads: usize, x: Value) -> Result<Value> {
    let y = b.project(&format!("attn.{which}"), a.bias != AttnBias::None, x)?;
    b.push(Op::Reshape { shape: per_token(&[heads, a.head_dim]).shape }, &[y])
}

/// Query or key heads, normed and rotated.
fn heads(
    b: &mut BlockBuilder,
    a: &AttnSpec,
    ropes: &[&RopeSpec],
    which: &str,
    heads: usize,
    x: Value,
) -> Result<Value> {
    let mut y = split(b, a, which, heads, x)?;
    if let Some(norm) = a.qk_norm {
        y = b.norm(norm, &format!("attn.{which}_norm"), y)?;
    }
    let Some(spec) = &a.rope else { return Ok(y) };
    let index = ropes.iter().position(|r| *r == spec).unwrap_or(0);
    let table = b.input(&rope::value_name(index), per_token(&[spec.rotary_dim]).into())?;
    b.push(Op::Rope { rotary_dim: spec.rotary_dim, interleaved: interleaved(spec) }, &[y, table])
}

/// Whether neighbouring elements rotate together.
fn interleaved(rope: &RopeSpec) -> bool {
    match rope.pairing {
        Pairing::Halves => false,
    }
}
