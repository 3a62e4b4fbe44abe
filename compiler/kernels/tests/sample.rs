//! The choice of tokens on the interpreter, compared with the host's arithmetic.

use llmc_abi::step::{STEP_FIELDS, Sampling};
use llmc_kernels::env::{Place, Scratch};
use llmc_kernels::kir::interp::{Compiled, Machine, Order};
use llmc_kernels::kir::{Program, verify};
use llmc_kernels::ops::gpu::sample::SampleKernel;
use llmc_kernels::ops::step::{self, Action, Run};

const THREADS: usize = 64;
/// What the memory for tokens holds before.
const UNTOUCHED: i32 = -7;

/// Rows of logits and the position of each.
struct Case {
    vocab: usize,
    logits: Vec<f32>,
    positions: Vec<i32>,
}

impl Case {
    /// Logits that look random, between -spread and spread.
    fn random(vocab: usize, positions: &[i32], spread: f32) -> Case {
        let logit = |i: usize| (unit(output(7, i as u64)) * 2.0 - 1.0) as f32 * spread;
        Case { vocab, logits: (0..vocab * positions.len()).map(logit).collect(), positions: positions.to_vec() }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.logits[row * self.vocab..][..self.vocab]
    }

    /// Tokens that the kernel chooses and those it tells, with so many workers.
    fn run(&self, sampling: Sampling, workers: usize, order: Order) -> (Vec<i32>, Vec<i32>) {
        let rows = self.positions.len();
        let kernel = SampleKernel { vocab: self.vocab, pieces: Place::Arena(0), counters: 0 };
        let functions = vec![kernel.build("sample", Scratch::of_threads(THREADS)), step::build("step", &[once()])];
        let program = Program { functions };
        verify::verify(&program).unwrap_or_else(|e| panic!("{e}"));
        let mut machine = Machine::new();
        let floats = |v: &[f32]| v.iter().flat_map(|v| v.to_le_bytes()).collect();
        let words = |v: &[i32]| v.iter().flat_map(|v| v.to_le_bytes()).collect();
        let indices: Vec<i32> = (0..rows as i32).collect();
        let sampled = machine.alloc(words(&vec![UNTOUCHED; 2 * rows]));
        let memory = [
            ("logits", machine.alloc_readonly(floats(&self.logits))),
            ("positions", machine.alloc_readonly(words(&self.positions))),
            ("rows", machine.alloc_readonly(words(&indices))),
            ("arena", machine.alloc_uninit(SampleKernel::bytes(self.vocab, rows))),
            ("sync", machine.alloc(vec![0; 4 * rows])),
            ("sampling", machine.alloc_readonly(bytes(sampling))),
            ("sampled", sampled),
        ];
        let mut args = vec![0; 8 * STEP_FIELDS.len()];
        for (name, offset) in STEP_FIELDS {
            let address = memory.iter().find(|(n, _)| *n == name).map(|(_, a)| a.0);
            let value = if name == "n_rows" { Some(rows as u64) } else { address };
            args[offset..offset + 8].copy_from_slice(&value.unwrap_or(0).to_le_bytes());
        }
        let args = machine.alloc_readonly(args);
        let compiled = Compiled::new(&program);
        machine.run_groups(&compiled, "step", args, workers, THREADS, order).unwrap_or_else(|e| panic!("{e}"));
        let word = |b: &[u8]| i32::from_le_bytes(b.try_into().expect("four bytes"));
        let mut chosen: Vec<i32> = machine.buffer(sampled).chunks(4).map(word).collect();
        let told = chosen.split_off(rows);
        (chosen, told)
    }
}

fn once() -> Run {
    let actions = vec![Action::Kernel("sample".into()), Action::Barrier(0)];
    Run { count: 1, weights: 0, weights_stride: 0, kv: 0, kv_stride: 0, actions, ahead: vec![] }
}

