//! What works on rows: embeddings, norms, angles and turns, pointwise functions, gathering.

use super::memory::{Near, expect};
use super::{BF16, Case, Form, Memory, Part, UNIT};
use crate::SCHEMES;
use llmc_kernels::WeightFormat;
use llmc_kernels::env::{Count, RowElem, Rows, Scratch};
use llmc_kernels::formats::quant::QuantLayout;
use llmc_kernels::kir::Function;
use llmc_kernels::layout::PANEL;
use llmc_kernels::ops::embed::EmbedKernel;
use llmc_kernels::ops::epilogue::Activation;
use llmc_kernels::ops::gather::GatherKernel;
use llmc_kernels::ops::norm::{ConvertKernel, Norm, NormKernel};
use llmc_kernels::ops::pointwise::{Pointwise, PointwiseKernel};
use llmc_kernels::ops::rope::{RopeKernel, RopeTableKernel, Rotation};
use llmc_kernels::ops::route::RouteKernel;

/// Elements of a row, and of a head.
const WIDTH: usize = 256;
const HEAD: usize = 64;
const EPS: f32 = 1e-5;
/// Tokens of a step: such kernels have one form for all.
const FORM: Form = Form::Few;

/// All of them.
pub fn cases(seed: u64) -> Vec<Case> {
    let floats = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::F16];
    let mut all: Vec<Case> =
        floats.into_iter().chain(SCHEMES.map(WeightFormat::Quant)).map(|format| embed(seed, format)).collect();
    all.extend([normed(seed, false), normed(seed, true), converted(seed), angles(seed), gathered(seed)]);
    all.extend([turned(seed, false), turned(seed, true)]);
    all.extend((0..POINTWISE.len()).map(|i| pointwise(seed, i)));
    all.extend(routes(seed));
    all
}

/// Routing to experts, as families do it: the number of experts, those kept, sigmoid, normalized, scale.
pub fn routes(seed: u64) -> Vec<Case> {
    let ways =
        [(8, 2, false, true, 1.0), (20, 4, true, false, 1.0), (60, 4, false, false, 1.0), (256, 8, true, true, 2.5)];
    ways.into_iter().map(|way| routed(seed, way)).collect()
}

fn rows_of(memory: &mut Memory) -> Vec<Vec<f32>> {
    (0..FORM.tokens()).map(|_| memory.numbers(WIDTH)).collect()
}

/// A case of one kernel.
fn case<K: 'static>(
    name: String,
    memory: Memory,
    kernel: K,
    build: fn(&K, &str, Scratch) -> Function,
    (out, wanted): (Rows, Vec<Vec<Near>>),
) -> Case {
    let build = Box::new(move |scratch| vec![Part::Works(build(&kernel, "kernel", scratch))]);
    Case { name, memory, counters: 0, build, expected: vec![expect(&out, &wanted)] }
}

/// As far off as so many roundings of it.
fn near(value: f64, roundings: f64) -> Near {
    Near { value, bound: value.abs() * roundings * UNIT }
}

fn embed(seed: u64, format: WeightFormat) -> Case {
    let mut memory = Memory::new(seed, FORM.tokens());
    let values = match format {
        WeightFormat::Quant(scheme) => {
            QuantLayout::table_bytes(scheme).map(|_| memory.weigh(&QuantLayout::table(scheme)))
        }
        _ => None,
    };
    let (table, weights) = memory.panels(format, 2, WIDTH);
    for t in 0..FORM.tokens() {
        memory.ids[t] = memory.below(2 * PANEL) as i32;
    }
    let out = memory.place(FORM.most(), WIDTH, RowElem::F32);
    let row = |id: &i32| weights[*id as usize].iter().map(|v| near((*v).into(), 4.0)).collect();
    let wanted = memory.ids.iter().map(row).collect();
    let kernel = EmbedKernel { index: "ids", table, format, values, out };
    case(format!("embedding {format}"), memory, kernel, EmbedKernel::build, (out, wanted))
}

