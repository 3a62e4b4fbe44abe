//! Attention over the cache, and products whose results go there.

use super::memory::{Near, expect};
use super::{Case, F16, Form, Memory, Part, UNIT};
use gpu_check::kernels::{Elem, Expected};
use llmc_kernels::Target;
use llmc_kernels::WeightFormat;
use llmc_kernels::env::{Count, Place, RowElem};
use llmc_kernels::layout::{KvLayout, PAGE, PANEL};
use llmc_kernels::ops::attention::{AttentionKernel, Sinks};
use llmc_kernels::ops::epilogue::{Epilogue, Sink, Step};
use llmc_kernels::ops::gpu::attention::{Chunks, chunk_bytes};
use llmc_kernels::ops::gpu::gemv::Gather;
use llmc_kernels::ops::kv::{KvAppendKernel, KvCache, Part as KvPart};
use llmc_kernels::ops::linear::{LinearKernel, Segment};
use llmc_kernels::ops::mac::Mac;
use llmc_kernels::ops::product::Product;
use llmc_kernels::ops::prologue::Prologue;
use llmc_kernels::ops::rope::Rotation;
use llmc_kernels::schedule::Schedule;

/// Query heads, key heads, elements of each.
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = 64;
/// Positions in the cache before a step.
const BEFORE: usize = 70;
/// Positions that a window has.
const WINDOW: usize = 24;
/// Elements of k of products.
const K: usize = 128;
const EPS: f32 = 1e-6;

/// Attention in every form over every cache; products with heads of every kind; the store by itself.
pub fn cases(seed: u64) -> Vec<Case> {
    let mut all = Vec::new();
    for form in Form::ALL {
        for kind in [Kind::F32, Kind::F16, Kind::Int8, Kind::Fp8] {
            all.push(attend(seed, form, kind, Sight::All));
            all.push(project(seed, form, kind, kind != Kind::F16));
        }
        all.push(attend(seed, form, Kind::F16, Sight::Window));
        all.push(attend(seed, form, Kind::F16, Sight::Pages));
        all.extend([Kind::F16, Kind::Int8, Kind::Fp8].map(|kind| append(seed, form, kind)));
    }
    all
}

/// What a token sees of its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    All,
    /// The last [`WINDOW`] positions.
    Window,
    /// The first page and its own.
    Pages,
}

impl Sight {
    /// What kernels are called by.
    fn name(self) -> &'static str {
        match self {
            Sight::All => "",
            Sight::Window => " window",
            Sight::Pages => " pages",
        }
    }

    /// The positions that a token sees, each with the number of pages by which its query is turned.
    fn positions(self, position: usize) -> Vec<(usize, usize)> {
        let own = position / PAGE;
        match self {
            Sight::All => (0..=position).map(|p| (p, 0)).collect(),
            Sight::Window => ((position + 1).saturating_sub(WINDOW)..=position).map(|p| (p, 0)).collect(),
            Sight::Pages => {
                let first = (0..PAGE * own.min(1)).map(|p| (p, 1));
                first.chain((own * PAGE..=position).map(|p| (p, 0))).collect()
            }
        }
    }
}

/// A query as it meets a key: its elements, and what they may be made of.
#[derive(Clone)]
struct Query {
    values: Vec<f64>,
    sizes: Vec<f64>,
}

impl Query {
    fn new(q: &[f32]) -> Query {
        let values: Vec<f64> = q.iter().map(|v| f64::from(*v)).collect();
        Query { sizes: values.iter().map(|v| v.abs()).collect(), values }
    }

    /// Turned by cosines and sines, halves together.
    fn turned(&self, angles: &[f32]) -> Query {
        let half = angles.len() / 2;
        let mut turned = self.clone();
        for i in 0..half {
            let (a, b) = (self.values[i], self.values[i + half]);
            let (cos, sin) = (f64::from(angles[i]), f64::from(angles[i + half]));
            (turned.values[i], turned.values[i + half]) = (a * cos - b * sin, b * cos + a * sin);
            (turned.sizes[i], turned.sizes[i + half]) = (a.abs() + b.abs(), a.abs() + b.abs());
        }
        turned
    }
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    F32,
    F16,
    Int8,
    Fp8,
}

impl Kind {
    fn cache(self) -> KvCache {
        let elem_bytes = match self {
            Kind::F32 => 4,
            Kind::F16 => 2,
            Kind::Int8 | Kind::Fp8 => 1,
        };
        let is_e4m3 = self == Kind::Fp8;
        let layout = KvLayout { heads: KV_HEADS, head_dim: HEAD, elem_bytes, is_e4m3, counted: false };
        KvCache { layout, page_bytes: layout.layer_bytes() }
    }

