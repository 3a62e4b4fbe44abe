//! Joined Q, K and V with the KV store. Its types, meaning and cost are those of its expansion.

use super::expand;
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::Type;

/// Type rule: see [`expand::expand`].
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    expand::infer(op, operands)
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    expand::eval(op, operands)
}

/// Bytes and flops: weights and operands are read once, intermediate results never.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    expand::cost(op, operands, sizes)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, cost, f, i, infer, op, run};
    use crate::interp::{KvCache, RtValue};
    use crate::types::{DType, KvType};

    const TYPES: [&str; 11] = [
        "f32[T,4]", "bf16[8,4]", "bf16[4,4]", "bf16[4,4]", "bf16[4]", "f32[T,4]", "f32[T,4]", "bf16[4]",
        "kv<f16,1,4>", "i32[T]", "i32[T]",
    ];
    const STEPS: &str = "qkv{prologue=none, round=none, head_dim=4, q=[head_norm(0.0,4),rope(4,4,false)], \
                         k=[rope(4,4,false)], v=[bias]}";

    #[test]
    fn types() {
        assert_eq!(infer(STEPS, &TYPES), "f32[T,2,4], kv<f16,1,4>");
        let mut wrong = TYPES;
        wrong[1] = "bf16[6,4]";
        assert!(infer(STEPS, &wrong).contains("rows of 6 elements are not made of heads of 4"));
        wrong[1] = "f16[8,4]";
        assert!(infer(STEPS, &wrong).contains("expected one element type"));
        wrong = TYPES;
        wrong[8] = "kv<f16,2,4>";
        assert!(infer(STEPS, &wrong).contains("kv_append: operand 1 (k) is f32[T,1,4]"));
    }

    #[test]
    fn projects_normalises_turns_and_stores() {
        let text = "qkv{prologue=none, round=none, head_dim=2, q=[head_norm(0.0,2)], k=[rope(2,2,false)], v=[bias]}";
        let kv = RtValue::Kv(KvCache::new(KvType { dtype: DType::F32, heads: 1, head_dim: 2 }));
        let weights = [f(&[2, 1], &[3., 4.]), f(&[2, 1], &[1., 2.]), f(&[2, 1], &[5., 6.])];
        let [wq, wk, wv] = weights;
        let (scale, table, bias) = (f(&[2], &[5., 5.]), f(&[1, 2], &[0., 1.]), f(&[2], &[1., 1.]));
        let operands = [f(&[1, 1], &[1.]), wq, wk, wv, scale, table, bias, kv, i(&[3]), i(&[0])];
        close(&run(text, &operands), &[4.242_640_5, 5.656_854]);
        let results = op(text).eval(&operands.iter().collect::<Vec<_>>()).expect("operands fit");
        let RtValue::Kv(kv) = &results[1] else { panic!("a cache expected") };
        assert_eq!(kv.rows.get(&(0, 3)), Some(&(vec![-2., 1.], vec![6., 7.])));
    }

    #[test]
    fn cost_counts_weights_and_stored_positions() {
        let (memory, _, _) = cost(STEPS, &TYPES);
        assert_eq!(memory, (64 + 32 + 32 + 8 + 8) as f64 + 2.0 * 16.0);
    }
}