fn normed(seed: u64, layer: bool) -> Case {
    let mut memory = Memory::new(seed, FORM.tokens());
    let values = rows_of(&mut memory);
    let x = memory.given(&values);
    let scale: Vec<f32> = memory.numbers(WIDTH).iter().map(|v| 1.0 + v / 2.0).collect();
    let bias: Vec<f32> = if layer { memory.numbers(WIDTH) } else { vec![0.0; WIDTH] };
    let (scale_at, bias_at) = (memory.vector(&scale), memory.vector(&bias));
    let norm = match layer {
        true => Norm::Layer { eps: EPS, scale: scale_at, bias: bias_at },
        false => Norm::Rms { eps: EPS, scale: scale_at },
    };
    let y = memory.place(FORM.most(), WIDTH, RowElem::F32);
    let of_row = |row: &Vec<f32>| {
        let row: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
        let mean = if layer { row.iter().sum::<f64>() / WIDTH as f64 } else { 0.0 };
        let square = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / WIDTH as f64;
        let root = (square + f64::from(EPS)).sqrt();
        let of = |i: usize| {
            let scaled = (row[i] - mean) / root * f64::from(scale[i]);
            let value = scaled + f64::from(bias[i]);
            Near { value, bound: (scaled.abs() + 4.0) * (WIDTH + 16) as f64 * UNIT }
        };
        (0..WIDTH).map(of).collect()
    };
    let wanted = values.iter().map(of_row).collect();
    let name = if layer { "layer norm" } else { "rms norm" };
    let kernel = NormKernel { count: Count::Tokens, x, y, groups: 1, norm };
    case(name.into(), memory, kernel, NormKernel::build, (y, wanted))
}

fn converted(seed: u64) -> Case {
    let mut memory = Memory::new(seed, FORM.tokens());
    let values = rows_of(&mut memory);
    let (x, y) = (memory.given(&values), memory.place(FORM.most(), WIDTH, RowElem::Bf16));
    let of = |v: &f32| Near { value: (*v).into(), bound: f64::from(v.abs()) * BF16 };
    let wanted = values.iter().map(|row| row.iter().map(of).collect()).collect();
    let kernel = ConvertKernel { count: Count::Tokens, x, y };
    case("rounding to bf16".into(), memory, kernel, ConvertKernel::build, (y, wanted))
}

fn angles(seed: u64) -> Case {
    let mut memory = Memory::new(seed, FORM.tokens());
    let inv_freq: Vec<f32> = (0..HEAD / 2).map(|i| 10000f32.powf(-(i as f32) / 32.0)).collect();
    let at = memory.vector(&inv_freq);
    for t in 0..FORM.tokens() {
        memory.positions[t] = memory.below(5000) as i32;
    }
    let table = memory.place(FORM.most(), HEAD, RowElem::F32);
    let scaling = 1.25;
    let row = |position: &i32| {
        // The angle is rounded, and that moves what follows by as much.
        let of = |freq: &f32| (f64::from(*position as f32 * freq), f64::from(*position) * f64::from(*freq) * UNIT);
        let near = |value: f64, off: f64| Near { value: value * 1.25, bound: 1.3 * (off + 16.0 * UNIT) };
        let all: Vec<(f64, f64)> = inv_freq.iter().map(of).collect();
        let cosines = all.iter().map(|(a, off)| near(a.cos(), *off));
        cosines.chain(all.iter().map(|(a, off)| near(a.sin(), *off))).collect()
    };
    let wanted = memory.positions.iter().map(row).collect();
    let kernel = RopeTableKernel { inv_freq: at, table, scaling, period: None };
    case("angles".into(), memory, kernel, RopeTableKernel::build, (table, wanted))
}

fn gathered(seed: u64) -> Case {
    let mut memory = Memory::new(seed, FORM.tokens());
    let values = rows_of(&mut memory);
    memory.rows = vec![4, 0, 2];
    let (x, y) = (memory.given(&values), memory.place(FORM.most(), WIDTH, RowElem::F32));
    let row = |r: &i32| values[*r as usize].iter().map(|v| near((*v).into(), 0.0)).collect();
    let wanted = memory.rows.iter().map(row).collect();
    case("gathering".into(), memory, GatherKernel { x, y }, GatherKernel::build, (y, wanted))
}

fn turned(seed: u64, interleaved: bool) -> Case {
    let mut memory = Memory::new(seed, FORM.tokens());
    let values = rows_of(&mut memory);
    let x = memory.given(&values);
    let half = HEAD / 2;
    let turns: Vec<Vec<f32>> = (0..FORM.tokens()).map(|_| memory.numbers(HEAD)).collect();
    let table = memory.given(&turns);
    let y = memory.place(FORM.most(), WIDTH, RowElem::F32);
    let of = |t: usize, i: usize| {
        let (head, e) = (i / HEAD * HEAD, i % HEAD);
        let (pair, first) = if interleaved { (e / 2, e % 2 == 0) } else { (e % half, e < half) };
        let places = if interleaved { [2 * pair, 2 * pair + 1] } else { [pair, half + pair] };
        let [a, b] = places.map(|p| f64::from(values[t][head + p]));
        let (cos, sin) = (f64::from(turns[t][pair]), f64::from(turns[t][half + pair]));
        let value = if first { a * cos - b * sin } else { b * cos + a * sin };
        Near { value, bound: (a.abs() + b.abs()) * 3.0 * UNIT }
    };
    let wanted = (0..FORM.tokens()).map(|t| (0..WIDTH).map(|i| of(t, i)).collect()).collect();
    let rotation = Rotation { rotary_dim: HEAD, interleaved };
    let kernel = RopeKernel { x, y, heads: WIDTH / HEAD, rotation, table };
    let name = if interleaved { "turning neighbours" } else { "turning halves" };
    case(name.into(), memory, kernel, RopeKernel::build, (y, wanted))
}