    /// How its elements are read.
    fn elem(self) -> Elem {
        match self {
            Kind::F32 => Elem::F32,
            Kind::F16 => Elem::F16,
            Kind::Int8 => Elem::ScaledI8,
            Kind::Fp8 => Elem::ScaledE4m3,
        }
    }

    /// How far an element may be from the number stored, of a head whose largest is `largest`.
    fn rounding(self, value: f64, largest: f64) -> f64 {
        match self {
            Kind::F32 => 0.0,
            Kind::F16 => value.abs() * F16,
            // Half a step, and what the step itself is off by.
            Kind::Int8 => largest / 127.0 * (0.5 + 300.0 * UNIT),
            // Half a unit of three bits, or of the least numbers.
            Kind::Fp8 => (value.abs() / 16.0).max(largest / 448.0 / 1024.0) * (1.0 + 300.0 * UNIT),
        }
    }
}

/// Memory with a cache of zeros; where a step has several tokens, the last ones are of a second sequence.
fn memory_of(seed: u64, form: Form, cache: &KvCache) -> Memory {
    let mut memory = Memory::new(seed, form.tokens());
    let first = form.tokens() - form.tokens() / 3;
    let second = |t: usize| t >= first;
    memory.seqs = (0..form.tokens()).map(|t| i32::from(second(t))).collect();
    memory.positions = (0..form.tokens()).map(|t| if second(t) { t - first } else { BEFORE + t } as i32).collect();
    // Pages in an order of their own.
    memory.table = (0..16).map(|i| (i * 7 + 3) % 16).collect();
    memory.stride = 8;
    memory.kv = vec![0; 16 * cache.page_bytes];
    memory
}

/// Where an element of the cache is, and its position's scale.
fn place(
    memory: &Memory,
    cache: &KvCache,
    (seq, position): (usize, usize),
    at: (KvPart, usize, usize),
) -> (usize, usize) {
    let (part, head, element) = at;
    let layout = cache.layout;
    let (page, slot) = (memory.table[seq * memory.stride + position / PAGE] as usize, position % PAGE);
    let part_offset = if part == KvPart::Keys { 0 } else { layout.value_offset() };
    let base = page * cache.page_bytes + part_offset + head * layout.head_bytes();
    let index = if part == KvPart::Keys { element * PAGE + slot } else { slot * HEAD + element };
    (base + index * layout.elem_bytes, base + layout.scale_offset() + 4 * slot)
}

/// Fills one head's elements at a position with random numbers that the cache can hold.
fn fill(memory: &mut Memory, cache: &KvCache, of: (usize, usize), (part, head): (KvPart, usize)) -> Vec<f64> {
    let scale = if cache.layout.is_e4m3 { 2.0 } else { 0.01 };
    let mut values = Vec::with_capacity(HEAD);
    for element in 0..HEAD {
        let v = memory.number();
        let (at, scale_at) = place(memory, cache, of, (part, head, element));
        let value = match cache.layout.elem_bytes {
            1 => {
                memory.kv[scale_at..scale_at + 4].copy_from_slice(&f32::to_le_bytes(scale));
                let (code, value) = byte(cache.layout.is_e4m3, v);
                memory.kv[at] = code;
                value * f64::from(scale)
            }
            2 => {
                let half = half::f16::from_f32(v);
                memory.kv[at..at + 2].copy_from_slice(&half.to_le_bytes());
                half.into()
            }
            _ => {
                memory.kv[at..at + 4].copy_from_slice(&v.to_le_bytes());
                v.into()
            }
        };
        values.push(value);
    }
    values
}

/// A byte that stands for a number near `v` times something, and what it does without its scale.
fn byte(is_e4m3: bool, v: f32) -> (u8, f64) {
    if !is_e4m3 {
        let q = (v * 100.0) as i8;
        return (q as u8, q.into());
    }
    // Some code but that of no number; with the sign of `v`.
    let code = ((v.abs() * 126.9) as u16, u16::from(v < 0.0));
    let half = half::f16::from_bits(code.1 << 15 | code.0 << 7);
    ((code.1 << 7 | code.0) as u8, half.into())
}

