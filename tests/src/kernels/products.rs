//! Products, with what is done to rows before and to sums after.

use super::memory::{Near, expect};
use super::{BF16, Build, Case, Form, Memory, Part, UNIT};
use crate::SCHEMES;
use llmc_kernels::env::{Count, Place, RowElem, Rows};
use llmc_kernels::formats::quant::QuantLayout;
use llmc_kernels::layout::PANEL;
use llmc_kernels::ops::epilogue::{Activation, Epilogue, Sink, Step};
use llmc_kernels::ops::linear::{LinearKernel, Segment};
use llmc_kernels::ops::mac::Mac;
use llmc_kernels::ops::norm::Norm;
use llmc_kernels::ops::product::{CodedWeights, Product};
use llmc_kernels::ops::prologue::Prologue;
use llmc_kernels::schedule::Schedule;
use llmc_kernels::{Target, WeightFormat};

/// Elements of k: whole steps and groups of every format, and more steps than are in shared memory at a time.
const K: usize = 640;
const EPS: f32 = 1e-5;
/// A level of NF4 is stored as two bf16, off by at most this much of it; other weights are exact.
const LEVELS: f64 = 1.0 / 65536.0;

/// Every format in every form, and every step before and after.
pub fn cases(seed: u64) -> Vec<Case> {
    let floats = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::F16];
    let formats: Vec<WeightFormat> = floats.into_iter().chain(SCHEMES.map(WeightFormat::Quant)).collect();
    let mut all = Vec::new();
    for form in Form::ALL {
        all.extend(formats.iter().map(|format| plain(seed, *format, form)));
        all.extend(EXTRAS.map(|extra| with(seed, extra, form)));
    }
    all
}

/// What a product has beside its weights.
#[derive(Clone, Copy, Debug)]
enum Extra {
    /// RMSNorm; bias and GELU; rows of bf16.
    Gelu,
    /// LayerNorm; SwiGLU.
    Gated,
    /// No norm; scale and residual.
    Residual,
}

const EXTRAS: [Extra; 3] = [Extra::Gelu, Extra::Gated, Extra::Residual];

/// A product under construction.
struct Draft {
    memory: Memory,
    form: Form,
    format: WeightFormat,
    /// What meets the weights: `[token][k]`.
    x: Vec<Vec<f64>>,
    /// How far off each of these is, of itself and one.
    off: f64,
    kernel: LinearKernel,
    /// `[row][k]`.
    weights: Vec<Vec<f32>>,
}

/// Rows that are integers times a power of two, so that nothing is lost where they become bf16 or bytes.
fn exact_rows(memory: &mut Memory, tokens: usize) -> Vec<Vec<f32>> {
    let row = |memory: &mut Memory| {
        let mut row: Vec<f32> = (0..K).map(|_| (memory.below(255) as f32 - 127.0) / 64.0).collect();
        row[0] = 127.0 / 64.0;
        row
    };
    (0..tokens).map(|_| row(memory)).collect()
}

