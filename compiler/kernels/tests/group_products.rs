//! Products of quantized weights in groups of threads against those of a CPU, whose sums they share bit for bit
//! where one warp has all of k.

mod common;

use llmc_abi::StepArgs;
use llmc_abi::step::STEP_FIELDS;
use llmc_ir::Scheme;
use llmc_kernels::env::{Count, Place, RowElem, Rows, Scratch};
use llmc_kernels::formats::quant::QuantLayout;
use llmc_kernels::kir::interp::{Compiled, InterpError, Machine, Order};
use llmc_kernels::kir::{Builder, Function, Op, Program, Region, Ty, verify};
use llmc_kernels::layout::PANEL;
use llmc_kernels::ops::epilogue::{Epilogue, Sink};
use llmc_kernels::ops::gpu::{SHARED_BYTES, gemm};
use llmc_kernels::ops::linear::{LinearKernel, Segment};
use llmc_kernels::ops::mac::Mac;
use llmc_kernels::ops::norm::ConvertKernel;
use llmc_kernels::ops::product::CodedWeights;
use llmc_kernels::ops::product::Product;
use llmc_kernels::ops::prologue::Prologue;
use llmc_kernels::schedule::Schedule;
use llmc_kernels::{Target, WeightFormat};

const SCHEMES: [Scheme; 12] = [
    Scheme::W8A8,
    Scheme::W8 { group: 32 },
    Scheme::W8 { group: 64 },
    Scheme::W6,
    Scheme::W5,
    Scheme::W4,
    Scheme::W3,
    Scheme::W2,
    Scheme::Int4 { group: 32 },
    Scheme::Int4 { group: 128 },
    Scheme::Int4Asym { group: 64 },
    Scheme::Int4Asym { group: 128 },
];
const TOKENS: usize = 3;
const UNITS: usize = 3;
const N: usize = UNITS * PANEL;
/// Bytes of the value table, which lies before the weights.
const TABLE_BYTES: usize = 512;
/// Bytes of each worker's scratch.
const WORKER_BYTES: usize = 1 << 20;

/// Shared memory for a row of x and three rounds of weights.
const LITTLE_ROOM: usize = 17 * 1024;

/// A product under test, and the memory it works on: x, x in bytes, and the result.
struct Case {
    scheme: Scheme,
    k: usize,
}

impl Case {
    fn x(&self, elem: RowElem) -> Rows {
        let before = TOKENS * RowElem::F32.stride(self.k);
        Rows::new(Place::Arena(if elem == RowElem::F32 { 0 } else { before }), self.k, elem)
    }

    fn y(&self) -> Rows {
        let bytes = TOKENS * (RowElem::F32.stride(self.k) + RowElem::Bytes.stride(self.k));
        Rows::new(Place::Arena(bytes), N, RowElem::F32)
    }

    fn scratch(&self, threads: usize) -> Scratch {
        let arena_bytes =
            TOKENS * (RowElem::F32.stride(self.k) + RowElem::Bytes.stride(self.k) + RowElem::F32.stride(N));
        Scratch { arena_bytes, worker_bytes: WORKER_BYTES, ..Scratch::of_threads(threads) }
    }

    /// The product of rows that are converted by it or before it.
    fn product(&self, elem: RowElem) -> LinearKernel {
        let table = (self.scheme == Scheme::W4).then_some(0);
        let coded = Some(CodedWeights { table, codes: Place::Worker(WORKER_BYTES / 4) });
        let format = WeightFormat::Quant(self.scheme);
        let x_stride = RowElem::Bytes.stride(self.k);
        let product = Product { format, mac: Mac::Dot4I8, k: self.k, panels: 1, x_stride, coded };
        let epilogue = Epilogue { steps: vec![], sink: Sink::Rows(self.y()), unit_rows: PANEL, panels: 1 };
        let prologue = (elem == RowElem::F32).then_some(Prologue {
            norm: None,
            elem: RowElem::Bytes,
            shared: Place::Worker(0),
            own: Place::Worker(0),
            phase: 0,
        });
        LinearKernel {
            count: Count::Tokens,
            x: self.x(elem),
            prologue,
            segments: vec![Segment { weight: TABLE_BYTES, product, units: UNITS, epilogue }],
            raw: Place::Worker(WORKER_BYTES / 2),
            schedule: Schedule::new(&Target::from_name("x86-64-v3").expect("a known target"), 64),
            gather: None,
            ahead: false,
            single: false,
        }
    }

