//! Causal attention of each token to the cached positions of its own sequence.
//!
//! Query head `h` uses key and value head `h / (Hq / H)` (grouped queries, arXiv 2305.13245).

use super::common::{Args, bad, cache, dot, floats, ints, kv_position_bytes, traffic};
use super::{Cost, Op, Real, Sizes, tensor};
use crate::error::{Error, Result};
use crate::interp::{KvCache, RtValue};
use crate::types::{DType, Dim, TensorType, Type};

/// Type rule: `(q f32[n,Hq,hd], kv, positions i32[n], seqs i32[n]) -> f32[n,Hq,hd]`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Attention { scale, window, softcap } = op else { return Err(bad(op, "is not attention")) };
    let args = Args::new(op, operands, &["q", "kv", "positions", "seqs"])?;
    check_attributes(op, *scale, *window, *softcap)?;
    let (rows, ..) = check_operands(&args)?;
    let index = TensorType::new(DType::I32, [rows]);
    args.exactly(2, &index)?;
    args.exactly(3, &index)?;
    Ok(vec![operands[0].clone()])
}

/// Checks queries against the cache: number of tokens, query heads, elements of a head.
pub(super) fn check_operands(args: &Args<'_>) -> Result<(Dim, usize, usize)> {
    let (rows, heads, head_dim) = args.heads(0)?;
    let kv = args.kv(1)?;
    if kv.head_dim != head_dim || heads % kv.heads != 0 {
        return Err(args.wrong(1, format_args!("heads that divide {heads}, of {head_dim} elements as in q")));
    }
    Ok((rows, heads, head_dim))
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::Attention { scale, window, softcap } = op else { return Err(bad(op, "is not attention")) };
    let (q, kv) = (tensor(operands, 0)?, cache(operands, 1)?);
    let (positions, seqs) = (ints(operands, 2)?, ints(operands, 3)?);
    let (heads, head_dim) = (q.shape[1], q.shape[2]);
    let mut out = Vec::with_capacity(q.as_f32()?.len());
    for (t, queries) in floats(operands, 0)?.chunks_exact(heads * head_dim).enumerate() {
        let seen = visible(kv, seqs[t], positions[t], *window)?;
        for (h, query) in queries.chunks_exact(head_dim).enumerate() {
            let first = h / (heads / kv.ty.heads) * head_dim;
            attend(query, &seen, first, *scale, *softcap, &mut out);
        }
    }
    Ok(vec![RtValue::Tensor(crate::tensor::Tensor::f32(&q.shape, out))])
}

/// Bytes and flops: every token reads its context.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    let Op::Attention { window, .. } = op else { return Cost::default() };
    let Some(Type::Kv(kv)) = operands.get(1) else { return Cost::default() };
    let context = window.map_or(sizes.context, |w| w.min(sizes.context)) as f64;
    let mut cost = traffic(operands, &[operands[0].clone()], sizes);
    cost.memory_bytes += sizes.tokens as f64 * context * kv_position_bytes(*kv);
    cost.flops = operands[0].tensor().map_or(0.0, |q| 4.0 * super::common::elements(q, sizes) * context);
    cost
}

/// Checks what all kinds of attention have.
pub(super) fn check_attributes(op: &Op, scale: Real, window: Option<usize>, softcap: Option<Real>) -> Result<()> {
    if !scale.get().is_finite() {
        return Err(bad(op, format!("scale={scale:?} is not finite")));
    }
    if window == Some(0) {
        return Err(bad(op, "window=0, expected at least 1 position"));
    }
    match softcap {
        Some(c) if !(c.get().is_finite() && c.get() > 0.0) => Err(bad(op, format!("softcap={c:?}, expected above 0"))),
        _ => Ok(()),
    }
}

type Row = (Vec<f32>, Vec<f32>);

/// Keys and values that a token at `position` sees, in the order of their positions.
fn visible(kv: &KvCache, seq: i32, position: i32, window: Option<usize>) -> Result<Vec<&Row>> {
    let reach = window.map_or(i64::MAX, |w| i64::try_from(w).unwrap_or(i64::MAX));
    let first = i64::from(position).saturating_sub(reach).saturating_add(1).max(i64::from(i32::MIN)) as i32;
    let seen: Vec<&Row> = kv.rows.range((seq, first)..=(seq, position)).map(|(_, row)| row).collect();
    if seen.is_empty() {
        return Err(Error::Interp(format!("sequence {seq} has no cached position up to {position}")));
    }
    Ok(seen)
}

/// The score of a query with a key that it sees.
pub(super) fn visible_score(query: &[f32], key: &[f32], scale: Real, softcap: Option<Real>) -> f64 {
    let s = dot(query, key) * f64::from(scale.get());
    softcap.map_or(s, |c| f64::from(c.get()) * libm::tanh(s / f64::from(c.get())))
}

