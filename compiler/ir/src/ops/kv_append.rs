//! Stores keys and values into a KV cache, rounded to the type of the cache: 8-bit integers and e4m3fn have one scale for
//! each head and position.

use super::common::{Args, cache, elements, floats, ints, kv_position_bytes, round_to, traffic};
use super::round::bytes_of_row;
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::quant::{E4M3_MAX, round_e4m3};
use crate::types::{DType, Dim, KvType, TensorType, Type};

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
        let row = |x: &[f32]| stored(kv.ty, &x[t * width..(t + 1) * width]);
        let (key, value) = (row(keys), row(values));
        kv.rows.insert((*seq, *position), (key, value));
    }
    Ok(vec![RtValue::Kv(kv)])
}

/// A row of all heads as the cache holds it.
fn stored(ty: KvType, row: &[f32]) -> Vec<f32> {
    let of_head = match ty.dtype {
        DType::I8 => bytes_of_row,
        DType::E4m3 => e4m3_of_row,
        dtype => return row.iter().map(|v| round_to(dtype, *v)).collect(),
    };
    let mut out = Vec::with_capacity(row.len());
    row.chunks_exact(ty.head_dim).for_each(|head| of_head(head, &mut out));
    out
}

/// Appends a row rounded to e4m3fn times its largest magnitude over the largest of them.
fn e4m3_of_row(row: &[f32], out: &mut Vec<f32>) {
    let largest = row.iter().fold(0f32, |m, v| if v.abs() > m { v.abs() } else { m });
    let (scale, inverse) = (largest / E4M3_MAX, if largest > 0.0 { E4M3_MAX / largest } else { 0.0 });
    out.extend(row.iter().map(|v| round_e4m3(v * inverse) * scale));
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

#[cfg(test)]
mod tests {
    use super::super::testing::{cost, f, i, infer, op};
    use crate::interp::{KvCache, RtValue};
    use crate::types::{DType, KvType};

    const TYPES: [&str; 5] = ["kv<bf16,1,2>", "f32[T,1,2]", "f32[T,1,2]", "i32[T]", "i32[T]"];

    #[test]
    fn stores_rounded_rows() {
        let kv = KvCache::new(KvType { dtype: DType::Bf16, heads: 1, head_dim: 2 });
        let keys = f(&[2, 1, 2], &[1.0 + 1.0 / 256.0, 2.0, 3.0, 4.0]);
        let operands = [RtValue::Kv(kv), keys, f(&[2, 1, 2], &[5., 6., 7., 8.]), i(&[0, 4]), i(&[9, 1])];
        let results = op("kv_append").eval(&operands.iter().collect::<Vec<_>>()).expect("operands fit");
        let [RtValue::Kv(kv)] = results.as_slice() else { panic!("one cache expected") };
        assert_eq!(kv.rows.get(&(9, 0)), Some(&(vec![1.0, 2.0], vec![5.0, 6.0])));
        assert_eq!(kv.rows.get(&(1, 4)), Some(&(vec![3.0, 4.0], vec![7.0, 8.0])));
        assert_eq!(kv.rows.len(), 2);
    }

    #[test]
    fn integers_have_a_scale_for_each_head_and_position() {
        let kv = KvCache::new(KvType { dtype: DType::I8, heads: 2, head_dim: 2 });
        let keys = f(&[1, 2, 2], &[127.0, 0.4, -1.27, 0.026]);
        let operands = [RtValue::Kv(kv), keys, f(&[1, 2, 2], &[0.; 4]), i(&[0]), i(&[0])];
        let results = op("kv_append").eval(&operands.iter().collect::<Vec<_>>()).expect("operands fit");
        let [RtValue::Kv(kv)] = results.as_slice() else { panic!("one cache expected") };
        assert_eq!(kv.rows.get(&(0, 0)), Some(&(vec![127.0, 0.0, -1.27, 0.03], vec![0.0; 4])));
    }

    #[test]
    fn e4m3_has_a_scale_for_each_head_and_position() {
        let kv = KvCache::new(KvType { dtype: DType::E4m3, heads: 2, head_dim: 2 });
        // 0.4 is nearly 13 units of a 32nd, and 27 as far from 26 as from 28, whose mantissa is even.
        let keys = f(&[1, 2, 2], &[448.0, 0.4, -448.0, 27.0]);
        let operands = [RtValue::Kv(kv), keys, f(&[1, 2, 2], &[0.; 4]), i(&[0]), i(&[0])];
        let results = op("kv_append").eval(&operands.iter().collect::<Vec<_>>()).expect("operands fit");
        let [RtValue::Kv(kv)] = results.as_slice() else { panic!("one cache expected") };
        assert_eq!(kv.rows.get(&(0, 0)), Some(&(vec![448.0, 0.40625, -448.0, 28.0], vec![0.0; 4])));
    }

    #[test]
    fn types_and_cost() {
        assert_eq!(infer("kv_append", &TYPES), "kv<bf16,1,2>");
        assert_eq!(cost("kv_append", &TYPES), (16.0, 32.0 + 16.0, 0.0));
        let mut wrong = TYPES;
        wrong[2] = "f32[T,2,2]";
        let error = "kv_append: operand 2 (v) is f32[T,2,2], expected f32[T,1,2]";
        assert_eq!(infer("kv_append", &wrong), error);
        wrong[0] = "f32[T,2,2]";
        assert!(infer("kv_append", &wrong).contains("a floating-point KV cache"));
    }
}
