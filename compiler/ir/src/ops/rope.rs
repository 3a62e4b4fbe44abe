//! Rotary embedding of heads (arXiv 2104.09864): turns pairs of elements by the angles of a table.

use super::common::{Args, bad, floats, pointwise, result};
use super::{Cost, Op, Sizes, tensor};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::{DType, Dim, TensorType, Type};

/// Type rule: `(x f32[n,H,hd], table f32[n,rotary_dim]) -> f32[n,H,hd]`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Rope { rotary_dim, .. } = op else { return Err(bad(op, "is not rope")) };
    let args = Args::new(op, operands, &["x", "table"])?;
    let (rows, heads, head_dim) = args.heads(0)?;
    if *rotary_dim == 0 || rotary_dim % 2 != 0 || *rotary_dim > head_dim {
        return Err(bad(op, format!("rotary_dim={rotary_dim}, expected an even number of at most {head_dim}")));
    }
    args.exactly(1, &TensorType::new(DType::F32, [rows, Dim::Const(*rotary_dim)]))?;
    Ok(vec![TensorType::new(DType::F32, [rows, Dim::Const(heads), Dim::Const(head_dim)]).into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::Rope { rotary_dim, interleaved } = op else { return Err(bad(op, "is not rope")) };
    let (x, table) = (tensor(operands, 0)?, floats(operands, 1)?);
    let (heads, head_dim) = (x.shape[1], x.shape[2]);
    let mut out = Vec::with_capacity(x.as_f32()?.len());
    for (head, values) in x.as_f32()?.chunks_exact(head_dim).enumerate() {
        out.extend(turned(values, &table[head / heads * rotary_dim..][..*rotary_dim], *interleaved));
    }
    result(&x.shape, out)
}

/// A head turned by `angles`: cosines, then sines, of as many elements as rotate.
pub(super) fn turned(head: &[f32], angles: &[f32], interleaved: bool) -> Vec<f32> {
    let (half, mut out) = (angles.len() / 2, head.to_vec());
    let (cosines, sines) = angles.split_at(half);
    for i in 0..half {
        let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
        let (x1, x2) = (f64::from(out[a]), f64::from(out[b]));
        let (cos, sin) = (f64::from(cosines[i]), f64::from(sines[i]));
        out[a] = (x1 * cos - x2 * sin) as f32;
        out[b] = (x2 * cos + x1 * sin) as f32;
    }
    out
}

/// Bytes and flops.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    pointwise(op, operands, sizes, 3.0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{f, infer, run};

    #[test]
    fn turns_pairs_and_passes_the_rest() {
        let x = f(&[1, 1, 5], &[1., 2., 3., 4., 9.]);
        let table = f(&[1, 4], &[0., 1., 1., 0.]);
        let run = |interleaved| {
            run(&format!("rope{{rotary_dim=4, interleaved={interleaved}}}"), &[x.clone(), table.clone()])
        };
        assert_eq!(run(false), [-3., 2., 1., 4., 9.]);
        assert_eq!(run(true), [-2., 1., 3., 4., 9.]);
    }

    #[test]
    fn every_head_uses_the_row_of_its_token() {
        let x = f(&[2, 2, 2], &[1., 0., 2., 0., 3., 0., 4., 0.]);
        let table = f(&[2, 2], &[1., 0., 0., 1.]);
        let y = run("rope{rotary_dim=2, interleaved=false}", &[x, table]);
        assert_eq!(y, [1., 0., 2., 0., 0., 3., 0., 4.]);
    }

    #[test]
    fn types() {
        let infer = |dim| infer(&format!("rope{{rotary_dim={dim}, interleaved=false}}"), &["f32[T,2,4]", "f32[T,4]"]);
        assert_eq!(infer(4), "f32[T,2,4]");
        assert_eq!(infer(2), "rope: operand 1 (table) is f32[T,4], expected f32[T,2]");
        assert_eq!(infer(6), "rope: rotary_dim=6, expected an even number of at most 4");
    }
}
