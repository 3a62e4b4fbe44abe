//! The choice of tokens.

use super::{Case, Memory, Part};
use gpu_check::kernels::{Elem, Expected};
use llmc_abi::step::Sampling;
use llmc_kernels::ops::gpu::sample::SampleKernel;

/// Logits of a row, and rows.
const VOCAB: usize = 1500;
const ROWS: usize = 3;
/// How far the best score is ahead of the next: more than arithmetic in binary32 is off by.
const AHEAD: f64 = 1e-3;

/// Without and with noise, of all tokens and of some.
pub fn cases(seed: u64) -> Vec<Case> {
    let greedy = Sampling { choose: 1, ..Sampling::NONE };
    let noisy = Sampling { temperature: 0.8, seed: 0x1234_5678_9abc ^ seed, ..greedy };
    [
        ("greedy", greedy),
        ("noise", noisy),
        ("top-k", Sampling { top_k: 20, ..noisy }),
        ("top-p", Sampling { top_p: 0.6, ..noisy }),
        ("min-p", Sampling { margin: 2.0, ..noisy }),
    ]
    .map(|(name, sampling)| choose(seed, name, sampling))
    .into()
}

fn choose(seed: u64, name: &str, sampling: Sampling) -> Case {
    let mut memory = Memory::new(seed, ROWS);
    memory.positions = vec![3, 700, 12];
    memory.sampling = sampling;
    let mut tokens = Vec::new();
    for row in 0..ROWS {
        // Rows whose best tokens are about equal are of no use.
        let (logits, token) = loop {
            let logits: Vec<f32> = memory.numbers(VOCAB).iter().map(|v| 6.0 * v).collect();
            if let Some(token) = clear_choice(&logits, memory.positions[row], &sampling) {
                break (logits, token);
            }
        };
        memory.logits.extend(logits.iter().flat_map(|v| v.to_le_bytes()));
        tokens.push(f64::from(token));
    }
    let pieces = memory.bytes(SampleKernel::bytes(VOCAB, ROWS));
    let kernel = SampleKernel { vocab: VOCAB, pieces, counters: 0 };
    let want = [tokens.clone(), tokens].concat();
    let expected = Expected {
        buffer: "sampled".into(),
        elem: Elem::I32,
        at: (0..2 * ROWS as u32).map(|i| 4 * i).collect(),
        scales: vec![],
        bound: vec![0.0; want.len()],
        want,
    };
    Case {
        name: format!("choice, {name}"),
        memory,
        counters: ROWS,
        build: Box::new(move |scratch| vec![Part::Works(kernel.build("sample", scratch))]),
        expected: vec![expected],
    }
}

/// The token that [`Sampling`] says, if it is clearly that one.
fn clear_choice(row: &[f32], position: i32, s: &Sampling) -> Option<u32> {
    let mut sorted: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let largest = sorted[0];
    let mut kept = sorted.len();
    if s.top_k > 0 {
        kept = s.top_k as usize;
    }
    if s.top_p < 1.0 {
        let weight = |v: &f64| ((v - largest) / f64::from(s.temperature)).exp();
        let wanted = f64::from(s.top_p) * sorted[..kept].iter().map(weight).sum::<f64>();
        let mut sum = 0.0;
        let reached = sorted[..kept].iter().position(|v| {
            sum += weight(v);
            sum >= wanted
        })?;
        // The share must not be reached by a hair.
        if (sum - wanted).abs().min((sum - weight(&sorted[reached]) - wanted).abs()) < AHEAD * wanted {
            return None;
        }
        kept = reached + 1;
    }
    let least = sorted[kept - 1].max(largest - f64::from(s.margin));
    let key = output(s.seed, position as u64);
    let score = |token: usize| {
        let u = ((output(key, token as u64) >> 33) as f64 + 0.5) / (1u64 << 31) as f64;
        let noise = -(-(1.0 - u).ln()).ln();
        f64::from(row[token]) + f64::from(s.temperature) * noise
    };
    let mut scores: Vec<(f64, usize)> =
        (0..row.len()).filter(|t| f64::from(row[*t]) >= least).map(|t| (score(t), t)).collect();
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let clear = scores.get(1).is_none_or(|next| scores[0].0 - next.0 > AHEAD);
    clear.then_some(scores[0].1 as u32)
}

/// Output `index` of SplitMix64.
fn output(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
