//! NVIDIA GPUs through PTX: groups of threads, warps, matrix products.
//!
//! Addresses that come from memory or from the step's arguments are global; `Shared` gives the others.
//! LLVM's atomics lose their ordering on this target, so what groups of different blocks agree on is
//! written in PTX (PTX ISA, memory consistency model).

use super::nvptx_bulk as bulk;
use super::nvptx_table::table16;
use super::nvptx_wgmma as wgmma;
use super::{Isa, Native};
use crate::error::Failure;
use crate::lower::Lower;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::builder::Builder;
use inkwell::context::Context;
use inkwell::intrinsics::Intrinsic;
use inkwell::module::{Linkage, Module};
use inkwell::targets::{InitializationConfig, Target as LlvmTarget};
use inkwell::types::BasicMetadataTypeEnum;
use inkwell::values::{BasicValue, BasicValueEnum, CallSiteValue, FunctionValue, IntValue, PointerValue};
use inkwell::{AddressSpace, IntPredicate};
use llmc_abi::step::{STEP_FIELDS, SYNC_PHASES, kernel_symbol};
use llmc_kernels::kir::legalize::Limits;
use llmc_kernels::kir::{Elem, Hint, Inst, Mma, Op, Ty, Val};

/// The table.
pub const ISA: Isa = Isa {
    triple_prefix: "nvptx64-",
    cpu: |target| if target.gpu_arch >= 90 { "sm_90a" } else { "sm_80" },
    initialize: || LlvmTarget::initialize_nvptx(&InitializationConfig::default()),
    features: |target| if target.gpu_arch >= 90 { "+ptx80" } else { "+ptx70" }.into(),
    tuning: |_| &[],
    limits: |_| Limits {
        native_dot2_bf16: false,
        native_dot4_i8: false,
        native_dot2_i8: false,
        native_tiles: false,
        native_lookup16: false,
        ..Limits::NONE
    },
    dot2_bf16: None,
    dot4_i8: None,
    dot2_i8: None,
    add_halves: None,
    tiles: None,
    table16: Some(table16 as Native),
    lookup16: None,
    group: Some(group),
};

/// Address spaces of PTX.
pub(super) const GLOBAL: u16 = 1;
pub(super) const SHARED: u16 = 3;
/// Bytes that the second-level cache brings at a time.
const SECTOR: usize = 32;
/// All lanes of a warp.
const WARP: i64 = -1;
/// Symbol of the memory that kernels get from `Shared`.
const SHARED_SYMBOL: &str = "llmc_shared";
/// Symbols of two words of a block: the clock at the end of the phase before, in worker 0, and how many
/// arrivals the last barrier had waited for.
const CLOCK_SYMBOL: &str = "llmc_clock";
const GOAL_SYMBOL: &str = "llmc_goal";

/// Arrives at a barrier of all workers, whose goal it moves on from barrier to barrier.
const ARRIVE: &str = "{\n\
    .reg .pred q; .reg .b64 v, w;\n\
    setp.ne.u32 q, $1, 0;\n\
    @q bra DONE;\n\
    ld.shared.u64 v, [$3];\n\
    cvt.u64.u32 w, $2;\n\
    add.u64 v, v, w;\n\
    fence.acq_rel.gpu;\n\
    red.relaxed.gpu.add.u64 [$0], 1;\n\
    st.shared.u64 [$3], v;\n\
    DONE:\n\
    }";

/// Waits until as many have come as the barrier's goal. Worker 0 adds the clock's progress to its phase.
const AWAIT: &str = "{\n\
    .reg .pred q; .reg .b64 c, d, v, w;\n\
    setp.ne.u32 q, $1, 0;\n\
    @q bra DONE;\n\
    ld.shared.u64 v, [$5];\n\
    WAIT:\n\
    ld.acquire.gpu.u64 w, [$0];\n\
    setp.lt.u64 q, w, v;\n\
    @q bra WAIT;\n\
    setp.ne.u32 q, $2, 0;\n\
    @q bra DONE;\n\
    mov.u64 c, %clock64;\n\
    ld.shared.u64 d, [$4];\n\
    st.shared.u64 [$4], c;\n\
    sub.u64 d, c, d;\n\
    red.relaxed.gpu.add.u64 [$3], d;\n\
    DONE:\n\
    }";

