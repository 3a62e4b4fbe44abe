//! Rewrites programs so that only what a target has remains.
//!
//! `expand` replaces instructions the target lacks by sequences of others, some before and most after `split` has cut
//! vectors that are too wide into parts; `scalarize` runs what the code generator asks for lane by lane. The result computes the same bits, except that without `fma` a
//! multiply-add rounds twice. Equal input gives equal output.

mod expand;
mod half;
mod parts;
mod rewrite;
mod scalarize;
mod split;
mod tiles;

use super::func::Program;
use super::inst::Op;
use super::types::Ty;

/// What a target has.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Widest vector in bits; at least 128. `u32::MAX`: any.
    pub vector_bits: u32,
    /// Conversions between f32 and f16 are instructions.
    pub native_f16: bool,
    /// [`Op::Dot2Bf16`] is an instruction.
    pub native_dot2_bf16: bool,
    /// [`Op::Dot4I8`] is an instruction, or a few.
    pub native_dot4_i8: bool,
    /// [`Op::Dot2I8`] and [`Op::AddHalves`] are instructions.
    pub native_dot2_i8: bool,
    /// [`Op::Tiles`] is a few instructions.
    pub native_tiles: bool,
    /// [`Op::Lookup16`] is an instruction, on vectors of 512 bits.
    pub native_lookup16: bool,
    /// A multiply-add that rounds once is an instruction. Without it `Fma` becomes `Mul` and
    /// `Add`: two roundings.
    pub fma: bool,
    /// Vector instructions to run lane by lane, by the type of the first operand (of the value for
    /// `Store`; the result's if there is no operand) and of the result (the first operand's if
    /// there is none). Asked last, for lane-wise instructions, loads,
    /// stores and shuffles only; the lanes are joined again by `Splat` and `Insert`.
    pub scalarize: fn(&Op, Ty, Ty) -> bool,
}

impl Limits {
    /// Everything is allowed: legalization changes nothing.
    pub const NONE: Limits = Limits {
        vector_bits: u32::MAX,
        native_f16: true,
        native_dot2_bf16: true,
        native_dot4_i8: true,
        native_dot2_i8: true,
        native_tiles: true,
        native_lookup16: true,
        fma: true,
        scalarize: never,
    };
}

/// For [`Limits::scalarize`]: nothing needs it.
pub fn never(_op: &Op, _operand: Ty, _result: Ty) -> bool {
    false
}

/// The program with what `limits` does not allow replaced. The program must be verified.
pub fn legalize(program: &Program, limits: &Limits) -> Program {
    assert!(limits.vector_bits >= 128, "vectors of at least 128 bits are needed");
    let functions = program.functions.iter().map(|f| {
        let f = rewrite::apply(&expand::ExpandWhole(*limits), f);
        let f = rewrite::apply(&split::Split(limits.vector_bits), &f);
        let f = rewrite::apply(&expand::Expand(*limits), &f);
        rewrite::apply(&scalarize::Scalarize(limits.scalarize), &f)
    });
    Program { functions: functions.collect() }
}
