//! x86-64: F16C and AVX-512 conversions, dot products, byte shuffles.

use super::{Isa, Native, TileUnit, names_of, x86_tiles};
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
    cpu: |_| "x86-64",
    initialize: || LlvmTarget::initialize_x86(&InitializationConfig::default()),
    features: |target| names_of(target).collect::<Vec<_>>().join(","),
    tuning,
    limits,
    dot2_bf16: Some(dot2_bf16 as Native),
    dot4_i8: Some(dot4_i8 as Native),
    dot2_i8: Some(dot2_i8 as Native),
    add_halves: Some(add_halves as Native),
    tiles: Some(TileUnit { begin: x86_tiles::begin, product: x86_tiles::product, end: x86_tiles::end }),
    table16: Some(table16 as Native),
    lookup16: Some(lookup16 as Native),
    group: None,
};

/// Without FMA or F16C, LLVM would call libm or compiler-rt.
fn limits(target: &Target) -> Limits {
    let wide = target.has(Feature::Avx512f);
    Limits {
        vector_bits: if wide { 512 } else { u32::MAX },
        native_f16: target.has(Feature::F16c),
        native_dot2_bf16: target.has(Feature::Avx512Bf16),
        native_lookup16: wide,
        native_tiles: target.has(Feature::AmxInt8) && target.has(Feature::AmxBf16),
        fma: target.has(Feature::Fma),
        ..Limits::NONE
    }
}

/// With tiles it has to be a processor for which LLVM does not schedule once more after registers are allocated: that
/// renames tiles, whose shapes go with their numbers.
fn tuning(target: &Target) -> &'static [(&'static str, &'static str)] {
    if target.has(Feature::Avx512f) || target.has(Feature::AmxTile) {
        &[("tune-cpu", "sapphirerapids"), ("prefer-vector-width", "512")]
    } else if target.has(Feature::Avx2) {
        &[("tune-cpu", "znver3")]
    } else {
        &[("tune-cpu", "generic")]
    }
}

/// VDPBF16PS: adds the product of the upper halves first, and takes and gives subnormals as zero
/// whatever MXCSR says (Intel SDM, volume 2).
fn dot2_bf16<'c>(low: &Lower<'c, '_>, operands: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure> {
    low.in_parts(operands, 16, |low, parts| {
        let lanes = low.lanes(parts[0]);
        let pairs = low.pairs_of_bf16(lanes);
        let a = low.builder.build_bit_cast(parts[1], pairs, "")?;
        let b = low.builder.build_bit_cast(parts[2], pairs, "")?;
        low.intrinsic(&format!("llvm.x86.avx512bf16.dpbf16ps.{}", 32 * lanes), &[], &[parts[0], a, b])
    })
}

/// VPDPBUSD, which wraps as KIR does; without it VPMADDWD on the even and on the odd bytes, whose
/// products and sums of two fit.
fn dot4_i8<'c>(low: &Lower<'c, '_>, operands: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure> {
    match low.target.has(Feature::Avx512Vnni) {
        true => low.in_parts(operands, 16, vpdpbusd),
        false => low.in_parts(operands, register_lanes(low.target), pairs_of_bytes),
    }
}

/// 32-bit lanes of the widest register.
fn register_lanes(target: &Target) -> u16 {
    if target.has(Feature::Avx512bw) {
        16
    } else if target.has(Feature::Avx2) {
        8
    } else {
        4
    }
}

fn vpdpbusd<'c>(low: &Lower<'c, '_>, parts: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure> {
    let lanes = low.lanes(parts[0]);
    let bytes = low.ty(Ty::vector(Elem::I8, lanes * 4));
    let a = low.builder.build_bit_cast(parts[1], bytes, "")?;
    let b = low.builder.build_bit_cast(parts[2], bytes, "")?;
    low.intrinsic(&format!("llvm.x86.avx512.vpdpbusd.{}", 32 * lanes), &[], &[parts[0], a, b])
}