/// Adds to a counter; 1 in the first thread of the worker that brings it to the total, else 0.
const LAST_OF: &str = "{\n\
    .reg .pred q; .reg .b32 o;\n\
    mov.u32 $0, 0;\n\
    setp.ne.u32 q, $1, 0;\n\
    @q bra DONE;\n\
    fence.acq_rel.gpu;\n\
    atom.add.relaxed.gpu.u32 o, [$2], $3;\n\
    add.u32 o, o, $3;\n\
    setp.eq.u32 q, o, $4;\n\
    selp.u32 $0, 1, 0, q;\n\
    @q st.relaxed.gpu.u32 [$2], 0;\n\
    fence.acq_rel.gpu;\n\
    DONE:\n\
    }";

/// A group barrier that tells all threads whether any of them brought something but zero.
const ANY: &str = "{\n\
    .reg .pred p, q;\n\
    setp.ne.u32 q, $1, 0;\n\
    bar.red.or.pred p, 0, q;\n\
    selp.u32 $0, 1, 0, p;\n\
    }";

/// The instructions of groups; `None` for others.
fn group<'c>(low: &Lower<'c, '_>, inst: &Inst) -> Result<Option<BasicValueEnum<'c>>, Failure> {
    let nothing = || low.constant(Ty::I32, 0);
    Ok(Some(match &inst.op {
        Op::Thread => low.builder.build_int_z_extend(thread(low)?.into_int_value(), low.context.i64_type(), "")?.into(),
        Op::Shared { .. } => shared(low)?,
        Op::GroupBarrier => collective(low, "llvm.nvvm.barrier.cta.sync.aligned.all", &[low.constant(Ty::I32, 0)])?
            .unwrap_or_else(nothing),
        Op::WarpBarrier => {
            collective(low, "llvm.nvvm.bar.warp.sync", &[low.constant(Ty::I32, WARP)])?.unwrap_or_else(nothing)
        }
        Op::LaneXor { value, mask } => lane_xor(low, *value, *mask)?,
        Op::Mma { kind, acc, a, b } => mma(low, *kind, [*acc, *a, *b])?,
        Op::LoadMatrix { ptr } => load_matrix(low, *ptr)?,
        Op::Wgmma { .. } | Op::WgmmaWait { .. } | Op::SharedFence => {
            wgmma::product(low, &inst.op)?.unwrap_or_else(nothing)
        }
        Op::LastOf { counter, add, total } => last_of(low, *counter, *add, *total)?,
        Op::Barrier { phase } => {
            arrive(low)?;
            wait_for_all(low, *phase).map(|()| nothing())?
        }
        Op::Arrive => arrive(low).map(|()| nothing())?,
        Op::Await { phase } => wait_for_all(low, *phase).map(|()| nothing())?,
        Op::AsyncCopy { to, from, bytes } => async_copy(low, *to, *from, *bytes).map(|()| nothing())?,
        Op::Fetch { ptr, bytes } => fetch(low, *ptr, *bytes).map(|()| nothing())?,
        Op::AsyncCommit => collective(low, "llvm.nvvm.cp.async.commit.group", &[])?.unwrap_or_else(nothing),
        Op::AsyncWait { pending } => {
            let pending = low.constant(Ty::I32, i64::from(*pending));
            collective(low, "llvm.nvvm.cp.async.wait.group", &[pending])?.unwrap_or_else(nothing)
        }
        Op::SignalBegin { .. } | Op::SignalEnd { .. } | Op::BulkCopy { .. } | Op::SignalWait { .. } => {
            bulk::signal(low, &inst.op).map(|()| nothing())?
        }
        Op::Prefetch { ptr, offset, .. } => {
            let address = in_space(low, low.address(low.get(*ptr), *offset)?, GLOBAL)?;
            asm(low, "prefetch.global.L2 [$0];", "l", &[address.into()], None)?.unwrap_or_else(nothing)
        }
        Op::Load { ptr, offset, align, hint } if low.source.ty(inst.results[0]) == Ty::PTR => {
            let space = low.context.ptr_type(AddressSpace::from(GLOBAL)).into();
            let global = low.load_as(low.get(*ptr), *offset, *align, space, *hint)?.into_pointer_value();
            generic(low, global)?
        }
        _ => return Ok(None),
    }))
}