    /// The product of rows of f32 with weights in bf16.
    fn in_floats(&self) -> LinearKernel {
        let plain = self.product(RowElem::F32);
        let product = Product { format: WeightFormat::Bf16, mac: Mac::Fma, coded: None, ..plain.segments[0].product };
        let segments = vec![Segment { product, ..plain.segments[0].clone() }];
        LinearKernel { prologue: None, segments, ..plain }
    }

    fn weights(&self) -> Vec<u8> {
        let layout = QuantLayout { scheme: self.scheme, k: self.k };
        let mut out: Vec<u8> = llmc_ir::quant::TABLE.iter().flatten().map(|v| (i16::from(*v) + 128) as u8).collect();
        assert_eq!(out.len(), TABLE_BYTES);
        for unit in 0..UNITS {
            let mut panel = vec![0; layout.panel_bytes()];
            layout.store(&self.scheme.encode(&numbers(unit as u32 + 7, PANEL * self.k), self.k), &mut panel);
            out.extend(panel);
        }
        out
    }

    /// Results of a step of these kernels, with a barrier before each but the first.
    fn run(&self, kernels: &[Function], threads: usize, workers: usize) -> Vec<f32> {
        self.try_run(kernels, threads, workers, Order::Seeded(5))
            .unwrap_or_else(|e| panic!("{}, k = {}, {threads} threads: {e}", self.scheme, self.k))
    }

    fn try_run(
        &self,
        kernels: &[Function],
        threads: usize,
        workers: usize,
        order: Order,
    ) -> Result<Vec<f32>, InterpError> {
        self.run_with(&self.weights(), kernels, threads, workers, order)
    }