/// Softmax of the scores of one head, times the values. `first` is where the head starts in a row.
fn attend(query: &[f32], seen: &[&Row], first: usize, scale: Real, softcap: Option<Real>, out: &mut Vec<f32>) {
    let range = first..first + query.len();
    let scores: Vec<f64> =
        seen.iter().map(|(key, _)| visible_score(query, &key[range.clone()], scale, softcap)).collect();
    let values: Vec<&[f32]> = seen.iter().map(|(_, value)| &value[range.clone()]).collect();
    mix(&scores, &values, out);
}

/// Appends the values weighted by the softmax of the scores.
pub(super) fn mix(scores: &[f64], values: &[&[f32]], out: &mut Vec<f32>) {
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| libm::exp(s - highest)).collect();
    let total: f64 = weights.iter().sum();
    let mut sums = vec![0f64; values.first().map_or(0, |v| v.len())];
    for (weight, value) in weights.iter().zip(values) {
        for (sum, v) in sums.iter_mut().zip(*value) {
            *sum += weight * f64::from(*v);
        }
    }
    out.extend(sums.iter().map(|s| (s / total) as f32));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, cost, f, failure, i, infer, run};
    use crate::interp::{KvCache, RtValue};
    use crate::types::{DType, KvType};

    const LN_3: f32 = 1.098_612_3;

    /// Sequence 7: two positions; sequence 8: values that must not be seen.
    fn kv() -> RtValue {
        let ty = KvType { dtype: DType::F32, heads: 1, head_dim: 2 };
        let mut kv = KvCache::new(ty);
        kv.rows.insert((7, 0), (vec![0., 0.], vec![4., 0.]));
        kv.rows.insert((7, 1), (vec![1., 0.], vec![8., 4.]));
        kv.rows.insert((8, 0), (vec![9., 9.], vec![99., 99.]));
        RtValue::Kv(kv)
    }

    fn attend_at(attributes: &str, position: i32) -> Vec<f32> {
        let q = f(&[1, 1, 2], &[LN_3, 5.0]);
        run(&format!("attention{{{attributes}}}"), &[q, kv(), i(&[position]), i(&[7])])
    }

    #[test]
    fn weighs_the_values_seen() {
        close(&attend_at("scale=1.0, window=none, softcap=none", 1), &[7., 3.]);
        close(&attend_at("scale=0.0, window=none, softcap=none", 1), &[6., 2.]);
        close(&attend_at("scale=1.0, window=none, softcap=none", 0), &[4., 0.]);
        close(&attend_at("scale=1.0, window=1, softcap=none", 1), &[8., 4.]);
        close(&attend_at("scale=1.0, window=2, softcap=none", 1), &[7., 3.]);
        close(&attend_at("scale=1.0, window=none, softcap=1.0", 1), &[6.759_898, 2.759_898]);
    }

    #[test]
    fn query_heads_share_key_heads_in_order() {
        let mut cache = KvCache::new(KvType { dtype: DType::F32, heads: 2, head_dim: 1 });
        cache.rows.insert((0, 0), (vec![0., 0.], vec![1., 2.]));
        let operands = [f(&[1, 4, 1], &[0.; 4]), RtValue::Kv(cache), i(&[0]), i(&[0])];
        assert_eq!(run("attention{scale=1.0, window=none, softcap=none}", &operands), [1., 1., 2., 2.]);
    }

    #[test]
    fn an_empty_context_is_an_error() {
        let operands = [f(&[1, 1, 2], &[0.; 2]), kv(), i(&[i32::MIN]), i(&[7])];
        let error = failure("attention{scale=1.0, window=3, softcap=none}", &operands);
        assert!(error.contains("no cached position"), "{error}");
    }

    #[test]
    fn types_and_cost() {
        let plain = "attention{scale=1.0, window=none, softcap=none}";
        let types = ["f32[T,4,2]", "kv<f16,2,2>", "i32[T]", "i32[T]"];
        assert_eq!(infer(plain, &types), "f32[T,4,2]");
        assert_eq!(cost(plain, &types), (2.0 * 5.0 * 16.0, 128.0 + 16.0, 4.0 * 16.0 * 5.0));
        assert!(infer(plain, &["f32[T,3,2]", "kv<f16,2,2>", "i32[T]", "i32[T]"]).contains("heads that divide 3"));
        assert!(infer("attention{scale=1.0, window=0, softcap=none}", &types).contains("window=0"));
        assert!(infer("attention{scale=1.0, window=none, softcap=0.0}", &types).contains("above 0"));
    }
}