/// This thread's number in its block: i32.
fn thread<'c>(low: &Lower<'c, '_>) -> Result<BasicValueEnum<'c>, Failure> {
    low.intrinsic("llvm.nvvm.read.ptx.sreg.tid.x", &[], &[])
}

/// A pointer in the space that holds both others.
fn generic<'c>(low: &Lower<'c, '_>, ptr: PointerValue<'c>) -> Result<BasicValueEnum<'c>, Failure> {
    let ty = low.context.ptr_type(AddressSpace::default());
    Ok(low.builder.build_address_space_cast(ptr, ty, "")?.into())
}

pub(super) fn in_space<'c>(
    low: &Lower<'c, '_>,
    ptr: PointerValue<'c>,
    space: u16,
) -> Result<PointerValue<'c>, Failure> {
    let ty = low.context.ptr_type(AddressSpace::from(space));
    Ok(low.builder.build_address_space_cast(ptr, ty, "")?)
}

/// The memory whose size is given at launch.
fn shared<'c>(low: &Lower<'c, '_>) -> Result<BasicValueEnum<'c>, Failure> {
    let global = low.module.get_global(SHARED_SYMBOL).unwrap_or_else(|| {
        let ty = low.context.i8_type().array_type(0);
        let global = low.module.add_global(ty, Some(AddressSpace::from(SHARED)), SHARED_SYMBOL);
        global.set_alignment(1024);
        global
    });
    generic(low, global.as_pointer_value())
}

/// Eight bytes of memory of the block.
fn word<'c>(context: &'c Context, module: &Module<'c>, symbol: &str) -> PointerValue<'c> {
    let global = module.get_global(symbol).unwrap_or_else(|| {
        let ty = context.i64_type();
        let global = module.add_global(ty, Some(AddressSpace::from(SHARED)), symbol);
        global.set_linkage(Linkage::Internal);
        global.set_initializer(&ty.get_undef());
        global
    });
    global.as_pointer_value()
}

/// Keeps a call where it is: threads run it together.
pub(super) fn convergent<'c>(low: &Lower<'c, '_>, call: &CallSiteValue<'c>) {
    let kind = Attribute::get_named_enum_kind_id("convergent");
    call.add_attribute(AttributeLoc::Function, low.context.create_enum_attribute(kind, 0));
}

/// Calls an intrinsic that all threads of a warp or a group run together, and that must stay where it is.
fn collective<'c>(
    low: &Lower<'c, '_>,
    name: &str,
    args: &[BasicValueEnum<'c>],
) -> Result<Option<BasicValueEnum<'c>>, Failure> {
    let callee = low.declaration(name, &[])?;
    let args: Vec<_> = args.iter().map(|a| (*a).into()).collect();
    let call = low.builder.build_direct_call(callee, &args, "")?;
    convergent(low, &call);
    Ok(call.try_as_basic_value().basic())
}

fn valued<'c>(low: &Lower<'c, '_>, name: &str, args: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Failure> {
    collective(low, name, args)?.ok_or_else(|| Failure::from(format!("{name} has no value")))
}

fn lane_xor<'c>(low: &Lower<'c, '_>, value: Val, mask: u8) -> Result<BasicValueEnum<'c>, Failure> {
    let float = low.source.ty(value).elem == Elem::F32;
    let name = if float { "llvm.nvvm.shfl.sync.bfly.f32" } else { "llvm.nvvm.shfl.sync.bfly.i32" };
    let k = |v| low.constant(Ty::I32, v);
    valued(low, name, &[k(WARP), low.get(value), k(mask.into()), k(31)])
}

