//! Attention to the first and the last pages of a sequence of any length (attention sinks, arXiv 2309.17453).
//!
//! Positions are those within what is seen, so they stay in the range the model was trained for. A rotary
//! embedding of a position is that of its place in the page after that of its page, so queries and keys
//! arrive turned by their places in their pages, and the query is turned further by the number of pages
//! between it and the keys: no key is touched again when pages between are forgotten.

use super::attention::{mix, visible_score};
use super::common::{Args, bad, cache, floats, ints, kv_position_bytes, traffic};
use super::{Cost, Op, Sizes, tensor};
use crate::error::{Error, Result};
use crate::interp::{KvCache, RtValue};
use crate::types::{DType, Dim, TensorType, Type};

/// Type rule: `(q f32[n,Hq,hd], kv, positions i32[n], seqs i32[n], turns f32[(sinks+window)*r]) -> f32[n,Hq,hd]`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::SinkAttention { scale, softcap, reach, page, sinks, window, rotary_dim, .. } = op else {
        return Err(bad(op, "is not sink_attention"));
    };
    let args = Args::new(op, operands, &["q", "kv", "positions", "seqs", "turns"])?;
    super::attention::check_attributes(op, *scale, *reach, *softcap)?;
    let (rows, _, head_dim) = super::attention::check_operands(&args)?;
    if *page == 0 || *window == 0 {
        return Err(bad(op, format!("page={page}, window={window}, expected at least 1 each")));
    }
    if *rotary_dim == 0 || rotary_dim % 2 != 0 || *rotary_dim > head_dim {
        return Err(bad(op, format!("rotary_dim={rotary_dim}, expected an even number of at most {head_dim}")));
    }
    let turns = sinks.checked_add(*window).and_then(|pages| pages.checked_mul(*rotary_dim));
    let turns = turns.ok_or_else(|| bad(op, "has more pages than can be counted"))?;
    args.exactly(4, &TensorType::new(DType::F32, [Dim::Const(turns)]))?;
    let index = TensorType::new(DType::I32, [rows]);
    args.exactly(2, &index)?;
    args.exactly(3, &index)?;
    Ok(vec![operands[0].clone()])
}

/// A page that a token sees: its number in the sequence, and pages from it to the token's.
struct Seen {
    block: usize,
    distance: usize,
}

/// The pages that a token at `position` sees, in order.
fn seen(position: usize, page: usize, sinks: usize, window: usize) -> impl Iterator<Item = Seen> {
    let blocks = position / page + 1;
    let count = blocks.min(sinks + window);
    let forgotten = blocks - count;
    (0..count).map(move |i| Seen { block: if i < sinks { i } else { i + forgotten }, distance: count - 1 - i })
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::SinkAttention { scale, softcap, reach, page, sinks, window, rotary_dim, interleaved, .. } = op else {
        return Err(bad(op, "is not sink_attention"));
    };
    let (q, kv) = (tensor(operands, 0)?, cache(operands, 1)?);
    let (positions, seqs, turns) = (ints(operands, 2)?, ints(operands, 3)?, floats(operands, 4)?);
    let (heads, head_dim) = (q.shape[1], q.shape[2]);
    let mut out = Vec::with_capacity(q.as_f32()?.len());
    for (t, queries) in floats(operands, 0)?.chunks_exact(heads * head_dim).enumerate() {
        let position = usize::try_from(positions[t]).map_err(|_| empty(seqs[t], positions[t]))?;
        for (h, query) in queries.chunks_exact(head_dim).enumerate() {
            let first = h / (heads / kv.ty.heads) * head_dim;
            let (mut scores, mut values) = (Vec::new(), Vec::new());
            for Seen { block, distance } in seen(position, *page, *sinks, *window) {
                let angles = &turns[distance * rotary_dim..][..*rotary_dim];
                let turned = super::rope::turned(query, angles, *interleaved);
                let last = (block * page + page - 1).min(position);
                let unseen = reach.map_or(0, |reach| (position + 1).saturating_sub(reach));
                for place in (block * page).max(unseen)..=last {
                    let (key, value) = row(kv, seqs[t], place)?;
                    scores.push(visible_score(&turned, &key[first..first + head_dim], *scale, *softcap));
                    values.push(&value[first..first + head_dim]);
                }
            }
            mix(&scores, &values, &mut out);
        }
    }
    Ok(vec![RtValue::Tensor(crate::tensor::Tensor::f32(&q.shape, out))])
}

