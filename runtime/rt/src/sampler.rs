//! Choosing the next token from a row of logits: repeat penalty, temperature, top-k, top-p and min-p,
//! in this order (that of transformers' logits processors), then a draw; temperature 0 is greedy.
//!
//! The same seed gives the same draws. Nothing is allocated after construction.

use llmc_abi::step;

use crate::error::{Error, Result};

/// A temperature at which all tokens are equally likely, and whose product with noise is finite.
const HOTTEST: f32 = 1e30;

/// How to choose. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the largest logit.
    pub temperature: f32,
    /// Keep the `top_k` likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the likeliest tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Makes tokens that occurred less likely (Keskar et al. 2019, arXiv:1909.05858); 1 does nothing.
    pub repeat_penalty: f32,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// Checks the ranges.
    pub fn check(&self) -> Result<()> {
        let rules = [
            (self.temperature.is_finite() && self.temperature >= 0.0, "--temp must be 0 or more"),
            (self.top_p > 0.0 && self.top_p <= 1.0, "--top-p must be above 0 and at most 1"),
            (self.min_p >= 0.0 && self.min_p <= 1.0, "--min-p must be between 0 and 1"),
            (self.repeat_penalty.is_finite() && self.repeat_penalty > 0.0, "--repeat-penalty must be above 0"),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, rule)| Err(Error::usage(*rule)))
    }

    /// The same choice made where the logits are, which draws other numbers and keeps all tokens with equal logits or
    /// none; none where it needs the host.
    pub fn without_host(&self) -> Option<step::Sampling> {
        if self.repeat_penalty != 1.0 {
            return None;
        }
        let temperature = self.temperature.min(HOTTEST);
        if temperature == 0.0 {
            return Some(step::Sampling { seed: self.seed, choose: 1, ..step::Sampling::NONE });
        }
        let margin = if self.min_p > 0.0 { -temperature * self.min_p.ln() } else { f32::INFINITY };
        let top_k = u32::try_from(self.top_k).unwrap_or(u32::MAX);
        Some(step::Sampling { temperature, margin, top_p: self.top_p, top_k, seed: self.seed, choose: 1 })
    }
}

/// A row of logits of which none is a number above negative infinity.
pub fn unusable() -> Error {
    Error::failed(
        "the model gave no usable logits (all are NaN or -inf); the checkpoint is broken or overflows in this format",
    )
}

/// A token that may be chosen. `score` is a logit, then a probability up to a factor.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    score: f32,
    token: u32,
}

/// Chooses tokens.
pub struct Sampler {
    sampling: Sampling,
    random: SplitMix64,
    candidates: Vec<Candidate>,
    /// One bit for each token that occurred.
    seen: Vec<u64>,
}

impl Sampler {
    /// A sampler for rows of `vocab` logits.
    pub fn new(sampling: Sampling, vocab: usize) -> Self {
        Self {
            sampling,
            random: SplitMix64(sampling.seed),
            candidates: Vec::with_capacity(vocab),
            seen: vec![0; vocab.div_ceil(64)],
        }
    }

    /// Notes a token of the prompt or of the answer, for the repeat penalty.
    pub fn observe(&mut self, token: u32) {
        if let Some(word) = self.seen.get_mut(token as usize / 64) {
            *word |= 1 << (token % 64);
        }
    }

