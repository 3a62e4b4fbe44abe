//! Products that the matrix units of four warps make together on compute capability 9.0, with one factor in shared
//! memory (PTX ISA, wgmma.mma_async and its matrix descriptor).

use super::nvptx::{SHARED, asm, convergent, in_space};
use crate::error::Failure;
use crate::lower::Lower;
use inkwell::types::{BasicMetadataTypeEnum, BasicTypeEnum};
use inkwell::values::{BasicValueEnum, IntValue};
use llmc_kernels::kir::{Elem, Mma, Op, Val};

/// Rows of a 128-byte swizzled matrix lie 128 bytes apart, groups of eight of them 1024: bits 32-45 of its descriptor
/// are the latter in units of 16 bytes, bits 62-63 tell of the swizzling, bits 16-29 have no meaning then.
const SWIZZLED: u64 = 1 << 62 | 64 << 32 | 1 << 16;
/// Bits of an address in a descriptor, whose unit is 16 bytes.
const ADDRESS: u64 = 0x3_ffff;
const UNIT: u64 = 4;

/// The instructions of such products.
pub fn product<'c>(low: &Lower<'c, '_>, op: &Op) -> Result<Option<BasicValueEnum<'c>>, Failure> {
    if low.target.gpu_arch < 90 {
        return Err(Failure::from(format!("{} has no products of four warps", low.target.name)));
    }
    match op {
        Op::Wgmma { kind, acc, a, b } => begin(low, *kind, [*acc, *a, *b]).map(Some),
        Op::WgmmaWait { sums, kept } => wait(low, *sums, kept).map(Some),
        Op::SharedFence => asm(low, "fence.proxy.async.shared::cta;", "~{memory}", &[], None),
        _ => Err("the instruction is none of products".into()),
    }
}

fn begin<'c>(low: &Lower<'c, '_>, kind: Mma, [acc, a, b]: [Val; 3]) -> Result<BasicValueEnum<'c>, Failure> {
    let sums = usize::from(low.source.ty(acc).lanes);
    let (types, scales) = match kind {
        Mma::Bf16 => ("k16.f32.bf16.bf16", ", 1, 1, 0"),
        Mma::F16 => ("k16.f32.f16.f16", ", 1, 1, 0"),
        Mma::U8S8 => ("k32.s32.u8.s8", ""),
        Mma::S8S8 => ("k32.s32.s8.s8", ""),
    };
    let (d, a_list) = (list(0, sums), list(2 * sums, 4));
    let text = format!(
        "wgmma.fence.sync.aligned;\n\
         wgmma.mma_async.sync.aligned.m64n{}{types} {{{d}}}, {{{a_list}}}, ${}, 1{scales};\n\
         wgmma.commit_group.sync.aligned;",
        2 * sums,
        2 * sums + 4,
    );
    let rest = [lanes(low, a)?, vec![descriptor(low, b)?.into()]].concat();
    tied(low, &text, acc, &rest, "r,r,r,r,l")
}

fn wait<'c>(low: &Lower<'c, '_>, sums: Val, kept: &[Val]) -> Result<BasicValueEnum<'c>, Failure> {
    let mut words = Vec::new();
    for v in kept {
        words.extend(lanes(low, *v)?);
    }
    let constraints = vec!["r"; words.len()].join(",");
    tied(low, "wgmma.wait_group.sync.aligned 0;", sums, &words, &constraints)
}

/// Operands of PTX from number `first` on.
fn list(first: usize, count: usize) -> String {
    (first..first + count).map(|i| format!("${i}")).collect::<Vec<_>>().join(", ")
}

fn lanes<'c>(low: &Lower<'c, '_>, v: Val) -> Result<Vec<BasicValueEnum<'c>>, Failure> {
    (0..low.source.ty(v).lanes).map(|i| low.extract(low.get(v), i)).collect()
}

/// Says where columns are, and how they lie there.
fn descriptor<'c>(low: &Lower<'c, '_>, b: Val) -> Result<IntValue<'c>, Failure> {
    let ty = low.context.i64_type();
    let at = in_space(low, low.get(b).into_pointer_value(), SHARED)?;
    let at = low.builder.build_ptr_to_int(at, ty, "")?;
    let at = low.builder.build_and(at, ty.const_int(ADDRESS, false), "")?;
    let at = low.builder.build_right_shift(at, ty.const_int(UNIT, false), false, "")?;
    Ok(low.builder.build_or(at, ty.const_int(SWIZZLED, false), "")?)
}

/// Runs PTX whose first operands are the lanes of `sums`, which it changes, with others after them.
fn tied<'c>(
    low: &Lower<'c, '_>,
    text: &str,
    sums: Val,
    others: &[BasicValueEnum<'c>],
    constraints: &str,
) -> Result<BasicValueEnum<'c>, Failure> {
    let ty = low.source.ty(sums);
    let letter = if ty.elem == Elem::F32 { "=f" } else { "=r" };
    let outputs = vec![letter; usize::from(ty.lanes)].join(",");
    let inputs = (0..ty.lanes).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
    let rest = if constraints.is_empty() { String::new() } else { format!(",{constraints}") };
    let args = [lanes(low, sums)?, others.to_vec()].concat();
    let params: Vec<BasicMetadataTypeEnum> = args.iter().map(|a| a.get_type().into()).collect();
    let members: Vec<BasicTypeEnum> = args[..usize::from(ty.lanes)].iter().map(|a| a.get_type()).collect();
    let signature = low.context.struct_type(&members, false).fn_type(&params, false);
    let constraints = format!("{outputs},{inputs}{rest},~{{memory}}");
    let callee = low.context.create_inline_asm(signature, text.into(), constraints, true, false, None, false);
    let args: Vec<_> = args.iter().map(|a| (*a).into()).collect();
    let call = low.builder.build_indirect_call(signature, callee, &args, "")?;
    convergent(low, &call);
    let results = call.try_as_basic_value().basic().ok_or("the PTX has results")?.into_struct_value();
    let mut out = low.ty(ty).into_vector_type().get_undef().into();
    for i in 0..ty.lanes {
        let lane = low.builder.build_extract_value(results, u32::from(i), "")?;
        out = low.insert(out, i, lane)?;
    }
    Ok(out)
}
