//! KIR to LLVM IR: SSA values map one to one, structured control flow becomes blocks and phis.
//!
//! Nothing here carries fast-math flags, so LLVM neither reassociates nor contracts.

mod arith;
mod cast;
mod control;
mod memory;
mod vector;

use crate::error::Failure;
use crate::isa::{Isa, TileState, TileUnit};
use crate::machine::Machine;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::builder::Builder;
use inkwell::context::Context;
use inkwell::intrinsics::Intrinsic;
use inkwell::module::{Linkage, Module};
use inkwell::types::{BasicMetadataTypeEnum, BasicTypeEnum};
use inkwell::values::{BasicValueEnum, FunctionValue};
use inkwell::{AddressSpace, GlobalVisibility};
use llmc_kernels::Target;
use llmc_kernels::kir::{Elem, Function, Hint, Inst, Op, Program, Region, Ty, Val};

/// Lowers one function into a module.
pub struct Lower<'c, 'a> {
    /// Owner of types and constants.
    pub context: &'c Context,
    /// The module that the function is part of.
    pub module: &'a Module<'c>,
    /// Appends to the current block.
    pub builder: Builder<'c>,
    isa: &'a Isa,
    /// The target's CPU features.
    pub target: &'a Target,
    program: &'a Program,
    /// The function being lowered.
    pub source: &'a Function,
    function: FunctionValue<'c>,
    values: Vec<Option<BasicValueEnum<'c>>>,
    /// Non-temporal stores are made visible before a barrier and before returning.
    streams: bool,
    /// Where products are made in tiles.
    tiles: Option<TileState<'c>>,
}

/// Lowers a function of the program into the module.
pub fn function<'c>(
    context: &'c Context,
    module: &Module<'c>,
    isa: &Isa,
    machine: &Machine,
    target: &Target,
    program: &Program,
    source: &Function,
) -> Result<(), Failure> {
    let function = declare(context, module, source);
    attributes(context, machine, isa, function);
    let mut lower = Lower {
        context,
        module,
        builder: context.create_builder(),
        isa,
        target,
        program,
        source,
        function,
        values: vec![None; source.types.len()],
        streams: has(&source.body, &|op| matches!(op, Op::Store { hint: Hint::Stream, .. })),
        tiles: None,
    };
    lower.body()
}

/// A function of the program by name, declared if it is not yet there.
fn declare<'c>(context: &'c Context, module: &Module<'c>, f: &Function) -> FunctionValue<'c> {
    if let Some(known) = module.get_function(&f.name) {
        return known;
    }
    let params: Vec<BasicMetadataTypeEnum> = f.body.params.iter().map(|p| type_of(context, f.ty(*p)).into()).collect();
    let ty = context.void_type().fn_type(&params, false);
    let function = module.add_function(&f.name, ty, Some(Linkage::External));
    function.as_global_value().set_visibility(GlobalVisibility::Hidden);
    function
}

/// Attributes of a definition: the target, unwind tables for profilers and debuggers, and no
/// inlining so that kernels keep their names there. Functions of groups all become part of one kernel.
fn attributes(context: &Context, machine: &Machine, isa: &Isa, function: FunctionValue) {
    let add = |a: Attribute| function.add_attribute(AttributeLoc::Function, a);
    let own: &[(&str, u64)] = match isa.group {
        Some(_) => &[("nounwind", 0), ("alwaysinline", 0), ("convergent", 0)],
        None => &[("nounwind", 0), ("noinline", 0), ("uwtable", 2)],
    };
    for (name, value) in own {
        add(context.create_enum_attribute(Attribute::get_named_enum_kind_id(name), *value));
    }
    add(context.create_string_attribute("no-builtins", ""));
    add(context.create_string_attribute("probe-stack", "inline-asm"));
    for (name, value) in &machine.attributes {
        add(context.create_string_attribute(name, value));
    }
}

/// Whether an instruction of the region is `wanted`.
fn has(region: &Region, wanted: &dyn Fn(&Op) -> bool) -> bool {
    region.body.iter().any(|inst| match &inst.op {
        Op::For { body, .. } => has(body, wanted),
        Op::If { then, els, .. } => has(then, wanted) || has(els, wanted),
        op => wanted(op),
    })
}