fn attend(seed: u64, form: Form, kind: Kind, sight: Sight) -> Case {
    let cache = kind.cache();
    let mut memory = memory_of(seed, form, &cache);
    // Keys and values of every position: `[sequence][position][head]`.
    let ends = [0, 1].map(|s| {
        let own = memory.positions.iter().zip(&memory.seqs).filter(|(_, seq)| **seq == s);
        own.map(|(p, _)| *p as usize + 1).max().unwrap_or(0)
    });
    let mut stored = [const { Vec::new() }; 2];
    for (seq, end) in ends.into_iter().enumerate() {
        for position in 0..end {
            let heads: Vec<[Vec<f64>; 2]> = (0..KV_HEADS)
                .map(|h| {
                    [KvPart::Keys, KvPart::Values].map(|part| fill(&mut memory, &cache, (seq, position), (part, h)))
                })
                .collect();
            stored[seq].push(heads);
        }
    }
    let queries: Vec<Vec<f32>> = (0..form.tokens()).map(|_| memory.numbers(HEADS * HEAD)).collect();
    let q = memory.given(&queries);
    let out = memory.place(form.most(), HEADS * HEAD, RowElem::F32);
    let chunked = form.most().min(16);
    let rows = memory.bytes(chunk_bytes(chunked, HEADS, HEAD));
    let chunks = Some(Chunks { rows, counters: 0, tokens: chunked, most: form.most() });
    let target = Target::from_name("cuda").expect("GPUs are known");
    let schedule = Schedule { tiles: form == Form::Many, ..Schedule::new(&target, 64) };
    let scale = 1.0 / (HEAD as f32).sqrt();
    // Angles for no page between, and for one.
    let turns: Vec<f32> = [vec![1.0; HEAD / 2], vec![0.0; HEAD / 2], memory.numbers(HEAD)].concat();
    let rotation = Rotation { rotary_dim: HEAD, interleaved: false };
    let sinks = (sight == Sight::Pages).then(|| Sinks { first: 1, last: 1, turns: memory.vector(&turns), rotation });
    let kernel = AttentionKernel {
        cache,
        q,
        out,
        heads: HEADS,
        scale,
        window: (sight == Sight::Window).then_some(WINDOW),
        sinks,
        softcap: None,
        heads_in_flight: schedule.attention_heads,
        values_in_flight: schedule.attention_values,
        rows_in_flight: schedule.attention_rows,
        chunks,
        counts: None,
    };
    // Attention of many tokens by matrix products rounds queries and weights to binary16.
    let by_matrices = form == Form::Many && kind != Kind::F32 && sinks.is_none();
    let rounding = if by_matrices { F16 } else { 0.0 };
    let wanted: Vec<Vec<Near>> = (0..form.tokens())
        .map(|t| {
            let (seq, position) = (memory.seqs[t] as usize, memory.positions[t] as usize);
            let of_head = |h: usize| {
                let q = Query::new(&queries[t][h * HEAD..][..HEAD]);
                let turned = [q.clone(), q.turned(&turns[HEAD..])];
                let seen: Vec<Seen> = sight
                    .positions(position)
                    .into_iter()
                    .map(|(p, pages)| Seen { query: &turned[pages], heads: &stored[seq][p] })
                    .collect();
                head(&seen, h / (HEADS / KV_HEADS), (scale.into(), rounding))
            };
            (0..HEADS).flat_map(of_head).collect()
        })
        .collect();
    let name = format!("attention {kind:?}{}, {form:?}", sight.name()).to_lowercase();
    Case {
        name,
        memory,
        counters: chunked * KV_HEADS,
        build: Box::new(move |scratch| vec![Part::Works(kernel.build("attention", scratch))]),
        expected: vec![expect(&out, &wanted)],
    }
}

/// A position with the query that it meets: keys and values of each head.
struct Seen<'a> {
    query: &'a Query,
    heads: &'a [[Vec<f64>; 2]],
}