    /// The next token. Logits that are not numbers are never chosen.
    ///
    /// # Errors
    ///
    /// No logit is a number above negative infinity.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        self.collect(logits);
        if self.candidates.is_empty() {
            return Err(unusable());
        }
        if self.sampling.temperature == 0.0 {
            return Ok(self.best());
        }
        self.keep_top_k();
        self.scores_to_weights();
        self.keep_top_p();
        self.keep_min_p();
        Ok(self.draw())
    }

    /// Usable logits with the penalty applied.
    fn collect(&mut self, logits: &[f32]) {
        let penalty = self.sampling.repeat_penalty;
        self.candidates.clear();
        // Room for `vocab` candidates is reserved; a longer row would be a bug of the caller.
        for (token, &logit) in logits.iter().enumerate().take(self.candidates.capacity()) {
            if logit.is_nan() || logit == f32::NEG_INFINITY {
                continue;
            }
            let mut score = logit.min(f32::MAX);
            if penalty != 1.0 && self.seen[token / 64] >> (token % 64) & 1 == 1 {
                score = if score > 0.0 { score / penalty } else { score * penalty };
            }
            self.candidates.push(Candidate { score, token: token as u32 });
        }
    }

    /// The largest score; the first of equal ones.
    fn best(&self) -> u32 {
        self.candidates.iter().fold((f32::NEG_INFINITY, 0), |b, c| if c.score > b.0 { (c.score, c.token) } else { b }).1
    }

    fn keep_top_k(&mut self) {
        let k = self.sampling.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, likelier);
            self.candidates.truncate(k);
        }
    }

    /// Scores become `exp((score - largest) / temperature)`.
    fn scores_to_weights(&mut self) {
        let largest = self.candidates.iter().fold(f32::NEG_INFINITY, |m, c| m.max(c.score));
        let scale = 1.0 / self.sampling.temperature;
        for candidate in &mut self.candidates {
            // A difference of 0 times an infinite scale must stay 0.
            let below = candidate.score - largest;
            candidate.score = if below == 0.0 { 1.0 } else { (below * scale).exp() };
        }
    }

    /// Sorts the likeliest ones, twice as many each time, until they reach `top_p`.
    fn keep_top_p(&mut self) {
        if self.sampling.top_p >= 1.0 {
            return;
        }
        let target = f64::from(self.sampling.top_p) * self.total();
        let (mut sorted, mut sum, mut size) = (0, 0.0, 64);
        while sorted < self.candidates.len() {
            let end = (sorted + size).min(self.candidates.len());
            let rest = &mut self.candidates[sorted..];
            if end - sorted < rest.len() {
                rest.select_nth_unstable_by(end - sorted - 1, likelier);
            }
            rest[..end - sorted].sort_unstable_by(likelier);
            for i in sorted..end {
                sum += f64::from(self.candidates[i].score);
                if sum >= target {
                    self.candidates.truncate(i + 1);
                    return;
                }
            }
            (sorted, size) = (end, size * 2);
        }
    }

    fn keep_min_p(&mut self) {
        // The likeliest candidate has weight 1.
        let least = self.sampling.min_p;
        if least > 0.0 {
            self.candidates.retain(|c| c.score >= least);
        }
    }

    fn draw(&mut self) -> u32 {
        // Sorted by token, so that the draw does not depend on how candidates were selected.
        self.candidates.sort_unstable_by_key(|c| c.token);
        let mut left = self.random.unit() * self.total();
        for candidate in &self.candidates {
            left -= f64::from(candidate.score);
            if left < 0.0 {
                return candidate.token;
            }
        }
        // Rounding may leave a little; the likeliest token takes it.
        self.best()
    }

    fn total(&self) -> f64 {
        self.candidates.iter().map(|c| f64::from(c.score)).sum()
    }
}

/// Likelier candidates first, lower tokens first among equals.
fn likelier(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.score.total_cmp(&a.score).then(a.token.cmp(&b.token))
}

/// Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
#[derive(Clone, Copy, Debug)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next number in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [1.0, 3.0, f32::NAN, 2.0, 3.0, f32::NEG_INFINITY];

    fn counts(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(sampling, logits.len());
        let mut counts = vec![0; logits.len()];
        for _ in 0..draws {
            counts[sampler.sample(logits).expect("usable") as usize] += 1;
        }
        counts
    }

    fn warm() -> Sampling {
        Sampling { temperature: 1.0, ..Default::default() }
    }

    #[test]
    fn greedy_takes_the_first_largest() {
        assert_eq!(counts(Sampling::default(), &LOGITS, 3), [0, 3, 0, 0, 0, 0]);
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let got = counts(warm(), &LOGITS, 100_000);
        let weights = [1f64.exp(), 3f64.exp(), 0.0, 2f64.exp(), 3f64.exp(), 0.0];
        let total: f64 = weights.iter().sum();
        for (got, weight) in got.iter().zip(weights) {
            assert!((*got as f64 / 1e5 - weight / total).abs() < 0.01, "{got} {weight}");
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        let kept = |sampling| -> Vec<usize> {
            counts(sampling, &LOGITS, 2000).iter().enumerate().filter(|c| *c.1 > 0).map(|c| c.0).collect()
        };
        assert_eq!(kept(warm()), [0, 1, 3, 4]);
        assert_eq!(kept(Sampling { top_k: 2, ..warm() }), [1, 4]);
        assert_eq!(kept(Sampling { top_k: 1, ..warm() }), [1]);
        assert_eq!(kept(Sampling { top_p: 0.3, ..warm() }), [1]);
        assert_eq!(kept(Sampling { top_p: 0.9, ..warm() }), [1, 3, 4]);
        assert_eq!(kept(Sampling { min_p: 0.3, ..warm() }), [1, 3, 4]);
        assert_eq!(kept(Sampling { min_p: 1.0, ..warm() }), [1, 4]);
    }

    #[test]
    fn top_p_over_many_candidates() {
        let logits: Vec<f32> = (0..5000).map(|i| -((i * 7919 % 5000) as f32) / 500.0).collect();
        let mut sampler = Sampler::new(Sampling { top_p: 0.95, ..warm() }, logits.len());
        sampler.sample(&logits).expect("usable");
        // The geometric weights q^n with q = exp(-1/500) reach 0.95 of their sum at n = 1498.
        assert!((1490..1500).contains(&sampler.candidates.len()), "{}", sampler.candidates.len());
    }

    #[test]
    fn what_needs_no_host() {
        let own = |sampling: Sampling| sampling.without_host();
        let greedy = own(Sampling { top_k: 5, top_p: 0.5, min_p: 0.5, ..Default::default() }).expect("greedy");
        assert_eq!((greedy.temperature, greedy.margin, greedy.choose), (0.0, f32::INFINITY, 1));
        let filtered = own(Sampling { temperature: 2.0, min_p: 0.5, seed: 9, ..warm() }).expect("min-p");
        assert!((filtered.margin - 2.0 * 2f32.ln()).abs() < 1e-6 && filtered.seed == 9);
        assert_eq!((greedy.top_k, greedy.top_p), (0, 1.0));
        let both = own(Sampling { top_k: 5, top_p: 0.9, ..warm() }).expect("top-k and top-p");
        assert_eq!((both.top_k, both.top_p, both.margin), (5, 0.9, f32::INFINITY));
        assert_eq!(own(Sampling { repeat_penalty: 1.1, ..Default::default() }), None);
    }

    #[test]
    fn seeds_decide() {
        let run = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, ..warm() }, 6);
            (0..20).map(|_| sampler.sample(&LOGITS).expect("usable")).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn penalty_moves_what_occurred() {
        let mut sampler = Sampler::new(Sampling { repeat_penalty: 1.5, ..Default::default() }, 3);
        sampler.observe(0);
        sampler.observe(1);
        sampler.observe(99);
        assert_eq!(sampler.sample(&[3.0, -1.0, 2.5]), Ok(2));
        assert_eq!(sampler.sample(&[-2.0, -1.0, -1.2]), Ok(2));
    }

    #[test]
    fn extremes_do_not_break_it() {
        let hot = Sampling { temperature: f32::MIN_POSITIVE, ..Default::default() };
        assert_eq!(counts(hot, &[1.0, f32::INFINITY, f32::MIN], 5), [0, 5, 0]);
        let mut sampler = Sampler::new(warm(), 2);
        assert_eq!(sampler.sample(&[f32::NAN, f32::NEG_INFINITY]).expect_err("unusable").code(), 1);
        assert!(Sampling { temperature: f32::NAN, ..warm() }.check().is_err());
        assert!(Sampling { top_p: 0.0, ..warm() }.check().is_err());
        assert!(warm().check().is_ok());
    }
}