fn mma<'c>(low: &Lower<'c, '_>, kind: Mma, [acc, a, b]: [Val; 3]) -> Result<BasicValueEnum<'c>, Failure> {
    let name = match kind {
        Mma::Bf16 => "llvm.nvvm.mma.m16n8k16.row.col.bf16",
        Mma::F16 => "llvm.nvvm.mma.m16n8k16.row.col.f32.f32",
        Mma::U8S8 => "llvm.nvvm.mma.m16n8k32.row.col.u8.s8",
        Mma::S8S8 => "llvm.nvvm.mma.m16n8k32.row.col.s8",
    };
    let lanes = |v: Val, n: u16| (0..n).map(|i| low.extract(low.get(v), i)).collect::<Result<Vec<_>, _>>();
    let (mut a, mut b) = (lanes(a, 4)?, lanes(b, 2)?);
    if kind == Mma::F16 {
        let pair = low.context.f16_type().vec_type(2);
        for v in a.iter_mut().chain(&mut b) {
            *v = low.builder.build_bit_cast(*v, pair, "")?;
        }
    }
    let args = [a, b, lanes(acc, 4)?].concat();
    four(low, valued(low, name, &args)?, low.get(acc))
}

/// The four members of a structure in a vector of the type of `out`.
fn four<'c>(
    low: &Lower<'c, '_>,
    members: BasicValueEnum<'c>,
    mut out: BasicValueEnum<'c>,
) -> Result<BasicValueEnum<'c>, Failure> {
    for i in 0..4u16 {
        let lane = low.builder.build_extract_value(members.into_struct_value(), u32::from(i), "")?;
        out = low.insert(out, i, lane)?;
    }
    Ok(out)
}

fn load_matrix<'c>(low: &Lower<'c, '_>, ptr: Val) -> Result<BasicValueEnum<'c>, Failure> {
    let at = in_space(low, low.get(ptr).into_pointer_value(), SHARED)?;
    let name = "llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4.trans.b16";
    let callee = low.declaration(name, &[at.get_type().into()])?;
    let call = low.builder.build_direct_call(callee, &[at.into()], "")?;
    convergent(low, &call);
    let members = call.try_as_basic_value().basic().ok_or("matrices are loaded")?;
    four(low, members, low.constant(Ty::vector(Elem::I32, 4), 0))
}

/// Runs PTX that must stay where it is, with the result of type `ty` if it has one.
pub(super) fn asm<'c>(
    low: &Lower<'c, '_>,
    text: &str,
    constraints: &str,
    args: &[BasicValueEnum<'c>],
    ty: Option<Ty>,
) -> Result<Option<BasicValueEnum<'c>>, Failure> {
    let params: Vec<BasicMetadataTypeEnum> = args.iter().map(|a| a.get_type().into()).collect();
    let signature = match ty {
        Some(ty) => low.ty(ty).into_int_type().fn_type(&params, false),
        None => low.context.void_type().fn_type(&params, false),
    };
    let callee = low.context.create_inline_asm(signature, text.into(), constraints.into(), true, false, None, false);
    let args: Vec<_> = args.iter().map(|a| (*a).into()).collect();
    let call = low.builder.build_indirect_call(signature, callee, &args, "")?;
    convergent(low, &call);
    Ok(call.try_as_basic_value().basic())
}

/// At the beginning of a loop: the assembler does not unroll it. Kernels are unrolled where that pays.
pub fn keep_rolled(low: &Lower<'_, '_>) -> Result<(), Failure> {
    asm(low, ".pragma \"nounroll\";", "", &[], None).map(drop)
}

fn last_of<'c>(low: &Lower<'c, '_>, counter: Val, add: Val, total: u32) -> Result<BasicValueEnum<'c>, Failure> {
    group_barrier(low)?;
    let args = [thread(low)?, low.get(counter), low.get(add), low.constant(Ty::I32, i64::from(total))];
    let own = asm(low, LAST_OF, "=&r,r,l,r,r,~{memory}", &args, Some(Ty::I32))?.ok_or("the PTX has a result")?;
    let any = asm(low, ANY, "=r,r,~{memory}", &[own], Some(Ty::I32))?.ok_or("the PTX has a result")?;
    let zero = low.context.i32_type().const_zero();
    Ok(low.builder.build_int_compare(IntPredicate::NE, any.into_int_value(), zero, "")?.into())
}

