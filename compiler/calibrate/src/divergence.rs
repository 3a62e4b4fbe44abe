//! How far one distribution of the next token is from another. Through the `libm` crate: the system's functions
//! differ between processors.

use rayon::prelude::*;

/// `log(softmax(row))`, in f64.
pub fn log_softmax(row: &[f32]) -> Vec<f64> {
    let largest = row.iter().fold(f64::NEG_INFINITY, |m, v| m.max(f64::from(*v)));
    let sum: f64 = row.iter().map(|v| libm::exp(f64::from(*v) - largest)).sum();
    let log_sum = libm::log(sum);
    row.iter().map(|v| f64::from(*v) - largest - log_sum).collect()
}

/// Sum over rows of `KL(softmax(expected) || softmax(found))` in nats; rows have `width` logits.
pub fn kl_sum(expected: &[f32], found: &[f32], width: usize) -> f64 {
    let rows: Vec<f64> = expected
        .par_chunks_exact(width)
        .zip(found.par_chunks_exact(width))
        .map(|(p, q)| {
            let (p, q) = (log_softmax(p), log_softmax(q));
            p.iter().zip(&q).map(|(a, b)| libm::exp(*a) * (a - b)).sum()
        })
        .collect();
    // In order, so that the sum does not depend on threads.
    rows.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_of_known_distributions() {
        let (p, q) = ([0.0f32, 0.0], [f32::ln(3.0), 0.0]);
        // 1/2 ln((1/2) / (3/4)) + 1/2 ln((1/2) / (1/4)).
        let expected = 0.5 * (2.0f64 / 3.0).ln() + 0.5 * 2.0f64.ln();
        assert!((kl_sum(&p, &q, 2) - expected).abs() < 1e-7);
        assert_eq!(kl_sum(&p, &p, 2), 0.0);
    }
}
