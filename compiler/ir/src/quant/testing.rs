//! Weights and measures of the tests.

use super::Scheme;

/// Every scheme, each group once at least.
pub(super) const ALL: [Scheme; 18] = [
    Scheme::W8 { group: 32 },
    Scheme::W8 { group: 64 },
    Scheme::W8 { group: 128 },
    Scheme::W8A8,
    Scheme::W6,
    Scheme::W5,
    Scheme::W4,
    Scheme::W3,
    Scheme::W2,
    Scheme::Int4 { group: 32 },
    Scheme::Int4 { group: 64 },
    Scheme::Int4 { group: 128 },
    Scheme::Int4Asym { group: 32 },
    Scheme::Int4Asym { group: 128 },
    Scheme::Nf4 { group: 32 },
    Scheme::Nf4 { group: 64 },
    Scheme::Nf4 { group: 128 },
    Scheme::Fp8,
];

/// A generator of random numbers (SplitMix64).
pub(super) struct Random(pub u64);

impl Random {
    /// Uniform in 0..1, neither end included.
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        libm::sqrt(-2.0 * libm::log(self.uniform())) * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    /// Student's t with 5 degrees of freedom.
    pub fn student5(&mut self) -> f64 {
        let chi: f64 = (0..5).map(|_| self.normal()).map(|v| v * v).sum();
        self.normal() / libm::sqrt(chi / 5.0)
    }
}

/// `n` normal weights of deviation 0.02.
pub(super) fn normal(seed: u64, n: usize) -> Vec<f32> {
    let mut random = Random(seed);
    (0..n).map(|_| (random.normal() * 0.02) as f32).collect()
}

/// Power of the signal over that of the error, in dB.
pub(super) fn sqnr(x: &[f32], y: &[f32]) -> f64 {
    let square = |v: f64| v * v;
    let signal: f64 = x.iter().map(|&v| square(f64::from(v))).sum();
    let noise: f64 = x.iter().zip(y).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    10.0 * libm::log10(signal / noise)
}
