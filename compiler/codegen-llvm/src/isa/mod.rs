//! What differs between processors: one table each.

mod aarch64;
pub mod nvptx;
mod nvptx_bulk;
mod nvptx_table;
mod nvptx_wgmma;
mod x86;
mod x86_tiles;

use crate::error::Failure;
use crate::lower::Lower;
use inkwell::values::{BasicValueEnum, PointerValue};
use llmc_abi::Feature;
use llmc_kernels::Target;
use llmc_kernels::kir::legalize::Limits;
use llmc_kernels::kir::{Inst, Tiles};

/// Emits an instruction of KIR, given its operands in KIR's order.
pub type Native = for<'c> fn(&Lower<'c, '_>, &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure>;

/// Emits an instruction of a group of threads; its value if it has one.
pub type Group = for<'c> fn(&Lower<'c, '_>, &Inst) -> Result<Option<BasicValueEnum<'c>>, Failure>;

/// What a function that multiplies in tiles keeps on its stack.
#[derive(Clone, Copy)]
pub struct TileState<'c> {
    /// The configuration.
    pub config: PointerValue<'c>,
    /// Rows (i64) that it was loaded for; 0 if it was not.
    pub rows: PointerValue<'c>,
}

/// Products in tiles: what a function begins with, a product of x, panels, sums and rows, and what it ends with.
pub struct TileUnit {
    /// At the beginning of the function.
    pub begin: for<'c> fn(&Lower<'c, '_>) -> Result<TileState<'c>, Failure>,
    /// The instruction.
    pub product: for<'c> fn(&Lower<'c, '_>, TileState<'c>, &Tiles, [BasicValueEnum<'c>; 4]) -> Result<(), Failure>,
    /// At its end.
    pub end: fn(&Lower<'_, '_>) -> Result<(), Failure>,
}

/// An instruction set.
pub struct Isa {
    /// Beginning of the triples it serves.
    pub triple_prefix: &'static str,
    /// The base CPU; everything beyond it is in the features.
    pub cpu: fn(&Target) -> &'static str,
    /// Makes LLVM's code generator for it available; may be called many times.
    pub initialize: fn(),
    /// LLVM's feature string for a target.
    pub features: fn(&Target) -> String,
    /// Function attributes that choose between equivalent instructions.
    pub tuning: fn(&Target) -> &'static [(&'static str, &'static str)],
    /// What KIR is reduced to. LLVM itself cuts vectors into registers.
    pub limits: fn(&Target) -> Limits,
    /// The `Dot2Bf16` instruction, where the limits allow it.
    pub dot2_bf16: Option<Native>,
    /// The `Dot4I8` instruction, where the limits allow it.
    pub dot4_i8: Option<Native>,
    /// The `Dot2I8` instruction, where the limits allow it.
    pub dot2_i8: Option<Native>,
    /// The `AddHalves` instruction, where the limits allow it.
    pub add_halves: Option<Native>,
    /// Products in tiles, where the limits allow them.
    pub tiles: Option<TileUnit>,
    /// The `Table16` instruction.
    pub table16: Option<Native>,
    /// The `Lookup16` instruction, where the limits allow it.
    pub lookup16: Option<Native>,
    /// Where a worker is a group of threads: the instructions of groups, barriers of all workers and
    /// prefetches among them.
    pub group: Option<Group>,
}

const ISAS: [&Isa; 3] = [&x86::ISA, &aarch64::ISA, &nvptx::ISA];

/// A target's features as LLVM's feature strings have them.
fn names_of(target: &Target) -> impl Iterator<Item = String> {
    Feature::TABLE.iter().filter(|(f, ..)| target.has(*f)).map(|(.., llvm)| format!("+{llvm}"))
}

/// The instruction set of a target.
pub fn of(target: &Target) -> Option<&'static Isa> {
    ISAS.into_iter().find(|isa| target.triple.starts_with(isa.triple_prefix))
}
