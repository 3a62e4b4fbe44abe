//! A product of a few rows, run in the interpreter by a CPU's workers or by groups of threads.

use llmc_abi::StepArgs;
use llmc_abi::step::STEP_FIELDS;
use llmc_kernels::env::{Count, Place, RowElem, Rows, Scratch};
use llmc_kernels::formats::quant::QuantLayout;
use llmc_kernels::kir::interp::{Compiled, InterpError, Machine, Order};
use llmc_kernels::kir::{Builder, Function, Program, Ty, verify};
use llmc_kernels::layout::PANEL;
use llmc_kernels::ops::epilogue::{Epilogue, Sink};
use llmc_kernels::ops::gpu::gemm;
use llmc_kernels::ops::linear::{LinearKernel, Segment};
use llmc_kernels::ops::mac::Mac;
use llmc_kernels::ops::norm::ConvertKernel;
use llmc_kernels::ops::product::{CodedWeights, Product};
use llmc_kernels::ops::prologue::Prologue;
use llmc_kernels::schedule::Schedule;
use llmc_kernels::{Target, WeightFormat};

const TOKENS: usize = 11;
const UNITS: usize = 3;
const N: usize = UNITS * PANEL;
/// Bytes of the value table, which lies before the weights.
const TABLE_BYTES: usize = 512;
/// Bytes of each worker's scratch.
const WORKER_BYTES: usize = 1 << 20;
/// Shared memory where the matrix units of four warps work together.
const WIDE_BYTES: usize = 226 * 1024;
/// Threads of a group that multiplies by tiles.
pub const TILES: usize = 256;

/// A product under test, and the memory it works on: x, x as it is multiplied, and the result.
#[derive(Clone, Copy)]
pub struct Case {
    pub format: WeightFormat,
    pub k: usize,
}

impl Case {
    fn x(&self, elem: RowElem) -> Rows {
        let before = TOKENS * RowElem::F32.stride(self.k);
        Rows::new(Place::Arena(if elem == RowElem::F32 { 0 } else { before }), self.k, elem)
    }

    fn y(&self) -> Rows {
        Rows::new(Place::Arena(2 * TOKENS * RowElem::F32.stride(self.k)), N, RowElem::F32)
    }

    pub fn scratch(&self, threads: usize) -> Scratch {
        let arena_bytes = TOKENS * (3 * RowElem::F32.stride(self.k) + RowElem::F32.stride(N));
        Scratch { arena_bytes, worker_bytes: WORKER_BYTES, ..Scratch::of_threads(threads) }
    }

    /// Whether codes meet rows of integers.
    fn is_integer(&self) -> bool {
        matches!(self.format, WeightFormat::Quant(scheme) if !scheme.is_float())
    }