/// Attention to keys and values of one head.
fn head(seen: &[Seen<'_>], kv_head: usize, (scale, rounding): (f64, f64)) -> Vec<Near> {
    let mut scores = Vec::new();
    let mut off = 0.0f64;
    for Seen { query, heads } in seen {
        let with = |q: &[f64]| -> Vec<f64> { q.iter().zip(&heads[kv_head][0]).map(|(q, k)| q * k * scale).collect() };
        let score: f64 = with(&query.values).iter().sum();
        let size: f64 = with(&query.sizes).iter().map(|t| t.abs()).sum();
        off = off.max(size * (rounding + (HEAD + 16) as f64 * UNIT));
        scores.push(score);
    }
    let most = scores.iter().copied().fold(f64::MIN, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    // A score that is off by a little moves its weight by that much of itself; weights are rounded once alone and once
    // times a scale, and added.
    let moved = 1.1 * off + 2.0 * rounding + (2 * seen.len() + 64) as f64 * UNIT;
    (0..HEAD)
        .map(|e| {
            let terms = weights.iter().zip(seen).map(|(w, seen)| w / total * seen.heads[kv_head][1][e]);
            let (value, size) = terms.fold((0.0, 0.0), |(v, s): (f64, f64), t| (v + t, s + t.abs()));
            // Each weight is off, and so is the sum that they are divided by.
            Near { value, bound: 2.0 * size * moved }
        })
        .collect()
}

/// Numbers that the cache should hold for the tokens of a step: `[token][head][element]`.
fn expect_cache(memory: &Memory, kind: Kind, part: KvPart, values: &[Vec<Vec<Near>>]) -> Expected {
    let cache = kind.cache();
    let mut e =
        Expected { buffer: "kv".into(), elem: kind.elem(), at: vec![], scales: vec![], want: vec![], bound: vec![] };
    for (t, heads) in values.iter().enumerate() {
        let of = (memory.seqs[t] as usize, memory.positions[t] as usize);
        for (h, head) in heads.iter().enumerate() {
            let largest = head.iter().map(|n| n.value.abs() + n.bound).fold(0.0, f64::max);
            for (i, n) in head.iter().enumerate() {
                let (at, scale) = place(memory, &cache, of, (part, h, i));
                e.at.push(at as u32);
                e.scales.push(scale as u32);
                e.want.push(n.value);
                e.bound.push(1.1 * n.bound + kind.rounding(n.value, largest));
            }
        }
    }
    e
}

fn append(seed: u64, form: Form, kind: Kind) -> Case {
    let cache = kind.cache();
    let mut memory = memory_of(seed, form, &cache);
    let mut given = || {
        let values: Vec<Vec<f32>> = (0..form.tokens()).map(|_| memory.numbers(KV_HEADS * HEAD)).collect();
        (memory.given(&values), values)
    };
    let ((k, keys), (v, values)) = (given(), given());
    let exact = |rows: &[Vec<f32>]| -> Vec<Vec<Vec<Near>>> {
        let head = |h: &[f32]| h.iter().map(|v| Near { value: (*v).into(), bound: 0.0 }).collect();
        rows.iter().map(|row| row.chunks(HEAD).map(head).collect()).collect()
    };
    let expected = vec![
        expect_cache(&memory, kind, KvPart::Keys, &exact(&keys)),
        expect_cache(&memory, kind, KvPart::Values, &exact(&values)),
    ];
    let kernel = KvAppendKernel { cache, k, v };
    Case {
        name: format!("store {kind:?}, {form:?}").to_lowercase(),
        memory,
        counters: 0,
        build: Box::new(move |scratch| vec![Part::Works(kernel.build("store", scratch))]),
        expected,
    }
}

/// Q, K and V of bf16 weights, the first two turned, and normed before that where `normed`.
fn project(seed: u64, form: Form, kind: Kind, normed: bool) -> Case {
    let cache = kind.cache();
    let mut memory = memory_of(seed, form, &cache);
    let x: Vec<Vec<f32>> =
        (0..form.tokens()).map(|_| (0..K).map(|_| (memory.below(255) as f32 - 127.0) / 64.0).collect()).collect();
    let rows = memory.given(&x);
    let angles: Vec<Vec<f32>> = (0..form.tokens())
        .map(|_| {
            let turns: Vec<f32> = (0..HEAD / 2).map(|_| 3.0 * memory.number()).collect();
            turns.iter().map(|a| a.cos()).chain(turns.iter().map(|a| a.sin())).collect()
        })
        .collect();
    let table = memory.given(&angles);
    let scale: Vec<f32> = memory.numbers(HEAD).iter().map(|v| 1.0 + v / 2.0).collect();
    let scale_at = memory.vector(&scale);
    let rotation = Rotation { rotary_dim: HEAD, interleaved: false };
    let turned: Vec<Step> = normed
        .then_some(Step::HeadNorm { eps: EPS, scale: scale_at })
        .into_iter()
        .chain([Step::Rope { rotation, table }])
        .collect();
    let (mac, elem) = Mac::of_groups(WeightFormat::Bf16, RowElem::Bf16).expect("bf16 is multiplied");
    let shared = memory.place(form.most(), K, elem).place;
    let prologue = Some(Prologue { norm: None, elem, shared, own: Place::Worker(0), phase: 0 });
    let q = memory.place(form.most(), HEADS * HEAD, RowElem::F32);
    let panels = HEAD / PANEL;
    let sinks = [Sink::Rows(q), Sink::Kv(cache, KvPart::Keys), Sink::Kv(cache, KvPart::Values)];
    let (mut segments, mut results) = (Vec::new(), Vec::new());
    for ((sink, units), steps) in
        sinks.into_iter().zip([HEADS, KV_HEADS, KV_HEADS]).zip([turned.clone(), turned, vec![]])
    {
        let (weight, weights) = memory.panels(WeightFormat::Bf16, units * panels, K);
        let product = Product { format: WeightFormat::Bf16, mac, k: K, panels, x_stride: elem.stride(K), coded: None };
        let of = |t: usize| -> Vec<Vec<Near>> {
            let rows: Vec<Near> = weights.iter().map(|w| dot(&x[t], w)).collect();
            let scale = normed.then_some(&scale);
            let turn = |head: &[Near]| if steps.is_empty() { head.to_vec() } else { turn(head, scale, &angles[t]) };
            rows.chunks(HEAD).map(turn).collect()
        };
        results.push((0..form.tokens()).map(of).collect::<Vec<_>>());
        segments.push(Segment { weight, product, units, epilogue: Epilogue { steps, sink, unit_rows: HEAD, panels } });
    }
    let target = Target::from_name("cuda").expect("GPUs are known");
    let schedule = Schedule { tiles: form == Form::Many, ..Schedule::new(&target, 64) };
    let in_halves = !schedule.tiles && segments.iter().all(|s| s.epilogue.is_in_halves());
    let units = HEADS + 2 * KV_HEADS;
    let waiting = memory.bytes(form.most() * units * HEAD * 4);
    let gather = (!in_halves).then_some(Gather { rows: waiting, counters: 0 });
    let (ahead, single) = (form != Form::Many, form == Form::One);
    let kernel = LinearKernel {
        count: Count::Tokens,
        x: rows,
        prologue,
        segments,
        raw: Place::Worker(0),
        schedule,
        gather,
        ahead,
        single,
    };
    let wanted: Vec<Vec<Near>> = results[0].iter().map(|heads| heads.concat()).collect();
    let expected = vec![
        expect(&q, &wanted),
        expect_cache(&memory, kind, KvPart::Keys, &results[1]),
        expect_cache(&memory, kind, KvPart::Values, &results[2]),
    ];
    let before = if normed { " normed" } else { "" };
    Case {
        name: format!("q, k and v{before} to {kind:?}, {form:?}").to_lowercase(),
        memory,
        counters: units,
        build: Box::new(move |scratch| {
            let ahead = kernel.build_ahead("ahead", scratch).map(Part::Asks);
            ahead.into_iter().chain([Part::Works(kernel.build("qkv", scratch))]).collect()
        }),
        expected,
    }
}

fn dot(x: &[f32], w: &[f32]) -> Near {
    let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
    let (value, size) = terms.fold((0.0, 0.0), |(v, s): (f64, f64), t| (v + t, s + t.abs()));
    Near { value, bound: size * (K + 8) as f64 * UNIT }
}

/// A head normed, if there is a scale, and turned by angles: cosines, then sines.
fn turn(head: &[Near], scale: Option<&Vec<f32>>, angles: &[f32]) -> Vec<Near> {
    let normed: Vec<Near> = match scale {
        None => head.to_vec(),
        Some(scale) => norm(head, scale),
    };
    let half = HEAD / 2;
    let of = |i: usize| {
        let (cos, sin) = (f64::from(angles[i % half]), f64::from(angles[half + i % half]));
        let (a, b) = (normed[i % half], normed[half + i % half]);
        let value = if i < half { a.value * cos - b.value * sin } else { b.value * cos + a.value * sin };
        Near { value, bound: a.bound + b.bound + (a.value.abs() + b.value.abs()) * 4.0 * UNIT }
    };
    (0..HEAD).map(of).collect()
}

fn norm(head: &[Near], scale: &[f32]) -> Vec<Near> {
    let squares: f64 = head.iter().map(|n| n.value.powi(2)).sum();
    let root = (squares / HEAD as f64 + f64::from(EPS)).sqrt();
    // The root moves by its share of what the elements are off by.
    let off = head.iter().map(|n| n.value.abs() * n.bound).sum::<f64>() / squares + (HEAD + 16) as f64 * UNIT;
    let of = |(n, s): (&Near, &f32)| {
        let value = n.value / root * f64::from(*s);
        Near { value, bound: 1.1 * (n.bound / root * f64::from(s.abs()) + value.abs() * off) }
    };
    head.iter().zip(scale).map(of).collect()
}