    fn run_with(
        &self,
        weights: &[u8],
        kernels: &[Function],
        threads: usize,
        workers: usize,
        order: Order,
    ) -> Result<Vec<f32>, InterpError> {
        let scratch = self.scratch(threads);
        let program = Program { functions: kernels.iter().cloned().chain([entry(kernels)]).collect() };
        verify::verify(&program).unwrap_or_else(|e| panic!("{e}"));
        let mut machine = Machine::new();
        let weights = machine.alloc_readonly(weights.to_vec());
        let arena = machine.alloc_uninit(scratch.arena_bytes + workers * WORKER_BYTES);
        let x = self.x(RowElem::F32);
        // The interpreter knows what was written: x is there, all else is not read before it is written.
        let bytes = machine.buffer(arena);
        bytes.fill(0xa5);
        for t in 0..TOKENS {
            for (i, v) in numbers(t as u32 + 1, self.k).into_iter().enumerate() {
                bytes[t * x.stride + 4 * i..][..4].copy_from_slice(&v.to_le_bytes());
            }
        }
        let bytes = bytes.clone();
        let arena = machine.alloc(bytes);
        let mut args = vec![0; size_of::<StepArgs>()];
        for (name, offset) in STEP_FIELDS {
            let value = match name {
                "weights" => weights.0,
                "arena" => arena.0,
                "n_tokens" => TOKENS as u64,
                _ => 0,
            };
            args[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        }
        let args = machine.alloc_readonly(args);
        let compiled = Compiled::new(&program);
        machine.run_groups(&compiled, "entry", args, workers, threads, order)?;
        let Place::Arena(first) = self.y().place else { unreachable!("results are in the arena") };
        let out = machine.buffer(arena);
        let number = |at: usize| f32::from_le_bytes(out[at..at + 4].try_into().expect("four bytes"));
        Ok((0..TOKENS * N).map(|i| number(first + i / N * self.y().stride + i % N * 4)).collect())
    }

    /// The product with little room for weights on their way, which are asked for ahead: that, and the product.
    fn in_little_room(&self, threads: usize, engine: bool) -> [Function; 2] {
        let scratch = Scratch { shared: LITTLE_ROOM, engine, ..self.scratch(threads) };
        let kernel = LinearKernel { ahead: true, ..self.product(RowElem::F32) };
        let ahead = kernel.build_ahead("ahead", scratch).expect("weights are asked for ahead");
        [ahead, kernel.build("product", scratch)]
    }

    /// The product converts the rows.
    fn converts(&self, threads: usize, workers: usize) -> Vec<f32> {
        let kernel = self.product(RowElem::F32).build("product", self.scratch(threads));
        self.run(&[kernel], threads, workers)
    }

    /// The rows are converted before.
    fn converted(&self, threads: usize, workers: usize) -> Vec<f32> {
        let convert = ConvertKernel { count: Count::Tokens, x: self.x(RowElem::F32), y: self.x(RowElem::Bytes) };
        let convert = convert.build("convert", self.scratch(threads));
        let product = self.product(RowElem::Bytes).build("product", self.scratch(threads));
        self.run(&[convert, product], threads, workers)
    }
}

/// Calls the kernels.
fn entry(kernels: &[Function]) -> Function {
    let (mut b, _) = Builder::new("entry", &[]);
    let args = b.args();
    let offset = STEP_FIELDS.iter().find(|(name, _)| *name == "weights").expect("a field").1;
    let weights = b.load(Ty::PTR, args, offset as i32);
    let kv = b.index(0);
    for (i, kernel) in kernels.iter().enumerate() {
        if i > 0 {
            b.barrier(i as u32);
        }
        b.call(kernel.name.clone(), &[weights, kv]);
    }
    b.finish()
}

/// Some numbers of either sign.
fn numbers(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next() + next()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn one_warp_has_the_bits_of_a_cpu() {
    for scheme in SCHEMES {
        // Few elements, a short last group and block, several rounds of loads.
        for k in [30, 200, 1184] {
            let case = Case { scheme, k };
            let expected = case.converts(1, 2);
            assert!(expected.iter().any(|v| *v != 0.0));
            assert!(bits(&case.converts(32, 2)) == bits(&expected), "{scheme}, k = {k}");
            assert!(bits(&case.converted(32, 3)) == bits(&expected), "{scheme}, k = {k}, rows converted before");
        }
    }
}

#[test]
fn several_warps_have_nearly_the_same() {
    for scheme in SCHEMES {
        for (k, threads) in [(200, 128), (1184, 64), (513, 512)] {
            let case = Case { scheme, k };
            let expected = case.converts(1, 1);
            let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
            let found = case.converts(threads, 2);
            let error = expected.iter().zip(&found).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest;
            assert!(error < 1e-6, "{scheme}, k = {k}, {threads} threads: {error}");
            assert!(bits(&case.converted(threads, 1)) == bits(&found), "{scheme}, k = {k}: rows converted before");
        }
    }
}

/// Threads of a group that multiplies by tiles.
const TILES: usize = 256;

impl Case {
    /// The product by tiles in shared memory, of rows that are converted before: that, and the product.
    fn tiled(&self) -> [Function; 2] {
        let convert = ConvertKernel { count: Count::Tokens, x: self.x(RowElem::F32), y: self.x(RowElem::Bytes) };
        let plain = self.product(RowElem::Bytes);
        let schedule = Schedule { tiles: true, ..plain.schedule };
        let kernel = LinearKernel { schedule, ..plain };
        assert!(gemm::fits(&kernel, TILES), "{}, k = {}", self.scheme, self.k);
        [convert.build("convert", self.scratch(TILES)), kernel.build("product", self.scratch(TILES))]
    }
}

#[test]
fn tiles_have_the_bits_of_a_cpu() {
    for scheme in SCHEMES {
        for (k, workers, order) in
            [(128usize, 1, Order::Forward), (1152, 2, Order::Seeded(3)), (192, 3, Order::Reverse)]
        {
            if !k.is_multiple_of(scheme.group().unwrap_or(1)) {
                continue;
            }
            let case = Case { scheme, k };
            let expected = case.converts(1, 2);
            let found = case.try_run(&case.tiled(), TILES, workers, order);
            let found = found.unwrap_or_else(|e| panic!("{scheme}, k = {k}: {e}"));
            assert!(bits(&found) == bits(&expected), "{scheme}, k = {k}");
        }
    }
    let case = Case { scheme: Scheme::W8A8, k: 200 };
    assert!(!gemm::fits(&case.product(RowElem::Bytes), TILES), "200 elements are no whole steps");
}

/// Where rows in three parts and weights on their way do not fit, there is a form for which they do.
#[test]
fn long_rows_of_f32_fit_shared_memory() {
    for shared in [SHARED_BYTES, 226 * 1024] {
        let case = Case { scheme: Scheme::W8A8, k: 14336 };
        let scratch = Scratch { shared, engine: shared > SHARED_BYTES, ..case.scratch(256) };
        let kernel = LinearKernel { ahead: true, ..case.in_floats() };
        let kernels = [Some(kernel.build("product", scratch)), kernel.build_ahead("ahead", scratch)];
        for kernel in kernels.iter().flatten() {
            let found = kernel.shared_bytes();
            assert!(found <= shared, "{} takes {found} bytes of {shared}", kernel.name);
        }
        assert_eq!(kernels[1].is_some(), shared > SHARED_BYTES, "weights are asked for ahead where they fit");
    }
}

/// That form computes the same.
#[test]
fn rows_of_f32_in_little_room_have_nearly_the_same() {
    let case = Case { scheme: Scheme::W8A8, k: 512 };
    let weights: Vec<u8> = numbers(3, N * case.k).iter().flat_map(|v| bf16(*v)).collect();
    let weights = [vec![0; TABLE_BYTES], weights].concat();
    let run = |shared| {
        let kernel = case.in_floats().build("product", Scratch { shared, ..case.scratch(64) });
        case.run_with(&weights, &[kernel], 64, 2, Order::Seeded(2)).unwrap_or_else(|e| panic!("{e}"))
    };
    let (expected, found) = (run(SHARED_BYTES), run(8 * 1024));
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    let error = expected.iter().zip(&found).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest;
    assert!(largest > 0.0 && error < 1e-6 && expected != found, "off by {error} of {largest}");
}

/// The upper half of a number, little-endian.
fn bf16(v: f32) -> [u8; 2] {
    [(v.to_bits() >> 16) as u8, (v.to_bits() >> 24) as u8]
}

/// Drops the wait or barrier numbered `number` of those in a region and inside it; gives how many came before the
/// end, and the name of the one dropped.
fn drop_site(region: &mut Region, number: usize, passed: &mut usize) -> Option<&'static str> {
    let mut dropped = None;
    region.body.retain_mut(|inst| {
        let name = match &mut inst.op {
            Op::For { body, .. } => {
                dropped = dropped.or(drop_site(body, number, passed));
                return true;
            }
            Op::If { then, els, .. } => {
                for side in [then, els] {
                    dropped = dropped.or(drop_site(side, number, passed));
                }
                return true;
            }
            Op::AsyncWait { .. } => "async_wait",
            Op::SignalWait { .. } => "signal_wait",
            Op::WarpBarrier => "warp_barrier",
            Op::GroupBarrier => "group_barrier",
            _ => return true,
        };
        *passed += 1;
        if *passed != number + 1 {
            return true;
        }
        dropped = Some(name);
        false
    });
    dropped
}

/// Weights are multiplied when they are there, and nothing is copied where something is still read.
#[test]
fn rounds_in_little_room_need_their_waits() {
    let case = Case { scheme: Scheme::W8A8, k: 2048 };
    for engine in [false, true] {
        let kernels = case.in_little_room(64, engine);
        let run = |kernels: &[Function], order| case.try_run(kernels, 64, 2, order).map(|v| bits(&v));
        let expected = run(&kernels, Order::Forward).unwrap_or_else(|e| panic!("{e}"));
        assert!(expected == bits(&case.converts(64, 2)), "other bits with little room");
        let mut spare = Vec::new();
        for which in 0..2 {
            for number in 0.. {
                let mut kernels = kernels.clone();
                let Some(name) = drop_site(&mut kernels[which].body, number, &mut 0) else { break };
                let orders = [Order::Forward, Order::Reverse, Order::Seeded(1)];
                if orders.into_iter().all(|order| run(&kernels, order).as_ref() == Ok(&expected)) {
                    spare.push(format!("{} {name} {number}", kernels[which].name));
                }
            }
        }
        assert_eq!(spare, SPARE, "by the copy engine: {engine}");
    }
}

/// Sites without which nothing changes: a barrier of what runs before or after makes up for the first and last
/// ones; sums over the group begin with one; no other thread of the warp reads the rows that end with one.
const SPARE: [&str; 7] = [
    "ahead group_barrier 0",
    "product group_barrier 0",
    "product group_barrier 1",
    "product group_barrier 5",
    "product warp_barrier 11",
    "product warp_barrier 12",
    "product group_barrier 13",
];
