//! Stores keys and values into a KV cache, rounded to the type of the cache.

use super::common::{Args, cache, elements, floats, ints, kv_position_bytes, round_to, traffic};
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{DType, Dim, TensorType, Type};

/// Type rule: `(kv, k f32[n,H,hd], v f32[n,H,hd], positions i32[n], seqs i32[n]) -> kv`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let args = Args::new(op, operands, &["kv", "k", "v", "positions", "seqs"])?;
    let kv = args.kv(0)?;
    let rows = args.index(3)?;
    let stored = TensorType::new(DType::F32, [rows, Dim::Const(kv.heads), Dim::Const(kv.head_dim)]);
    args.exactly(1, &stored)?;
    args.exactly(2, &stored)?;
    args.exactly(4, &TensorType::new(DType::I32, [rows]))?;
    Ok(vec![kv.into()])
}

/// Reference meaning.
pub(crate) fn eval(_op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let mut kv = cache(operands, 0)?.clone();
    let width = kv.ty.heads * kv.ty.head_dim;
    let (keys, values) = (floats(operands, 1)?, floats(operands, 2)?);
    let (positions, seqs) = (ints(operands, 3)?, ints(operands, 4)?);
    for (t, (position, seq)) in positions.iter().zip(seqs).enumerate() {
        let row = |x: &[f32]| x[t * width..(t + 1) * width].iter().map(|v| round_to(kv.ty.dtype, *v)).collect();
        let (key, value) = (row(keys), row(values));
        kv.rows.insert((*seq, *position), (key, value));
    }
    Ok(vec![RtValue::Kv(kv)])
}

/// Bytes and flops: the positions written.
pub(crate) fn cost(_op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    let (Some(Type::Kv(kv)), Some(positions)) = (operands.first(), operands.get(3).and_then(|t| t.tensor())) else {
        return Cost::default();
    };
    let mut cost = traffic(operands, &[], sizes);
    cost.memory_bytes += elements(positions, sizes) * kv_position_bytes(*kv);
    cost
}