fn group_barrier(low: &Lower<'_, '_>) -> Result<(), Failure> {
    collective(low, "llvm.nvvm.barrier.cta.sync.aligned.all", &[low.constant(Ty::I32, 0)]).map(|_| ())
}

/// Where the barriers of all workers are.
fn sync<'c>(low: &Lower<'c, '_>) -> Result<PointerValue<'c>, Failure> {
    let offset = STEP_FIELDS.iter().find(|(name, _)| *name == "sync").ok_or("steps have a sync")?.1;
    let space = low.context.ptr_type(AddressSpace::from(GLOBAL)).into();
    let args = low.get(low.source.body.params[0]);
    Ok(low.load_as(args, offset as i32, 8, space, Hint::Constant)?.into_pointer_value())
}

/// Parameter `i` of the function, 32 bits of it.
fn narrow_param<'c>(low: &Lower<'c, '_>, i: usize) -> Result<BasicValueEnum<'c>, Failure> {
    let v = low.get(low.source.body.params[i]).into_int_value();
    Ok(low.builder.build_int_truncate(v, low.context.i32_type(), "")?.into())
}

/// The first half of a barrier of all workers: threads of the block meet, the first one arrives for them.
fn arrive(low: &Lower<'_, '_>) -> Result<(), Failure> {
    group_barrier(low)?;
    let goal = word(low.context, low.module, GOAL_SYMBOL).into();
    let args = [sync(low)?.into(), thread(low)?, narrow_param(low, 2)?, goal];
    asm(low, ARRIVE, "l,r,r,l,~{memory}", &args, None).map(drop)
}

/// The second half: the first thread meets those of the other blocks, then the others.
fn wait_for_all(low: &Lower<'_, '_>, phase: u32) -> Result<(), Failure> {
    let sync = sync(low)?;
    let ticks = low.address(sync.into(), (SYNC_PHASES + 8 * phase as usize) as i32)?;
    let [clock, goal] = [CLOCK_SYMBOL, GOAL_SYMBOL].map(|s| word(low.context, low.module, s).into());
    let args = [sync.into(), thread(low)?, narrow_param(low, 1)?, ticks.into(), clock, goal];
    asm(low, AWAIT, "l,r,r,l,l,l,~{memory}", &args, None)?;
    group_barrier(low)
}

/// One copy into the second-level cache where there are such copies, else a request for each sector.
fn fetch(low: &Lower<'_, '_>, ptr: Val, bytes: u32) -> Result<(), Failure> {
    let address = in_space(low, low.get(ptr).into_pointer_value(), GLOBAL)?;
    if low.target.gpu_arch >= 90 {
        let bytes = low.constant(Ty::I32, i64::from(bytes));
        return asm(low, "cp.async.bulk.prefetch.L2.global [$0], $1;", "l,r", &[address.into(), bytes], None).map(drop);
    }
    for sector in (0..bytes).step_by(SECTOR) {
        let at = low.address(address.into(), sector as i32)?;
        asm(low, "prefetch.global.L2 [$0];", "l", &[at.into()], None)?;
    }
    Ok(())
}

fn async_copy(low: &Lower<'_, '_>, to: Val, from: Val, bytes: u32) -> Result<(), Failure> {
    let name = match bytes {
        16 => "llvm.nvvm.cp.async.cg.shared.global.16",
        8 => "llvm.nvvm.cp.async.ca.shared.global.8",
        _ => "llvm.nvvm.cp.async.ca.shared.global.4",
    };
    let to = in_space(low, low.get(to).into_pointer_value(), SHARED)?;
    let from = in_space(low, low.get(from).into_pointer_value(), GLOBAL)?;
    collective(low, name, &[to.as_basic_value_enum(), from.as_basic_value_enum()]).map(|_| ())
}

