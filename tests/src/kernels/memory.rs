//! The memory that a kernel is tried on, and random numbers in it.

use gpu_check::kernels::{Elem, Expected};
use llmc_abi::step::Sampling;
use llmc_kernels::WeightFormat;
use llmc_kernels::env::{Place, RowElem, Rows};
use llmc_kernels::formats::quant::QuantLayout;
use llmc_kernels::group::pair_place;
use llmc_kernels::layout::{ALIGN, PANEL};
use llmc_rt::sampler::SplitMix64;

/// What memory holds that a kernel is to write: no number.
const POISON: u8 = 0xff;

/// Buffers of a step.
pub struct Memory {
    random: SplitMix64,
    pub weights: Vec<u8>,
    pub arena: Vec<u8>,
    pub kv: Vec<u8>,
    pub logits: Vec<u8>,
    /// Token ids, positions, sequences, wanted rows, the page table: `i32` each.
    pub ids: Vec<i32>,
    pub positions: Vec<i32>,
    pub seqs: Vec<i32>,
    pub rows: Vec<i32>,
    pub table: Vec<i32>,
    /// Entries of a sequence in the page table.
    pub stride: usize,
    pub tokens: usize,
    pub sampling: Sampling,
}

impl Memory {
    /// For a step of `tokens` tokens of one sequence from position 0.
    pub fn new(seed: u64, tokens: usize) -> Memory {
        Memory {
            random: SplitMix64(seed.wrapping_mul(0x9e37_79b9) ^ tokens as u64),
            weights: vec![],
            arena: vec![],
            kv: vec![],
            logits: vec![],
            ids: vec![0; tokens],
            positions: (0..tokens as i32).collect(),
            seqs: vec![0; tokens],
            rows: (0..tokens as i32).collect(),
            table: vec![0; 8],
            stride: 8,
            tokens,
            sampling: Sampling::NONE,
        }
    }

    /// A number between -1 and 1, near 0 rather than far.
    pub fn number(&mut self) -> f32 {
        let mut unit = || (self.random.bits() >> 40) as f32 / (1 << 24) as f32;
        unit() + unit() - 1.0
    }

    pub fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }

    /// An integer below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.random.bits() % end as u64) as usize
    }

    /// Place for `count` rows.
    pub fn place(&mut self, count: usize, width: usize, elem: RowElem) -> Rows {
        let rows = Rows::new(Place::Arena(self.arena.len()), width, elem);
        self.arena.resize(self.arena.len() + count * rows.stride, POISON);
        rows
    }

    /// Place for so many bytes.
    pub fn bytes(&mut self, bytes: usize) -> Place {
        let place = Place::Arena(self.arena.len());
        self.arena.resize((self.arena.len() + bytes).next_multiple_of(ALIGN), POISON);
        place
    }

    /// Rows of f32.
    pub fn given(&mut self, values: &[Vec<f32>]) -> Rows {
        let rows = self.place(values.len(), values[0].len(), RowElem::F32);
        let Place::Arena(first) = rows.place else { unreachable!("rows are in the arena") };
        for (r, row) in values.iter().enumerate() {
            let bytes: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
            self.arena[first + r * rows.stride..][..bytes.len()].copy_from_slice(&bytes);
        }
        rows
    }

    /// The offset of weights.
    pub fn weigh(&mut self, bytes: &[u8]) -> usize {
        let at = self.weights.len().next_multiple_of(ALIGN);
        self.weights.resize(at, 0);
        self.weights.extend(bytes);
        at
    }

    /// The offset of a vector in the weights.
    pub fn vector(&mut self, values: &[f32]) -> usize {
        let padded = values.len().next_multiple_of(PANEL);
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let at = self.weigh(&bytes);
        self.weights.resize(at + 4 * padded, 0);
        at
    }

    /// The offset of random weights of `panels` panels of rows of `k`, and what they are: `[row][k]`.
    pub fn panels(&mut self, format: WeightFormat, panels: usize, k: usize) -> (usize, Vec<Vec<f32>>) {
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        for _ in 0..panels {
            let numbers = self.numbers(PANEL * k);
            let (panel, kept) = packed(format, &numbers, k);
            bytes.extend(panel);
            values.extend(kept.chunks(k).map(<[f32]>::to_vec));
        }
        (self.weigh(&bytes), values)
    }

    /// The buffers by their fields.
    pub fn buffers(&self) -> Vec<(String, Vec<u8>)> {
        let words = |v: &[i32]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let sampled = vec![POISON; 8 * self.rows.len()];
        let sampling = self.sampling.words().iter().flat_map(|w| w.to_le_bytes()).collect();
        let all = [
            ("weights", self.weights.clone()),
            ("arena", self.arena.clone()),
            ("kv", self.kv.clone()),
            ("logits", self.logits.clone()),
            ("ids", words(&self.ids)),
            ("positions", words(&self.positions)),
            ("seqs", words(&self.seqs)),
            ("rows", words(&self.rows)),
            ("page_table", words(&self.table)),
            ("sampled", sampled),
            ("sampling", sampling),
        ];
        all.map(|(name, bytes)| (name.to_string(), bytes)).into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect()
    }

    /// The counts by their fields.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let sequences = self.table.len() / self.stride;
        [
            ("page_table_stride", self.stride),
            ("n_tokens", self.tokens),
            ("n_rows", self.rows.len()),
            ("n_seqs", sequences),
        ]
        .map(|(name, n)| (name.to_string(), n as u64))
        .into()
    }
}

