//! x86-64: F16C and AVX-512 conversions, VNNI and BF16 dot products.

use super::{Dot, Isa};
use crate::error::Failure;
use crate::lower::Lower;
use inkwell::targets::{InitializationConfig, Target as LlvmTarget};
use inkwell::values::BasicValueEnum;
use llmc_abi::Feature;
use llmc_kernels::Target;
use llmc_kernels::kir::legalize::Limits;
use llmc_kernels::kir::{Elem, Ty};

/// The table.
pub const ISA: Isa = Isa {
    triple_prefix: "x86_64-",
    cpu: "x86-64",
    initialize: || LlvmTarget::initialize_x86(&InitializationConfig::default()),
    features,
    tuning,
    limits,
    dot2_bf16: Some(dot2_bf16 as Dot),
    dot4_i8: Some(dot4_i8 as Dot),
};

fn features(target: &Target) -> String {
    let names = Feature::TABLE.iter().filter(|(f, ..)| target.has(*f)).map(|(.., llvm)| format!("+{llvm}"));
    names.collect::<Vec<_>>().join(",")
}

/// Without FMA or F16C, LLVM would call libm or compiler-rt.
fn limits(target: &Target) -> Limits {
    let wide = target.has(Feature::Avx512f);
    Limits {
        vector_bits: if wide { 512 } else { u32::MAX },
        native_f16: target.has(Feature::F16c),
        native_dot2_bf16: target.has(Feature::Avx512Bf16),
        native_dot4_i8: target.has(Feature::Avx512Vnni),
        fma: target.has(Feature::Fma),
        ..Limits::NONE
    }
}

fn tuning(target: &Target) -> &'static [(&'static str, &'static str)] {
    if target.has(Feature::Avx512f) {
        &[("tune-cpu", "sapphirerapids"), ("prefer-vector-width", "512")]
    } else if target.has(Feature::Avx2) {
        &[("tune-cpu", "znver3")]
    } else {
        &[("tune-cpu", "generic")]
    }
}

/// VDPBF16PS: adds the product of the upper halves first, and takes and gives subnormals as zero
/// whatever MXCSR says (Intel SDM, volume 2).
fn dot2_bf16<'c>(low: &Lower<'c, '_>, operands: [BasicValueEnum<'c>; 3]) -> Result<BasicValueEnum<'c>, Failure> {
    in_registers(low, operands, |lanes, acc, a, b| {
        let pairs = low.pairs_of_bf16(lanes);
        let a = low.builder.build_bit_cast(a, pairs, "")?;
        let b = low.builder.build_bit_cast(b, pairs, "")?;
        low.intrinsic(&format!("llvm.x86.avx512bf16.dpbf16ps.{}", 32 * lanes), &[], &[acc, a, b])
    })
}

/// VPDPBUSD: wraps as KIR does.
fn dot4_i8<'c>(low: &Lower<'c, '_>, operands: [BasicValueEnum<'c>; 3]) -> Result<BasicValueEnum<'c>, Failure> {
    in_registers(low, operands, |lanes, acc, a, b| {
        let bytes = low.ty(Ty::vector(Elem::I8, lanes * 4));
        let a = low.builder.build_bit_cast(a, bytes, "")?;
        let b = low.builder.build_bit_cast(b, bytes, "")?;
        low.intrinsic(&format!("llvm.x86.avx512.vpdpbusd.{}", 32 * lanes), &[], &[acc, a, b])
    })
}

/// Runs `emit` on operands of at least the smallest register's four 32-bit lanes.
fn in_registers<'c>(
    low: &Lower<'c, '_>,
    operands: [BasicValueEnum<'c>; 3],
    emit: impl FnOnce(
        u16,
        BasicValueEnum<'c>,
        BasicValueEnum<'c>,
        BasicValueEnum<'c>,
    ) -> Result<BasicValueEnum<'c>, Failure>,
) -> Result<BasicValueEnum<'c>, Failure> {
    let lanes = low.lanes(operands[0]);
    if lanes >= 4 {
        let [acc, a, b] = operands;
        return emit(lanes, acc, a, b);
    }
    let [acc, a, b] = operands.map(|v| low.resize(v, 4));
    low.resize(emit(4, acc?, a?, b?)?, lanes)
}
