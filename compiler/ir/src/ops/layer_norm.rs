//! LayerNorm over the last dimension (arXiv 1607.06450):
//! `(x - mean) * scale / sqrt(variance + eps) + bias`, the variance divided by d.

use super::common::{Args, bad, floats, map_rows, pointwise};
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::Type;

/// Type rule: `(x f32[..,d], scale [d], bias [d]) -> f32[..,d]`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::LayerNorm { eps } = op else { return Err(bad(op, "is not layer_norm")) };
    if !(eps.get().is_finite() && eps.get() >= 0.0) {
        return Err(bad(op, format!("eps={eps:?}, expected a finite number of at least 0")));
    }
    let args = Args::new(op, operands, &["x", "scale", "bias"])?;
    let (ty, width) = args.rows(0)?;
    args.vector(1, width)?;
    args.vector(2, width)?;
    Ok(vec![ty.clone().into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::LayerNorm { eps } = op else { return Err(bad(op, "is not layer_norm")) };
    let (scale, bias) = (floats(operands, 1)?, floats(operands, 2)?);
    map_rows(operands, |row, out| {
        let count = row.len() as f64;
        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
        let inverse = 1.0 / (variance + f64::from(eps.get())).sqrt();
        let affine = row.iter().zip(scale.iter().zip(bias));
        out.extend(affine.map(|(x, (s, b))| ((f64::from(*x) - mean) * inverse * f64::from(*s) + f64::from(*b)) as f32));
    })
}

/// Bytes and flops.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    pointwise(op, operands, sizes, 7.0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, f, infer, run};

    #[test]
    fn centres_and_divides() {
        let operands = [f(&[1, 2], &[1., 3.]), f(&[2], &[2., 1.]), f(&[2], &[0., 10.])];
        close(&run("layer_norm{eps=0.0}", &operands), &[-2., 11.]);
        close(&run("layer_norm{eps=3.0}", &operands), &[-1., 10.5]);
        assert!(infer("layer_norm{eps=1e-5}", &["f32[T,2]", "f32[2]"]).contains("expected 3: x, scale, bias"));
    }
}
