//! AArch64 with its base vector instructions.

use super::{Isa, Native};
use crate::error::Failure;
use crate::lower::Lower;
use inkwell::targets::{InitializationConfig, Target as LlvmTarget};
use inkwell::values::BasicValueEnum;
use llmc_kernels::kir::legalize::Limits;
use llmc_kernels::kir::{Elem, Ty};

/// The table.
pub const ISA: Isa = Isa {
    triple_prefix: "aarch64-",
    cpu: |_| "generic",
    initialize: || LlvmTarget::initialize_aarch64(&InitializationConfig::default()),
    features: |_| "+neon".into(),
    tuning: |_| &[("tune-cpu", "generic")],
    limits: |_| Limits {
        native_dot2_bf16: false,
        native_dot4_i8: false,
        native_dot2_i8: false,
        native_tiles: false,
        ..Limits::NONE
    },
    dot2_bf16: None,
    dot4_i8: None,
    dot2_i8: None,
    add_halves: None,
    tiles: None,
    table16: Some(table16 as Native),
    group: None,
};

/// TBL on 16 bytes.
fn table16<'c>(low: &Lower<'c, '_>, operands: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure> {
    low.in_parts(operands, 16, |low, parts| {
        let bytes = low.ty(Ty::vector(Elem::I8, 16));
        low.intrinsic("llvm.aarch64.neon.tbl1", &[bytes], parts)
    })
}