impl Draft {
    /// Units of `panels` panels each with weights in a format; rows after a norm, or such that nothing is rounded.
    fn new(
        seed: u64,
        form: Form,
        format: WeightFormat,
        (units, panels): (usize, usize),
        norm: Option<NormOf>,
    ) -> Draft {
        let mut memory = Memory::new(seed, form.tokens());
        let values = match norm {
            None => exact_rows(&mut memory, form.tokens()),
            Some(_) => (0..form.tokens()).map(|_| memory.numbers(K)).collect(),
        };
        let x = memory.given(&values);
        let whole: Vec<Vec<f64>> = values.iter().map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect();
        let (norm, whole) = match norm {
            None => (None, whole),
            Some(of) => {
                let (norm, rows) = of.apply(&mut memory, &whole);
                (Some(norm), rows)
            }
        };
        let rows =
            if matches!(format, WeightFormat::Quant(s) if !s.is_float()) { RowElem::Bytes } else { RowElem::Bf16 };
        let wanted = if format == WeightFormat::F32 { RowElem::F32 } else { rows };
        let (mac, elem) = Mac::of_groups(format, wanted).expect("there is a product for each format");
        let prologue = (norm.is_some() || elem != RowElem::F32).then(|| Prologue {
            norm,
            elem,
            shared: memory.place(form.most(), K, elem).place,
            own: Place::Worker(0),
            phase: 0,
        });
        let table = match format {
            WeightFormat::Quant(scheme) => {
                QuantLayout::table_bytes(scheme).map(|_| memory.weigh(&QuantLayout::table(scheme)))
            }
            _ => None,
        };
        let coded = matches!(format, WeightFormat::Quant(_)).then_some(CodedWeights { table, codes: Place::Worker(0) });
        let (weight, weights) = memory.panels(format, units * panels, K);
        let product = Product { format, mac, k: K, panels, x_stride: elem.stride(K), coded };
        let target = Target::from_name("cuda").expect("GPUs are known");
        let schedule = Schedule { tiles: form == Form::Many, ..Schedule::new(&target, 64) };
        let y = Rows::new(Place::Arena(0), units * PANEL, RowElem::F32);
        let epilogue = Epilogue { steps: vec![], sink: Sink::Rows(y), unit_rows: PANEL, panels };
        let kernel = LinearKernel {
            count: Count::Tokens,
            x,
            prologue,
            segments: vec![Segment { weight, product, units, epilogue }],
            raw: Place::Worker(0),
            schedule,
            gather: None,
            ahead: form != Form::Many,
            single: form == Form::One,
        };
        // A norm is off by some roundings, and rows are rounded to what meets the weights.
        let rounding = if elem == RowElem::F32 { 0.0 } else { BF16 };
        let off = if norm.is_some() { rounding + K as f64 * UNIT } else { 0.0 };
        Draft { memory, form, format, x: whole, off, kernel, weights }
    }

    /// The products of a token with all rows of weights.
    fn products(&self, token: usize) -> Vec<Near> {
        let of_row = |w: &Vec<f32>| {
            let terms =
                self.x[token].iter().zip(w).map(|(x, w)| (x * f64::from(*w), (x.abs() + 1.0) * f64::from(w.abs())));
            let (value, size) = terms.fold((0.0, 0.0), |(v, s): (f64, f64), (t, most)| (v + t, s + most));
            Near { value, bound: size * (self.off + LEVELS + (K + 8) as f64 * UNIT) }
        };
        self.weights.iter().map(of_row).collect()
    }

    fn finish(mut self, name: &str, y: RowElem, values: impl Fn(&Draft, usize) -> Vec<Near>) -> Case {
        let tokens = self.form.tokens();
        let wanted: Vec<Vec<Near>> = (0..tokens).map(|t| values(&self, t)).collect();
        let rows = self.memory.place(self.form.most(), wanted[0].len(), y);
        self.kernel.segments[0].epilogue.sink = Sink::Rows(rows);
        let kernel = self.kernel;
        let build: Build = Box::new(move |scratch| {
            let ahead = kernel.build_ahead("ahead", scratch).map(Part::Asks);
            ahead.into_iter().chain([Part::Works(kernel.build("product", scratch))]).collect()
        });
        let name = format!("{name}, {:?}", self.form).to_lowercase();
        Case { name, memory: self.memory, counters: 0, build, expected: vec![expect(&rows, &wanted)] }
    }
}

/// The product of every format by itself.
fn plain(seed: u64, format: WeightFormat, form: Form) -> Case {
    let draft = Draft::new(seed, form, format, (3, 1), None);
    let name = format!("product {}", draft.format);
    draft.finish(&name, RowElem::F32, |draft, token| draft.products(token))
}

fn with(seed: u64, extra: Extra, form: Form) -> Case {
    match extra {
        Extra::Gelu => gelu(seed, form),
        Extra::Gated => gated(seed, form),
        Extra::Residual => residual(seed, form),
    }
}

