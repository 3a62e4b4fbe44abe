//! Which experts of a mixture a token goes to, and what each of them counts for it.
//!
//! A token's logits, one for each expert, become scores (a softmax over all experts, or a sigmoid of each); the `top`
//! highest stay, the rest weigh nothing. Of equal ones the first come first. What stays may be divided by its sum.
//! Sources: Shazeer et al., arXiv 1701.06538; Mixtral, arXiv 2401.04088 (softmax, normalized); Qwen2-MoE's
//! `norm_topk_prob`; DeepSeek-V3, arXiv 2412.19437 (sigmoid, normalized, scaled).

use super::common::{Args, bad, map_rows, pointwise};
use super::{Cost, Op, Sizes};
use crate::error::Result;
use crate::interp::RtValue;
use crate::types::Type;

/// Type rule: `logits f32[..,E] -> f32[..,E]`, at most `top` of each row other than zero.
pub(crate) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let Op::Route { top, scale, .. } = op else { return Err(bad(op, "is not route")) };
    let args = Args::new(op, operands, &["logits"])?;
    let (ty, experts) = args.rows(0)?;
    if *top == 0 || *top > experts {
        return Err(bad(op, format!("top={top}, expected 1 to {experts}, the number of experts")));
    }
    if !scale.get().is_finite() {
        return Err(bad(op, format!("scale={scale:?}, expected a finite number")));
    }
    Ok(vec![ty.clone().into()])
}

/// Reference meaning.
pub(crate) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let Op::Route { top, sigmoid, normalize, scale } = op else { return Err(bad(op, "is not route")) };
    map_rows(operands, |row, out| {
        let highest = row.iter().fold(f64::NEG_INFINITY, |a, v| a.max(f64::from(*v)));
        let score = |v: &f32| match sigmoid {
            true => 1.0 / (1.0 + libm::exp(-f64::from(*v))),
            false => libm::exp(f64::from(*v) - highest),
        };
        let scores: Vec<f64> = row.iter().map(score).collect();
        let kept: Vec<f64> = (0..row.len()).map(|i| if before(row, i) < *top { scores[i] } else { 0.0 }).collect();
        let sum: f64 = match (normalize, sigmoid) {
            (true, _) => kept.iter().sum(),
            (false, false) => scores.iter().sum(),
            (false, true) => 1.0,
        };
        out.extend(kept.iter().map(|v| (v / sum * f64::from(scale.get())) as f32));
    })
}

/// How many experts come before expert `i`.
fn before(row: &[f32], i: usize) -> usize {
    row.iter().enumerate().filter(|(j, v)| **v > row[i] || **v == row[i] && *j < i).count()
}

/// Bytes and flops: every expert is compared with every other one.
pub(crate) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    let experts = operands.first().and_then(|ty| ty.tensor()?.last()).unwrap_or(0);
    pointwise(op, operands, sizes, 12.0 + 3.0 * experts as f64)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, cost, f, infer, run};

    const LOGITS: [f32; 4] = [0.0, 1.0, 1.0, -1.0];

    fn routed(attributes: &str) -> Vec<f32> {
        run(&format!("route{{{attributes}}}"), &[f(&[1, 4], &LOGITS)])
    }

    #[test]
    fn the_highest_stay_and_of_equal_ones_the_first() {
        close(&routed("top=1, sigmoid=false, normalize=true, scale=1.0"), &[0.0, 1.0, 0.0, 0.0]);
        close(&routed("top=2, sigmoid=false, normalize=true, scale=3.0"), &[0.0, 1.5, 1.5, 0.0]);
        let e = std::f32::consts::E;
        let sum = 2.0 * e + 1.0;
        close(&routed("top=3, sigmoid=false, normalize=true, scale=1.0"), &[1.0 / sum, e / sum, e / sum, 0.0]);
    }

    #[test]
    fn scores_are_of_all_experts_where_nothing_is_normalized() {
        let e = std::f32::consts::E;
        let sum = 2.0 * e + 1.0 + 1.0 / e;
        close(&routed("top=2, sigmoid=false, normalize=false, scale=1.0"), &[0.0, e / sum, e / sum, 0.0]);
        close(&routed("top=3, sigmoid=true, normalize=false, scale=2.0"), &[1.0, 1.462_117_2, 1.462_117_2, 0.0]);
        close(&routed("top=2, sigmoid=true, normalize=true, scale=2.5"), &[0.0, 1.25, 1.25, 0.0]);
    }

    #[test]
    fn types_and_cost() {
        let route = "route{top=2, sigmoid=false, normalize=true, scale=1.0}";
        assert_eq!(infer(route, &["f32[T,8]"]), "f32[T,8]");
        assert!(infer(route, &["f32[T,1]"]).contains("top=2, expected 1 to 1"));
        assert!(infer("route{top=1, sigmoid=false, normalize=true, scale=inf}", &["f32[T,8]"]).contains("finite"));
        assert_eq!(cost(route, &["f32[T,8]"]), (0.0, 128.0, 36.0 * 16.0));
    }
}