fn routed(seed: u64, (experts, top, sigmoid, normalize, scale): (usize, usize, bool, bool, f32)) -> Case {
    let mut memory = Memory::new(seed, FORM.tokens());
    // Some logits are equal.
    let mut row = || memory.numbers(experts).iter().map(|v| (v * 16.0).round() / 4.0).collect();
    let logits: Vec<Vec<f32>> = (0..FORM.tokens()).map(|_| row()).collect();
    let x = memory.given(&logits);
    let y = memory.place(FORM.most(), experts, RowElem::F32);
    let of_row = |row: &Vec<f32>| {
        let mut order: Vec<usize> = (0..experts).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
        let score = |v: f32| if sigmoid { 1.0 / (1.0 + f64::from(-v).exp()) } else { f64::from(v).exp() };
        let scores: Vec<f64> = row.iter().map(|v| score(*v)).collect();
        let of = |experts: &[usize]| experts.iter().map(|i| scores[*i]).sum::<f64>();
        let sum = if normalize { of(&order[..top]) } else { [of(&order), 1.0][usize::from(sigmoid)] };
        let mut weights = vec![near(0.0, 0.0); experts];
        for i in &order[..top] {
            weights[*i] = near(scores[*i] / sum * f64::from(scale), (experts + 32) as f64);
        }
        weights
    };
    let wanted = logits.iter().map(of_row).collect();
    let kernel = RouteKernel { count: Count::Tokens, x, y, top, sigmoid, normalize, scale };
    case(format!("{top} of {experts} experts"), memory, kernel, RouteKernel::build, (y, wanted))
}

/// Names of pointwise functions.
const POINTWISE: [&str; 9] = ["copy", "add", "mul", "bias", "scale", "silu", "gelu", "gelu tanh", "relu"];

fn pointwise(seed: u64, number: usize) -> Case {
    let mut memory = Memory::new(seed, FORM.tokens());
    let (values, others) = (rows_of(&mut memory), rows_of(&mut memory));
    let (x, other) = (memory.given(&values), memory.given(&others));
    let vector = memory.vector(&others[0]);
    let y = memory.place(FORM.most(), WIDTH, RowElem::F32);
    let act = |a| Pointwise::Act(a);
    let f = [
        Pointwise::Copy,
        Pointwise::Add(other),
        Pointwise::Mul(other),
        Pointwise::Bias(vector),
        Pointwise::Scale(0.3),
        act(Activation::Silu),
        act(Activation::Gelu),
        act(Activation::GeluTanh),
        act(Activation::Relu),
    ][number]
        .clone();
    let of = |t: usize, i: usize| {
        let (v, o) = (f64::from(values[t][i]), f64::from(others[t][i]));
        let value = match POINTWISE[number] {
            "add" => v + o,
            "mul" => v * o,
            "bias" => v + f64::from(others[0][i]),
            "scale" => v * f64::from(0.3f32),
            "silu" => v / (1.0 + (-v).exp()),
            "gelu" => 0.5 * v * (1.0 + erf(v / std::f64::consts::SQRT_2)),
            "gelu tanh" => super::products::gelu_tanh(v),
            "relu" => v.max(0.0),
            _ => v,
        };
        // Functions lose some roundings of what they are given, sums and products one.
        Near { value, bound: value.abs() * UNIT + if number < 5 { 0.0 } else { v.abs() * 64.0 * UNIT } }
    };
    let wanted = (0..FORM.tokens()).map(|t| (0..WIDTH).map(|i| of(t, i)).collect()).collect();
    let kernel = PointwiseKernel { count: Count::Tokens, x, x_start: 0, y, f };
    case(format!("pointwise {}", POINTWISE[number]), memory, kernel, PointwiseKernel::build, (y, wanted))
}

/// The error function by its series, which converges everywhere: Abramowitz and Stegun, 7.1.5.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..60 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    2.0 / std::f64::consts::PI.sqrt() * sum
}