fn gelu(seed: u64, form: Form) -> Case {
    let mut draft = Draft::new(seed, form, WeightFormat::Bf16, (3, 1), Some(NormOf::Rms));
    let bias = draft.memory.numbers(3 * PANEL);
    let offset = draft.memory.vector(&bias);
    draft.kernel.segments[0].epilogue.steps = vec![Step::Bias(offset), Step::Act(Activation::GeluTanh)];
    draft.finish("norm, product, bias, gelu", RowElem::Bf16, move |draft, token| {
        let of = |(p, b): (Near, &f32)| {
            let at = p.value + f64::from(*b);
            // The slope of GELU is less than 1.2; what its own arithmetic loses is some roundings of the value.
            let value = gelu_tanh(at);
            Near { value, bound: 1.2 * (p.bound + at.abs() * UNIT) + value.abs() * BF16 + at.abs() * 64.0 * UNIT }
        };
        draft.products(token).into_iter().zip(&bias).map(of).collect()
    })
}

pub fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

fn gated(seed: u64, form: Form) -> Case {
    let mut draft = Draft::new(seed, form, WeightFormat::Bf16, (2, 2), Some(NormOf::Layer));
    draft.kernel.segments[0].epilogue.steps = vec![Step::Gated(Activation::Silu)];
    draft.finish("layer norm, gated product", RowElem::F32, |draft, token| {
        let pair = |unit: &[Near]| -> Vec<Near> {
            let (gate, up) = unit.split_at(PANEL);
            gate.iter().zip(up).map(|(g, u)| swiglu(*g, *u)).collect()
        };
        draft.products(token).chunks(2 * PANEL).flat_map(pair).collect()
    })
}

fn swiglu(gate: Near, up: Near) -> Near {
    let silu = gate.value / (1.0 + (-gate.value).exp());
    let value = silu * up.value;
    // The slope of SiLU is less than 1.1.
    let bound = 1.1 * gate.bound * (up.value.abs() + up.bound) + silu.abs() * up.bound;
    Near { value, bound: bound + (value.abs() + (gate.value * up.value).abs()) * 64.0 * UNIT }
}

fn residual(seed: u64, form: Form) -> Case {
    let mut draft = Draft::new(seed, form, WeightFormat::Bf16, (3, 1), None);
    let before: Vec<Vec<f32>> = (0..form.tokens()).map(|_| draft.memory.numbers(3 * PANEL)).collect();
    let rows = draft.memory.given(&before);
    draft.kernel.segments[0].epilogue.steps = vec![Step::Scale(0.5), Step::Residual(rows)];
    draft.finish("product, scale, residual", RowElem::F32, move |draft, token| {
        let of = |(p, r): (Near, &f32)| {
            let value = 0.5 * p.value + f64::from(*r);
            Near { value, bound: 0.5 * p.bound + (value.abs() + 1.0) * UNIT }
        };
        draft.products(token).into_iter().zip(&before[token]).map(of).collect()
    })
}

/// A norm before a product.
#[derive(Clone, Copy)]
enum NormOf {
    Rms,
    Layer,
}

impl NormOf {
    /// The norm with random weights, and what it makes of rows.
    fn apply(self, memory: &mut Memory, rows: &[Vec<f64>]) -> (Norm, Vec<Vec<f64>>) {
        let scale: Vec<f32> = memory.numbers(K).iter().map(|v| 1.0 + v / 2.0).collect();
        let offset = memory.vector(&scale);
        let mean_of = |row: &[f64]| row.iter().sum::<f64>() / row.len() as f64;
        let scaled = |row: &[f64], mean: f64| -> Vec<f64> {
            let square = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let root = (square + f64::from(EPS)).sqrt();
            row.iter().zip(&scale).map(|(v, s)| (v - mean) / root * f64::from(*s)).collect()
        };
        match self {
            NormOf::Rms => (Norm::Rms { eps: EPS, scale: offset }, rows.iter().map(|row| scaled(row, 0.0)).collect()),
            NormOf::Layer => {
                let bias: Vec<f32> = memory.numbers(K).iter().map(|v| v / 4.0).collect();
                let at = memory.vector(&bias);
                let of = |row: &Vec<f64>| {
                    let normed = scaled(row, mean_of(row));
                    normed.iter().zip(&bias).map(|(v, b)| v + f64::from(*b)).collect()
                };
                (Norm::Layer { eps: EPS, scale: offset, bias: at }, rows.iter().map(of).collect())
            }
        }
    }
}
