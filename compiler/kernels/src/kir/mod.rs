//! KIR: a typed SSA kernel language with structured control flow.
//!
//! A [`Program`] is a list of functions that call each other. Every function's first three
//! parameters are `args: ptr, worker: i64, workers: i64`, the arguments of
//! `llmc_abi::step::StepFn`; all workers run the same function and meet at `barrier`.
//! On a GPU a worker is a group of threads, which all run the function; `thread` tells them apart, and
//! group memory, group barriers and the instructions of a warp (32 threads) are theirs.
//! Its verbs: print (`Display`), [`text::parse`], [`verify::verify`], [`interp`]. Code generators
//! take functions after [`legalize`], which expands what a target does not have.

pub mod builder;
pub mod filetest;
pub mod func;
pub mod inst;
pub mod interp;
pub mod legalize;
mod names;
mod operands;
pub mod print;
pub mod text;
pub mod types;
pub mod verify;

pub use builder::Builder;
pub use func::{Function, Program, Region, Val};
pub use inst::{BinOp, CacheLevel, Cast, Cond, Hint, Inst, Mma, Op, TileKind, Tiles, UnOp};
pub use types::{Elem, Ty};