/// A panel in a format, and what it holds.
fn packed(format: WeightFormat, numbers: &[f32], k: usize) -> (Vec<u8>, Vec<f32>) {
    let mut panel = vec![0; format.panel_bytes(k)];
    if let WeightFormat::Quant(scheme) = format {
        let encoded = scheme.encode(numbers, k);
        QuantLayout { scheme, k }.store(&encoded, &mut panel);
        return (panel, encoded.decode());
    }
    let mut kept = Vec::with_capacity(numbers.len());
    for (i, v) in numbers.iter().enumerate() {
        let (bytes, value) = match format {
            WeightFormat::F32 => (v.to_le_bytes().to_vec(), *v),
            WeightFormat::F16 => (half::f16::from_f32(*v).to_le_bytes().to_vec(), half::f16::from_f32(*v).to_f32()),
            _ => (half::bf16::from_f32(*v).to_le_bytes().to_vec(), half::bf16::from_f32(*v).to_f32()),
        };
        let at = format.offset(i / k, i % k, k);
        panel[at..at + bytes.len()].copy_from_slice(&bytes);
        kept.push(value);
    }
    (panel, kept)
}

/// Numbers with how far off they may be.
#[derive(Clone, Copy, Debug)]
pub struct Near {
    pub value: f64,
    pub bound: f64,
}

/// What rows in the arena should hold, as groups of threads store them.
pub fn expect(rows: &Rows, values: &[Vec<Near>]) -> Expected {
    let Place::Arena(first) = rows.place else { unreachable!("rows are in the arena") };
    let (elem, bytes) = match rows.elem {
        RowElem::Bf16 => (Elem::Bf16, 2),
        _ => (Elem::F32, 4),
    };
    let place = |i: usize| match rows.elem {
        RowElem::Bf16 => 2 * pair_place(i / 2) + i % 2,
        _ => i,
    };
    let at = |r: usize, i: usize| (first + r * rows.stride + bytes * place(i)) as u32;
    let at = values.iter().enumerate().flat_map(|(r, row)| (0..row.len()).map(move |i| at(r, i))).collect();
    let all = values.iter().flatten();
    let (want, bound) = all.map(|n| (n.value, n.bound)).unzip();
    Expected { buffer: "arena".into(), elem, at, scales: vec![], want, bound }
}