/// Emits [`START`].
fn start<'c>(
    context: &'c Context,
    module: &Module<'c>,
    builder: &Builder<'c>,
    (args, workers): (PointerValue<'c>, IntValue<'c>),
) -> Result<(), Failure> {
    let offset = STEP_FIELDS.iter().find(|(name, _)| *name == "sync").ok_or("steps have a sync")?.1;
    let offset = context.i64_type().const_int(offset as u64, false);
    // SAFETY: one index into a scalar type; without `inbounds` any address may come out.
    let at = unsafe { builder.build_gep(context.i8_type(), args, &[offset], "") }?;
    let sync = builder.build_load(context.ptr_type(AddressSpace::from(GLOBAL)), at, "")?;
    let values =
        [sync, workers.into(), word(context, module, CLOCK_SYMBOL).into(), word(context, module, GOAL_SYMBOL).into()];
    let params: Vec<BasicMetadataTypeEnum> = values.iter().map(|v| v.get_type().into()).collect();
    let signature = context.void_type().fn_type(&params, false);
    let text = context.create_inline_asm(signature, START.into(), "l,r,l,l,~{memory}".into(), true, false, None, false);
    builder.build_indirect_call(signature, text, &values.map(Into::into), "")?;
    Ok(())
}

/// Calling convention of a kernel.
const PTX_KERNEL: u32 = 71;
/// Notes in the first thread the clock, and how many arrivals all barriers of earlier steps had: those of this step
/// that came already are fewer than there are workers.
const START: &str = "{\n\
    .reg .pred q; .reg .b32 t; .reg .b64 c, v, w;\n\
    mov.u32 t, %tid.x;\n\
    setp.ne.u32 q, t, 0;\n\
    @q bra DONE;\n\
    mov.u64 c, %clock64;\n\
    st.shared.u64 [$2], c;\n\
    ld.relaxed.gpu.u64 v, [$0];\n\
    cvt.u64.u32 w, $1;\n\
    rem.u64 w, v, w;\n\
    sub.u64 v, v, w;\n\
    st.shared.u64 [$3], v;\n\
    DONE:\n\
    }";

/// Adds the kernel that runs a step's function in every thread: the block is the worker. Everything else in
/// the module becomes part of it.
pub fn entry<'c>(
    context: &'c Context,
    module: &Module<'c>,
    step: FunctionValue<'c>,
    threads: usize,
) -> Result<(), Failure> {
    for f in module.get_functions().filter(|f| f.count_basic_blocks() > 0) {
        f.set_linkage(Linkage::Internal);
    }
    let name = kernel_symbol(&step.get_name().to_string_lossy());
    let global = context.ptr_type(AddressSpace::from(GLOBAL));
    let kernel = module.add_function(&name, context.void_type().fn_type(&[global.into()], false), None);
    kernel.set_call_conventions(PTX_KERNEL);
    for (key, value) in [("nvvm.maxntid", threads.to_string()), ("nvvm.minctasm", "1".into())] {
        kernel.add_attribute(AttributeLoc::Function, context.create_string_attribute(key, &value));
    }
    let convergent = Attribute::get_named_enum_kind_id("convergent");
    kernel.add_attribute(AttributeLoc::Function, context.create_enum_attribute(convergent, 0));
    let builder = context.create_builder();
    builder.position_at_end(context.append_basic_block(kernel, "entry"));
    let args = kernel.get_first_param().ok_or("a kernel has a parameter")?.into_pointer_value();
    let args = builder.build_address_space_cast(args, context.ptr_type(AddressSpace::default()), "")?;
    let number = |name: &str| {
        let read = Intrinsic::find(name).and_then(|i| i.get_declaration(module, &[]));
        let read = read.ok_or_else(|| Failure::from(format!("LLVM has no {name}")))?;
        let value = builder.build_direct_call(read, &[], "")?.try_as_basic_value().basic();
        let value = value.ok_or("a number has a value")?.into_int_value();
        Ok::<_, Failure>(builder.build_int_z_extend(value, context.i64_type(), "")?)
    };
    let (worker, workers) = (number("llvm.nvvm.read.ptx.sreg.ctaid.x")?, number("llvm.nvvm.read.ptx.sreg.nctaid.x")?);
    let count = builder.build_int_truncate(workers, context.i32_type(), "")?;
    start(context, module, &builder, (args, count))?;
    builder.build_direct_call(step, &[args.into(), worker.into(), workers.into()], "")?;
    builder.build_return(None)?;
    Ok(())
}