/// LLVM's type of a KIR type.
fn type_of(context: &Context, ty: Ty) -> BasicTypeEnum<'_> {
    let elem: BasicTypeEnum = match ty.elem {
        Elem::I1 => context.bool_type().into(),
        Elem::I8 => context.i8_type().into(),
        Elem::I16 => context.i16_type().into(),
        Elem::I32 => context.i32_type().into(),
        Elem::I64 => context.i64_type().into(),
        Elem::F32 => context.f32_type().into(),
        Elem::F64 => context.f64_type().into(),
        Elem::Ptr => context.ptr_type(AddressSpace::default()).into(),
    };
    vector_of(elem, ty.lanes)
}

/// `lanes` of a scalar type; the scalar itself for one.
fn vector_of(elem: BasicTypeEnum, lanes: u16) -> BasicTypeEnum {
    match elem {
        _ if lanes == 1 => elem,
        BasicTypeEnum::IntType(t) => t.vec_type(lanes.into()).into(),
        BasicTypeEnum::FloatType(t) => t.vec_type(lanes.into()).into(),
        other => unreachable!("KIR has no vectors of {other}"),
    }
}

impl<'c> Lower<'c, '_> {
    /// LLVM's type of a KIR type.
    pub fn ty(&self, ty: Ty) -> BasicTypeEnum<'c> {
        type_of(self.context, ty)
    }

    /// The vector type of two bf16 per 32-bit lane.
    pub fn pairs_of_bf16(&self, lanes: u16) -> BasicTypeEnum<'c> {
        vector_of(self.context.bf16_type().into(), lanes * 2)
    }

    /// The type of `lanes` binary16.
    fn halves(&self, lanes: u16) -> BasicTypeEnum<'c> {
        vector_of(self.context.f16_type().into(), lanes)
    }

    /// Lanes of a value.
    pub fn lanes(&self, value: BasicValueEnum<'c>) -> u16 {
        match value {
            BasicValueEnum::VectorValue(v) => {
                u16::try_from(v.get_type().get_size()).expect("KIR vectors have at most 64 lanes")
            }
            _ => 1,
        }
    }

    /// Calls an intrinsic; `overloads` are the types that select one of its family.
    pub fn intrinsic(
        &self,
        name: &str,
        overloads: &[BasicTypeEnum<'c>],
        args: &[BasicValueEnum<'c>],
    ) -> Result<BasicValueEnum<'c>, Failure> {
        let callee = self.declaration(name, overloads)?;
        self.call_value(callee, args)?.ok_or_else(|| Failure::from(format!("{name} has no value")))
    }

    /// An intrinsic's declaration; `overloads` are the types that select one of its family.
    pub fn declaration(&self, name: &str, overloads: &[BasicTypeEnum<'c>]) -> Result<FunctionValue<'c>, Failure> {
        let found = Intrinsic::find(name).and_then(|i| i.get_declaration(self.module, overloads));
        found.ok_or_else(|| Failure::from(format!("LLVM has no intrinsic {name} of these types")))
    }

    /// Calls a function; its value if it has one.
    pub fn call_value(
        &self,
        callee: FunctionValue<'c>,
        args: &[BasicValueEnum<'c>],
    ) -> Result<Option<BasicValueEnum<'c>>, Failure> {
        let args: Vec<_> = args.iter().map(|a| (*a).into()).collect();
        Ok(self.builder.build_direct_call(callee, &args, "")?.try_as_basic_value().basic())
    }

    /// What a value of KIR has become.
    pub fn get(&self, v: Val) -> BasicValueEnum<'c> {
        self.values[v.0 as usize].expect("verified: values are defined before their use")
    }

    fn set(&mut self, v: Val, value: BasicValueEnum<'c>) {
        self.values[v.0 as usize] = Some(value);
    }

    fn body(&mut self) -> Result<(), Failure> {
        let entry = self.context.append_basic_block(self.function, "entry");
        self.builder.position_at_end(entry);
        for (param, value) in self.source.body.params.iter().zip(self.function.get_params()) {
            self.values[param.0 as usize] = Some(value);
        }
        let unit = self.isa.tiles.as_ref().filter(|_| has(&self.source.body, &|op| matches!(op, Op::Tiles { .. })));
        self.tiles = unit.map(|unit| (unit.begin)(self)).transpose()?;
        self.region(&self.source.body)?;
        if let Some(unit) = unit {
            (unit.end)(self)?;
        }
        self.flush_streams()?;
        self.builder.build_return(None)?;
        Ok(())
    }

    fn region(&mut self, region: &Region) -> Result<Vec<BasicValueEnum<'c>>, Failure> {
        for inst in &region.body {
            self.inst(inst)?;
        }
        Ok(region.yields.iter().map(|v| self.get(*v)).collect())
    }

    fn inst(&mut self, inst: &Inst) -> Result<(), Failure> {
        if let Some(group) = self.isa.group
            && let Some(value) = group(self, inst)?
        {
            inst.results.first().into_iter().for_each(|r| self.set(*r, value));
            return Ok(());
        }
        if let [result] = inst.results[..]
            && let Some(value) = self.value(&inst.op, self.source.ty(result))?
        {
            self.set(result, value);
            return Ok(());
        }
        self.effect(inst)
    }

    /// The value of an instruction with one result and no region.
    fn value(&self, op: &Op, ty: Ty) -> Result<Option<BasicValueEnum<'c>>, Failure> {
        let v = |v: &Val| self.get(*v);
        Ok(Some(match op {
            Op::Int(k) => self.int(ty, *k),
            Op::Float(k) => self.float(ty, *k),
            Op::Un(op, a) => self.unary(*op, v(a), ty)?,
            Op::Bin(op, a, b) => self.binary(*op, v(a), v(b), ty)?,
            Op::Fma(a, b, c) => self.intrinsic("llvm.fma", &[self.ty(ty)], &[v(a), v(b), v(c)])?,
            Op::Cmp(cond, a, b) => self.compare(*cond, v(a), v(b), self.source.ty(*a))?,
            Op::Select(c, a, b) => self.select(v(c), v(a), v(b))?,
            Op::Cast(cast, a) => self.cast(*cast, v(a), self.source.ty(*a), ty)?,
            Op::Splat(a) => self.splat(v(a), ty.lanes)?,
            Op::Extract(a, lane) => self.extract(v(a), *lane)?,
            Op::Insert(a, lane, s) => self.insert(v(a), *lane, v(s))?,
            Op::Shuffle(a, b, lanes) => self.shuffle(v(a), v(b), lanes)?,
            Op::PtrAdd(p, bytes) => self.offset(v(p), v(bytes))?.into(),
            Op::Load { ptr, offset, align, hint } => self.load(v(ptr), *offset, *align, ty, *hint)?,
            Op::Stack { bytes } => self.stack(*bytes)?,
            Op::Dot2Bf16 { acc, a, b } => self.native(self.isa.dot2_bf16, &[v(acc), v(a), v(b)])?,
            Op::Dot4I8 { acc, a, b } => self.native(self.isa.dot4_i8, &[v(acc), v(a), v(b)])?,
            Op::Dot2I8 { acc, a, b } => self.native(self.isa.dot2_i8, &[v(acc), v(a), v(b)])?,
            Op::AddHalves { acc, a } => self.native(self.isa.add_halves, &[v(acc), v(a)])?,
            Op::Table16 { table, index } => self.native(self.isa.table16, &[v(table), v(index)])?,
            Op::Lookup16 { table, index } => self.native(self.isa.lookup16, &[v(table), v(index)])?,
            _ => return Ok(None),
        }))
    }

    /// An instruction with regions, or without a result.
    fn effect(&mut self, inst: &Inst) -> Result<(), Failure> {
        match &inst.op {
            Op::For { lo, hi, step, init, body } => {
                let init: Vec<_> = init.iter().map(|v| self.get(*v)).collect();
                self.for_loop([*lo, *hi, *step].map(|v| self.get(v).into_int_value()), &init, body, &inst.results)
            }
            Op::If { cond, then, els } => self.branch(self.get(*cond).into_int_value(), then, els, &inst.results),
            Op::Store { ptr, offset, value, align, hint } => {
                self.store(self.get(*ptr), *offset, self.get(*value), *align, *hint)
            }
            Op::Tiles { tiles, x, panels, sums, rows } => {
                let operands = [x, panels, sums, rows].map(|v| self.get(*v));
                let (unit, state) = (self.isa.tiles.as_ref(), self.tiles);
                let (unit, state): (&TileUnit, _) = unit.zip(state).ok_or("the target has no tiles")?;
                (unit.product)(self, state, tiles, operands)
            }
            Op::Prefetch { ptr, offset, to } => self.prefetch(self.get(*ptr), *offset, *to),
            Op::Call { callee, args } => self.call(callee, args),
            Op::Barrier { phase } => self.barrier(*phase),
            op => Err(Failure::from(format!("{op:?} has {} results", inst.results.len()))),
        }
    }
}