    /// The product of rows of `elem`; where integers are multiplied, it converts those of f32.
    pub fn product(&self, elem: RowElem) -> LinearKernel {
        let coded = match self.format {
            WeightFormat::Quant(scheme) => {
                let table = QuantLayout::table_bytes(scheme).map(|_| 0);
                Some(CodedWeights { table, codes: Place::Worker(WORKER_BYTES / 4) })
            }
            _ => None,
        };
        let (mac, meets) = if self.is_integer() { (Mac::Dot4I8, RowElem::Bytes) } else { (Mac::Fma, elem) };
        let x_stride = meets.stride(self.k);
        let product = Product { format: self.format, mac, k: self.k, panels: 1, x_stride, coded };
        let epilogue = Epilogue { steps: vec![], sink: Sink::Rows(self.y()), unit_rows: PANEL, panels: 1 };
        let prologue = (meets != elem).then_some(Prologue {
            norm: None,
            elem: meets,
            shared: Place::Arena(TOKENS * (2 * RowElem::F32.stride(self.k) + RowElem::F32.stride(N))),
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

    fn panel(&self, values: &[f32]) -> Vec<u8> {
        let mut panel = vec![0; self.format.panel_bytes(self.k)];
        match self.format {
            WeightFormat::Quant(scheme) => {
                QuantLayout { scheme, k: self.k }.store(&scheme.encode(values, self.k), &mut panel);
            }
            format => {
                for (i, v) in values.iter().enumerate() {
                    let bytes = match format {
                        WeightFormat::F16 => half::f16::from_f32(*v).to_le_bytes(),
                        _ => half::bf16::from_f32(*v).to_le_bytes(),
                    };
                    let at = format.offset(i / self.k, i % self.k, self.k);
                    panel[at..at + 2].copy_from_slice(&bytes);
                }
            }
        }
        panel
    }

    fn weights(&self) -> Vec<u8> {
        let mut out = match self.format {
            WeightFormat::Quant(scheme) => QuantLayout::table(scheme),
            _ => vec![],
        };
        out.resize(TABLE_BYTES, 0);
        (0..UNITS).for_each(|unit| out.extend(self.panel(&numbers(unit as u32 + 7, PANEL * self.k))));
        out
    }

    /// Results of a step of these kernels, with a barrier before each but the first.
    pub fn run(&self, kernels: &[Function], threads: usize, workers: usize) -> Vec<f32> {
        self.try_run(kernels, threads, workers, Order::Seeded(5))
            .unwrap_or_else(|e| panic!("{}, k = {}, {threads} threads: {e}", self.format, self.k))
    }

    pub fn try_run(
        &self,
        kernels: &[Function],
        threads: usize,
        workers: usize,
        order: Order,
    ) -> Result<Vec<f32>, InterpError> {
        let scratch = self.scratch(threads);
        let program = Program { functions: kernels.iter().cloned().chain([entry(kernels)]).collect() };
        verify::verify(&program).unwrap_or_else(|e| panic!("{e}"));
        let mut machine = Machine::new();
        let weights = machine.alloc_readonly(self.weights());
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

    /// A kernel that makes rows of `elem` of those of f32.
    pub fn convert(&self, elem: RowElem, threads: usize) -> Function {
        let convert = ConvertKernel { count: Count::Tokens, x: self.x(RowElem::F32), y: self.x(elem) };
        convert.build("convert", self.scratch(threads))
    }

    /// The product of the rows of f32 as they are.
    pub fn of_floats(&self, threads: usize, workers: usize) -> Vec<f32> {
        let kernel = self.product(RowElem::F32).build("product", self.scratch(threads));
        self.run(&[kernel], threads, workers)
    }

    /// The product of rows of `elem`, which are made before.
    pub fn of_converted(&self, elem: RowElem, threads: usize, workers: usize) -> Vec<f32> {
        let product = self.product(elem).build("product", self.scratch(threads));
        self.run(&[self.convert(elem, threads), product], threads, workers)
    }

    /// The product by tiles in shared memory, of rows of `elem` that are made before: that, and the product.
    pub fn tiled(&self, elem: RowElem) -> [Function; 2] {
        self.tiled_in(elem, self.scratch(TILES))
    }

    /// The same where the matrix units of four warps work together.
    pub fn wide(&self, elem: RowElem) -> [Function; 2] {
        self.tiled_in(elem, Scratch { shared: WIDE_BYTES, wgmma: true, ..self.scratch(TILES) })
    }

    fn tiled_in(&self, elem: RowElem, scratch: Scratch) -> [Function; 2] {
        let plain = self.product(elem);
        let schedule = Schedule { tiles: true, ..plain.schedule };
        let kernel = LinearKernel { schedule, ..plain };
        assert!(gemm::fits(&kernel, scratch), "{}, k = {}", self.format, self.k);
        [self.convert(elem, TILES), kernel.build("product", scratch)]
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

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The largest difference, of the largest value expected.
pub fn error(expected: &[f32], found: &[f32]) -> f32 {
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(largest > 0.0, "some results are not zero");
    expected.iter().zip(found).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}
