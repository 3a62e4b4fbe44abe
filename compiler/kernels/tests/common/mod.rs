//! What several tests need.
#![allow(dead_code)] // each test binary uses a part of it

pub mod product;

use llmc_kernels::kir::filetest::Run;
use llmc_kernels::kir::interp::{Addr, Compiled, InterpError, Machine, Order};
use llmc_kernels::kir::legalize::{Limits, legalize};
use llmc_kernels::kir::{Op, Program, Ty, text, verify};

/// A machine with nothing but what the limits leave.
pub const BARE: Limits = Limits {
    vector_bits: 128,
    native_f16: false,
    native_dot2_bf16: false,
    native_dot4_i8: false,
    native_dot2_i8: false,
    native_tiles: false,
    native_lookup16: false,
    fma: true,
    scalarize: llmc_kernels::kir::legalize::never,
};

pub fn always(_op: &Op, _operand: Ty, _result: Ty) -> bool {
    true
}

/// Limits under which every program computes the same bits.
pub const LIMITS: [(&str, Limits); 5] = [
    ("none", Limits::NONE),
    ("128 bits", BARE),
    ("128 bits, by lanes", Limits { scalarize: always, ..BARE }),
    ("256 bits, all instructions", Limits { vector_bits: 256, ..Limits::NONE }),
    ("any width, no instructions", Limits { vector_bits: u32::MAX, ..BARE }),
];

/// The limits that a text's program can be legalized for: sums of products of four warps are not cut, as their targets
/// have no limits.
pub fn limits_of(source: &str) -> &'static [(&'static str, Limits)] {
    if source.contains("wgmma") { &LIMITS[..1] } else { &LIMITS }
}

/// The program of a text, verified.
pub fn program(source: &str) -> Program {
    let program = text::parse(source).unwrap_or_else(|e| panic!("{e}"));
    verify::verify(&program).unwrap_or_else(|e| panic!("{e}"));
    program
}

/// Legalized and verified again.
pub fn legal(program: &Program, limits: &Limits) -> Program {
    let legal = legalize(program, limits);
    verify::verify(&legal).unwrap_or_else(|e| panic!("{e}\n{legal}"));
    legal
}

/// Runs the last function on buffers behind a pointer table; they come back.
pub fn run(program: &Program, buffers: &[Vec<u8>], workers: usize, order: Order) -> Result<Vec<Vec<u8>>, InterpError> {
    run_groups(program, buffers, (workers, 1), order)
}

/// The same with several threads of each worker.
pub fn run_groups(
    program: &Program,
    buffers: &[Vec<u8>],
    (workers, threads): (usize, usize),
    order: Order,
) -> Result<Vec<Vec<u8>>, InterpError> {
    let mut machine = Machine::new();
    let addrs: Vec<Addr> = buffers.iter().map(|b| machine.alloc(b.clone())).collect();
    let args = machine.alloc_readonly(addrs.iter().flat_map(|a| a.0.to_le_bytes()).collect());
    let entry = &program.functions.last().expect("a function").name;
    machine.run_groups(&Compiled::new(program), entry, args, workers, threads, order)?;
    Ok(addrs.iter().map(|a| machine.buffer(*a).clone()).collect())
}

/// What a run of a filetest does other than expected.
pub fn check(program: &Program, case: &Run, order: Order) -> Result<(), String> {
    let inputs: Vec<Vec<u8>> = case.buffers.iter().map(|b| b.input.clone()).collect();
    let outputs = run_groups(program, &inputs, (case.workers, case.threads), order).map_err(|e| e.to_string())?;
    case.buffers.iter().zip(outputs).try_for_each(|(b, out)| b.check(&out))
}