fn pairs_of_bytes<'c>(low: &Lower<'c, '_>, parts: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure> {
    let lanes = low.lanes(parts[0]);
    let (ints, halves) = (Ty::vector(Elem::I32, lanes), Ty::vector(Elem::I16, lanes * 2));
    let cast = |v: BasicValueEnum<'c>, ty: Ty| low.builder.build_bit_cast(v, low.ty(ty), "");
    let [a, b] = [cast(parts[1], halves)?, cast(parts[2], halves)?].map(BasicValueEnum::into_vector_value);
    let eight = low.constant(halves, 8).into_vector_value();
    let low_bytes = low.constant(halves, 0xff).into_vector_value();
    let b_low = low.builder.build_left_shift(b, eight, "")?;
    let even = [low.builder.build_and(a, low_bytes, "")?, low.builder.build_right_shift(b_low, eight, true, "")?];
    let odd = [low.builder.build_right_shift(a, eight, false, "")?, low.builder.build_right_shift(b, eight, true, "")?];
    let mut sum = cast(parts[0], ints)?.into_vector_value();
    for pair in [even, odd] {
        let products = low.intrinsic(pmaddwd(lanes), &[], &pair.map(Into::into))?;
        sum = low.builder.build_int_add(sum, products.into_vector_value(), "")?;
    }
    Ok(sum.into())
}

/// The product of 16-bit halves, added in pairs.
fn pmaddwd(lanes: u16) -> &'static str {
    match lanes {
        16 => "llvm.x86.avx512.pmaddw.d.512",
        8 => "llvm.x86.avx2.pmadd.wd",
        _ => "llvm.x86.sse2.pmadd.wd",
    }
}

/// PMADDUBSW and PADDW.
fn dot2_i8<'c>(low: &Lower<'c, '_>, operands: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure> {
    low.in_parts(operands, register_lanes(low.target), |low, parts| {
        let lanes = low.lanes(parts[0]);
        let name = match lanes {
            16 => "llvm.x86.avx512.pmaddubs.w.512",
            8 => "llvm.x86.avx2.pmadd.ub.sw",
            _ => "llvm.x86.ssse3.pmadd.ub.sw.128",
        };
        let cast = |v: BasicValueEnum<'c>, ty: Ty| low.builder.build_bit_cast(v, low.ty(ty), "");
        let (halves, bytes) = (Ty::vector(Elem::I16, lanes * 2), Ty::vector(Elem::I8, lanes * 4));
        let products = low.intrinsic(name, &[], &[cast(parts[1], bytes)?, cast(parts[2], bytes)?])?;
        let acc = cast(parts[0], halves)?.into_vector_value();
        let sum = low.builder.build_int_add(acc, products.into_vector_value(), "")?;
        Ok(cast(sum.into(), Ty::vector(Elem::I32, lanes))?)
    })
}

/// PMADDWD with ones, and PADDD.
fn add_halves<'c>(low: &Lower<'c, '_>, operands: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure> {
    low.in_parts(operands, register_lanes(low.target), |low, parts| {
        let lanes = low.lanes(parts[0]);
        let halves = Ty::vector(Elem::I16, lanes * 2);
        let a = low.builder.build_bit_cast(parts[1], low.ty(halves), "")?;
        let sums = low.intrinsic(pmaddwd(lanes), &[], &[a, low.constant(halves, 1)])?;
        Ok(low.builder.build_int_add(parts[0].into_vector_value(), sums.into_vector_value(), "")?.into())
    })
}

/// VPERMPS, which takes the low four bits of an index.
fn lookup16<'c>(low: &Lower<'c, '_>, operands: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure> {
    low.intrinsic("llvm.x86.avx512.permvar.sf.512", &[], operands)
}

/// PSHUFB.
fn table16<'c>(low: &Lower<'c, '_>, operands: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure> {
    low.in_parts(operands, 4 * register_lanes(low.target), |low, parts| {
        let name = match low.lanes(parts[0]) {
            64 => "llvm.x86.avx512.pshuf.b.512",
            32 => "llvm.x86.avx2.pshuf.b",
            _ => "llvm.x86.ssse3.pshuf.b.128",
        };
        low.intrinsic(name, &[], parts)
    })
}