fn bytes(s: Sampling) -> Vec<u8> {
    s.words().iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Output `index` of SplitMix64.
fn output(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The upper 31 bits in 0..1, never at an end.
fn unit(bits: u64) -> f64 {
    ((bits >> 33) as f64 + 0.5) / (1u64 << 31) as f64
}

/// The least logit that is kept.
fn least(row: &[f32], s: &Sampling) -> f32 {
    let mut kept: Vec<f32> = row.iter().copied().filter(|v| *v > f32::NEG_INFINITY).collect();
    kept.sort_by(|a, b| b.total_cmp(a));
    let Some(&largest) = kept.first() else { return f32::NEG_INFINITY };
    if s.temperature > 0.0 {
        let with_equal = |kept: &mut Vec<f32>, count: usize| {
            let last = kept[count.clamp(1, kept.len()) - 1];
            kept.retain(|v| *v >= last);
        };
        if s.top_k > 0 {
            with_equal(&mut kept, s.top_k as usize);
        }
        let weight = |v: &f32| (f64::from(v - largest) / f64::from(s.temperature)).exp();
        let wanted = f64::from(s.top_p) * kept.iter().map(weight).sum::<f64>();
        let mut sum = 0.0;
        let count = kept.iter().take_while(|v| {
            let before = sum;
            sum += weight(v);
            before < wanted
        });
        let count = count.count();
        if s.top_p < 1.0 {
            with_equal(&mut kept, count);
        }
    }
    (largest - s.margin).max(*kept.last().expect("the largest is kept"))
}

/// Score of a token, none where it may not be chosen.
fn score(row: &[f32], token: usize, position: i32, s: &Sampling) -> Option<f64> {
    let logit = row[token];
    let usable = logit > f32::NEG_INFINITY && logit >= least(row, s);
    let u = unit(output(output(s.seed, position as u64), token as u64));
    // u is 1 - v of the kernel's v: the same numbers, exactly reflected.
    let noise = -(-(1.0 - u).ln()).ln();
    usable.then_some(f64::from(logit) + f64::from(s.temperature) * noise)
}

fn best(row: &[f32], position: i32, s: &Sampling) -> (usize, f64) {
    let scores = (0..row.len()).filter_map(|t| Some((t, score(row, t, position, s)?)));
    scores.fold((0, f64::NEG_INFINITY), |a, b| if b.1 > a.1 { b } else { a })
}

const GREEDY: Sampling = Sampling { choose: 1, ..Sampling::NONE };
const SHAPES: [(usize, Order); 4] =
    [(1, Order::Forward), (3, Order::Reverse), (7, Order::Seeded(1)), (16, Order::Seeded(2))];

#[test]
fn the_first_largest_is_taken_and_what_is_no_number_never() {
    for vocab in [1, 32, 300, 1024] {
        let mut case = Case::random(vocab, &[0, 5, 9], 1.0);
        case.logits[vocab..2 * vocab].fill(3.0);
        case.logits[vocab..vocab + vocab / 2].fill(f32::NAN);
        case.logits[2 * vocab..].fill(f32::NEG_INFINITY);
        case.logits[2 * vocab + vocab / 2] = f32::NAN;
        let first = best(case.row(0), 0, &GREEDY).0 as i32;
        for (workers, order) in SHAPES {
            let (chosen, told) = case.run(GREEDY, workers, order);
            assert_eq!(chosen, [first, vocab as i32 / 2, 0], "{vocab} logits, {workers} workers");
            assert_eq!(told, [first, vocab as i32 / 2, -1], "{vocab} logits, {workers} workers");
        }
    }
}

#[test]
fn infinite_logits_are_largest_numbers() {
    let mut case = Case::random(200, &[1], 1.0);
    case.logits[150] = f32::INFINITY;
    case.logits[120] = f32::MAX;
    assert_eq!(case.run(GREEDY, 2, Order::Forward).0, [120]);
}

#[test]
fn noise_is_that_of_the_contract() {
    let positions: Vec<i32> = (0..12).map(|i| i * 37).collect();
    for (spread, temperature, margin) in [(4.0, 1.0, f32::INFINITY), (2.0, 0.7, 1.4), (8.0, 3.0, 0.5), (1.0, 1.0, 0.0)]
    {
        let case = Case::random(500, &positions, spread);
        let sampling = Sampling { temperature, margin, seed: 0xdead_beef_1234_5678, ..GREEDY };
        let all = SHAPES.map(|(workers, order)| case.run(sampling, workers, order).0);
        assert!(all.iter().all(|chosen| *chosen == all[0]), "workers change nothing: {all:?}");
        for (i, token) in all[0].iter().enumerate() {
            let (row, position) = (case.row(i), positions[i]);
            let own = score(row, *token as usize, position, &sampling).expect("within the margin");
            let (other, most) = best(row, position, &sampling);
            assert!(own >= most - 1e-4, "row {i}: {token} with {own}, {other} has {most}");
        }
    }
}

/// More pieces than threads, pieces that are not whole, and few; what is kept is a token alone, some and nearly all.
#[test]
fn filters_keep_what_the_contract_says() {
    let positions = [0, 77];
    for vocab in [40, 500, 9000] {
        for (temperature, top_k, top_p, margin) in [
            (1.0, 1, 1.0, f32::INFINITY),
            (0.7, 20, 1.0, f32::INFINITY),
            (1.0, 0, 0.4, f32::INFINITY),
            (0.6, 20, 0.8, f32::INFINITY),
            (5.0, 64, 0.95, 3.0),
            (2.0, 8000, 0.99, f32::INFINITY),
            (9.0, 0, 0.001, f32::INFINITY),
        ] {
            let case = Case::random(vocab, &positions, 9.0);
            let sampling = Sampling { temperature, margin, top_k, top_p, seed: 77, choose: 1 };
            let chosen = case.run(sampling, 3, Order::Seeded(u64::from(top_k))).0;
            for (i, token) in chosen.iter().enumerate() {
                let (row, position) = (case.row(i), positions[i]);
                let own = score(row, *token as usize, position, &sampling);
                let own = own.unwrap_or_else(|| panic!("{vocab} logits, {sampling:?}: {token} is not kept"));
                let (other, most) = best(row, position, &sampling);
                assert!(own >= most - 1e-4, "{vocab} logits, {sampling:?}: {token} with {own}, {other} has {most}");
            }
        }
    }
}

#[test]
fn of_nothing_usable_filters_keep_nothing() {
    let case = Case { vocab: 200, logits: vec![f32::NEG_INFINITY; 200], positions: vec![3] };
    for (top_k, top_p) in [(5, 1.0), (0, 0.5), (5, 0.5)] {
        let told = case.run(Sampling { temperature: 1.0, top_k, top_p, ..GREEDY }, 2, Order::Forward).1;
        assert_eq!(told, [-1], "top-k {top_k}, top-p {top_p}");
    }
}

/// What is equal at the edge stays together, and what is no number is never counted.
#[test]
fn equal_logits_are_kept_together() {
    let positions: Vec<i32> = (0..64).collect();
    let row: Vec<f32> = [f32::NAN, 2.0, 5.0, f32::NEG_INFINITY, 5.0, 5.0, 1.0].into_iter().cycle().take(70).collect();
    let case = Case { vocab: 70, logits: row.repeat(64), positions };
    for (top_k, top_p) in [(1, 1.0), (0, 0.01), (7, 0.5)] {
        let chosen = case.run(Sampling { temperature: 1.0, top_k, top_p, ..GREEDY }, 3, Order::Forward).0;
        assert!(chosen.iter().all(|t| matches!(t % 7, 2 | 4 | 5)), "{chosen:?}");
        let (mut kinds, first) = (chosen.clone(), chosen[0]);
        kinds.retain(|t| *t != first);
        assert!(kinds.len() > 30, "all of the equal ones are drawn: {chosen:?}");
    }
}

#[test]
fn frequencies_follow_the_softmax() {
    let weights = [1.0f64, 2.0, 3.0, 6.0, 8.0];
    let rows = 2000;
    let logits = (0..rows).flat_map(|_| weights.map(|w| w.ln() as f32)).collect();
    let case = Case { vocab: 5, logits, positions: (0..rows).collect() };
    let sampling = Sampling { temperature: 1.0, seed: 3, ..GREEDY };
    let chosen = case.run(sampling, 2, Order::Forward).0;
    for (token, weight) in weights.iter().enumerate() {
        let share = chosen.iter().filter(|c| **c == token as i32).count() as f64 / f64::from(rows);
        assert!((share - weight / 20.0).abs() < 0.04, "{token}: {share}");
    }
}

#[test]
fn nothing_is_written_unasked() {
    let none = Case::random(64, &[], 1.0);
    assert_eq!(none.run(GREEDY, 3, Order::Forward), (vec![], vec![]));
    let two = Case::random(64, &[1, 2], 1.0);
    assert_eq!(two.run(Sampling::NONE, 3, Order::Forward), (vec![UNTOUCHED; 2], vec![UNTOUCHED; 2]));
}
