//! AArch64: its base vector instructions, and products of bytes where the processor has them.

use super::{Isa, Native, names_of};
use crate::error::Failure;
use crate::lower::Lower;
use inkwell::targets::{InitializationConfig, Target as LlvmTarget};
use inkwell::values::BasicValueEnum;
use llmc_abi::Feature;
use llmc_kernels::kir::legalize::Limits;
use llmc_kernels::kir::{Elem, Ty};

/// The table.
pub const ISA: Isa = Isa {
    triple_prefix: "aarch64-",
    cpu: |_| "generic",
    initialize: || LlvmTarget::initialize_aarch64(&InitializationConfig::default()),
    features: |target| format!("+neon{}", names_of(target).map(|name| format!(",{name}")).collect::<String>()),
    tuning: |_| &[("tune-cpu", "generic")],
    limits: |target| Limits {
        native_dot2_bf16: false,
        native_dot4_i8: target.has(Feature::AsimdDp),
        native_dot2_i8: false,
        native_tiles: false,
        native_lookup16: false,
        ..Limits::NONE
    },
    dot2_bf16: None,
    dot4_i8: Some(dot4_i8 as Native),
    dot2_i8: None,
    add_halves: None,
    tiles: None,
    table16: Some(table16 as Native),
    lookup16: None,
    group: None,
};

/// 32-bit lanes of a register.
const LANES: u16 = 4;

/// USDOT; where there is SDOT alone, of a - 128, which the sum of b times 128 makes good. That term is the same for
/// all weights that meet a row.
fn dot4_i8<'c>(low: &Lower<'c, '_>, operands: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure> {
    low.in_parts(operands, LANES, |low, parts| {
        let (ints, bytes) = (Ty::vector(Elem::I32, LANES), Ty::vector(Elem::I8, 4 * LANES));
        let types = [low.ty(ints), low.ty(bytes)];
        let cast = |v: BasicValueEnum<'c>| low.builder.build_bit_cast(v, low.ty(bytes), "");
        let (a, b) = (cast(parts[1])?, cast(parts[2])?);
        if low.target.has(Feature::I8mm) {
            return low.intrinsic("llvm.aarch64.neon.usdot", &types, &[parts[0], a, b]);
        }
        let least = low.constant(bytes, -128);
        let sdot = |acc, x, y| low.intrinsic("llvm.aarch64.neon.sdot", &types, &[acc, x, y]);
        let shift = sdot(low.constant(ints, 0), least, b)?.into_vector_value();
        let shifted = low.builder.build_xor(a.into_vector_value(), least.into_vector_value(), "")?;
        let sum = sdot(parts[0], shifted.into(), b)?.into_vector_value();
        Ok(low.builder.build_int_sub(sum, shift, "")?.into())
    })
}

/// TBL on 16 bytes.
fn table16<'c>(low: &Lower<'c, '_>, operands: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure> {
    low.in_parts(operands, 16, |low, parts| {
        let bytes = low.ty(Ty::vector(Elem::I8, 16));
        low.intrinsic("llvm.aarch64.neon.tbl1", &[bytes], parts)
    })
}