fn row(kv: &KvCache, seq: i32, place: usize) -> Result<&(Vec<f32>, Vec<f32>)> {
    let position = i32::try_from(place).map_err(|_| empty(seq, i32::MAX))?;
    kv.rows.get(&(seq, position)).ok_or_else(|| empty(seq, position))
}

fn empty(seq: i32, position: i32) -> Error {
    Error::Interp(format!("sequence {seq} has no cached position {position}"))
}

/// Bytes and flops: every token reads what it sees of its context.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    let Op::SinkAttention { reach, page, sinks, window, .. } = op else { return Cost::default() };
    let Some(Type::Kv(kv)) = operands.get(1) else { return Cost::default() };
    let kept = (sinks + window).saturating_mul(*page).min(reach.unwrap_or(usize::MAX));
    let context = kept.min(sizes.context) as f64;
    let mut cost = traffic(operands, &[operands[0].clone()], sizes);
    cost.memory_bytes += sizes.tokens as f64 * context * kv_position_bytes(*kv);
    cost.flops = operands[0].tensor().map_or(0.0, |q| 4.0 * super::common::elements(q, sizes) * context);
    cost
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, cost, f, failure, i, infer, run};
    use crate::interp::{KvCache, RtValue};
    use crate::types::{DType, KvType};

    /// Pages of two positions, one sink page, a window of two; half a turn for each page between.
    const ATTRIBUTES: &str = "sink_attention{scale=1.0, softcap=none, reach=none, page=2, sinks=1, window=2, \
                              rotary_dim=2, interleaved=false, counted=false}";

    fn kv(positions: i32) -> RtValue {
        let mut kv = KvCache::new(KvType { dtype: DType::F32, heads: 1, head_dim: 2 });
        for p in 0..positions {
            kv.rows.insert((0, p), (vec![0., 0.], vec![p as f32, 1.]));
        }
        RtValue::Kv(kv)
    }

    fn turns() -> RtValue {
        f(&[6], &[1., 0., -1., 0., 1., 0.])
    }

    fn attend(q: [f32; 2], kv: RtValue, position: i32) -> Vec<f32> {
        run(ATTRIBUTES, &[f(&[1, 1, 2], &q), kv, i(&[position]), i(&[0]), turns()])
    }

    #[test]
    fn sees_the_first_and_the_last_pages() {
        close(&attend([0., 0.], kv(10), 3), &[1.5, 1.]);
        close(&attend([0., 0.], kv(10), 5), &[2.5, 1.]);
        // Of the positions 2..=5 nothing is left: 0, 1, 6, 7, 8.
        close(&attend([0., 0.], kv(10), 8), &[22. / 5., 1.]);
    }

    #[test]
    fn queries_turn_by_the_pages_between() {
        let RtValue::Kv(mut cache) = kv(4) else { unreachable!("a cache") };
        cache.rows.get_mut(&(0, 0)).expect("is there").0 = vec![1., 0.];
        // Half a turn away the key of position 0 scores -20: its value counts for nothing.
        close(&attend([20., 0.], RtValue::Kv(cache.clone()), 3), &[2., 1.]);
        // In its own page it scores 20.
        close(&attend([20., 0.], RtValue::Kv(cache), 1), &[0., 1.]);
    }

    #[test]
    fn a_reach_hides_positions_of_pages_that_are_kept() {
        let reach = ATTRIBUTES.replace("reach=none", "reach=2");
        let operands = [f(&[1, 1, 2], &[0., 0.]), kv(10), i(&[8]), i(&[0]), turns()];
        close(&run(&reach, &operands), &[7.5, 1.]);
    }

    #[test]
    fn types_and_cost() {
        let types = ["f32[T,4,2]", "kv<f16,2,2>", "i32[T]", "i32[T]", "f32[6]"];
        assert_eq!(infer(ATTRIBUTES, &types), "f32[T,4,2]");
        assert_eq!(cost(ATTRIBUTES, &types), (2.0 * 5.0 * 16.0 + 24.0, 128.0 + 16.0, 4.0 * 16.0 * 5.0));
        assert!(infer(ATTRIBUTES, &["f32[T,4,2]", "kv<f16,2,2>", "i32[T]", "i32[T]", "f32[4]"]).contains("f32[6]"));
        let error = failure(ATTRIBUTES, &[f(&[1, 1, 2], &[0., 0.]), kv(3), i(&[3]), i(&[0]), turns()]);
        assert!(error.contains("no cached position 3"), "{error}");
    }
}
