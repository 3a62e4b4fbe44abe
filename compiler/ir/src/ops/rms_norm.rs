//! RMSNorm over the last dimension (arXiv 1910.07467): `x * scale / sqrt(mean(x^2) + eps)`.

use super::common::{Args, bad, dot, floats, map_rows, pointwise};
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::Type;

/// Type rule: `(x f32[..,d], scale [d]) -> f32[..,d]`.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::RmsNorm { eps } = op else { return Err(bad(op, "is not rms_norm")) };
    if !(eps.get().is_finite() && eps.get() >= 0.0) {
        return Err(bad(op, format!("eps={eps:?}, expected a finite number of at least 0")));
    }
    let args = Args::new(op, operands, &["x", "scale"])?;
    let (ty, width) = args.rows(0)?;
    args.vector(1, width)?;
    Ok(vec![ty.clone().into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::RmsNorm { eps } = op else { return Err(bad(op, "is not rms_norm")) };
    let scale = floats(operands, 1)?;
    map_rows(operands, |row, out| {
        let mean = dot(row, row) / row.len() as f64;
        let inverse = 1.0 / (mean + f64::from(eps.get())).sqrt();
        out.extend(row.iter().zip(scale).map(|(x, s)| (f64::from(*x) * inverse * f64::from(*s)) as f32));
    })
}

/// Bytes and flops.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    pointwise(op, operands, sizes, 4.0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, cost, f, infer, run};

    #[test]
    fn divides_by_the_root_mean_square() {
        let x = f(&[2, 2], &[3., 4., 0., 0.]);
        close(&run("rms_norm{eps=0.0}", &[f(&[1, 2], &[3., 4.]), f(&[2], &[1., 2.])]), &[0.848_528_1, 2.262_741_7]);
        close(&run("rms_norm{eps=12.5}", &[x, f(&[2], &[1., 1.])]), &[0.6, 0.8, 0., 0.]);
    }

    #[test]
    fn types_and_cost() {
        assert_eq!(infer("rms_norm{eps=1e-5}", &["f32[T,4,8]", "f16[8]"]), "f32[T,4,8]");
        assert!(infer("rms_norm{eps=-1.0}", &["f32[T,8]", "f16[8]"]).contains("at least 0"));
        assert!(infer("rms_norm{eps=1e-5}", &["f32[T,0]", "f16[0]"]).contains("a constant d above 0"));
        assert_eq!(cost("rms_norm{eps=1e-5}", &["f32[T,8]", "f16[8]"]), (16.0, 128.0, 64.0));
    }
}
