//! KIR to Cranelift's IR.
//!
//! Every vector is one 128-bit register; a shorter one has its lanes in the lower bits and
//! anything above. A vector of N truth values is a mask of N lanes of 128/N bits, a scalar one an
//! `i8` of 0 or 1.

mod arith;
mod cast;
mod control;
mod dot;
mod memory;
mod repr;
mod vector;

use crate::error::Failure;
use cranelift_codegen::Context;
use cranelift_codegen::ir::{AbiParam, FuncRef, InstBuilder, Signature, Value, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{FuncId, Linkage, Module};
use cranelift_object::ObjectModule;
use llmc_abi::step::BARRIER_SYMBOL;
use llmc_kernels::kir::{Elem, Function, Inst, Op, Region, Ty, Val, print};
use std::collections::BTreeMap;

/// Functions that can be called, by name: the program's and the barrier.
pub struct Callees(BTreeMap<String, FuncId>);

impl Callees {
    /// The declared functions of a program; declares the barrier.
    pub fn new(module: &mut ObjectModule, functions: Vec<(String, FuncId)>) -> Result<Callees, Failure> {
        let types = [Ty::PTR, Ty::I64, Ty::I64, Ty::I64];
        let barrier = signature(module, types.into_iter());
        let barrier = module.declare_function(BARRIER_SYMBOL, Linkage::Import, &barrier)?;
        let barrier = (BARRIER_SYMBOL.to_string(), barrier);
        Ok(Callees(functions.into_iter().chain([barrier]).collect()))
    }

    /// The function of this name.
    pub fn id(&self, name: &str) -> Result<FuncId, Failure> {
        let found = self.0.get(name).copied();
        found.ok_or_else(|| Failure::from(format!("call of {name}, which is not in the program")))
    }
}

/// The signature of a function with these parameters.
pub fn signature(module: &ObjectModule, params: impl Iterator<Item = Ty>) -> Signature {
    let mut signature = module.make_signature();
    signature.params.extend(params.map(|ty| AbiParam::new(repr::of(ty))));
    signature
}

/// Lowers one function into `context`.
pub fn function(
    module: &mut ObjectModule,
    callees: &Callees,
    source: &Function,
    context: &mut Context,
) -> Result<(), Failure> {
    context.func.signature = signature(module, source.body.params.iter().map(|p| source.ty(*p)));
    let mut scratch = FunctionBuilderContext::new();
    let mut lower = Lower {
        module,
        callees,
        source,
        b: FunctionBuilder::new(&mut context.func, &mut scratch),
        values: vec![None; source.types.len()],
        splats: BTreeMap::new(),
        refs: BTreeMap::new(),
    };
    lower.body()?;
    let frontend = lower.module.target_config();
    lower.b.finalize(frontend);
    Ok(())
}

struct Lower<'a> {
    module: &'a mut ObjectModule,
    callees: &'a Callees,
    source: &'a Function,
    b: FunctionBuilder<'a>,
    values: Vec<Option<Value>>,
    /// Scalars of vectors known to have the same value in every lane: shift amounts.
    splats: BTreeMap<Val, Value>,
    refs: BTreeMap<String, FuncRef>,
}

impl Lower<'_> {
    fn get(&self, v: Val) -> Value {
        self.values[v.0 as usize].expect("verified: values are defined before their use")
    }

    fn set(&mut self, v: Val, value: Value) {
        self.values[v.0 as usize] = Some(value);
    }

    fn body(&mut self) -> Result<(), Failure> {
        let entry = self.b.create_block();
        self.b.append_block_params_for_function_params(entry);
        self.b.switch_to_block(entry);
        let params = self.b.block_params(entry).to_vec();
        for (v, value) in self.source.body.params.iter().zip(params) {
            self.set(*v, value);
        }
        self.region(&self.source.body)?;
        self.b.ins().return_(&[]);
        self.b.seal_all_blocks();
        Ok(())
    }

    fn region(&mut self, region: &Region) -> Result<Vec<Value>, Failure> {
        for inst in &region.body {
            self.inst(inst)?;
        }
        Ok(region.yields.iter().map(|v| self.get(*v)).collect())
    }

    fn inst(&mut self, inst: &Inst) -> Result<(), Failure> {
        let [result] = inst.results[..] else { return self.effect(inst) };
        match self.value(&inst.op, result)? {
            Some(value) => self.set(result, value),
            None => self.effect(inst)?,
        }
        Ok(())
    }

    /// The value of an instruction with one result and no region.
    fn value(&mut self, op: &Op, result: Val) -> Result<Option<Value>, Failure> {
        let ty = self.source.ty(result);
        Ok(Some(match op {
            Op::Int(k) => self.int(result, ty, *k),
            Op::Float(k) => self.float(ty, *k),
            Op::Un(op, a) => self.unary(*op, self.get(*a), ty),
            Op::Bin(op, a, b) => self.binary(*op, *a, *b, ty),
            Op::Fma(a, b, c) => {
                let [a, b, c] = [a, b, c].map(|v| self.get(*v));
                self.b.ins().fma(a, b, c)
            }
            Op::Dot4I8 { acc, a, b } => {
                let [acc, a, b] = [acc, a, b].map(|v| self.get(*v));
                self.dot4_i8(acc, a, b, ty)
            }
            Op::Dot2I8 { acc, a, b } => {
                let [acc, a, b] = [acc, a, b].map(|v| self.get(*v));
                self.dot2_i8(acc, a, b, ty)
            }
            Op::AddHalves { acc, a } => self.add_halves(self.get(*acc), self.get(*a), ty),
            Op::Table16 { table, index } => {
                let [table, index] = [table, index].map(|v| self.get(*v));
                self.b.ins().swizzle(table, index)
            }
            Op::Cmp(cond, a, b) => self.compare(*cond, self.get(*a), self.get(*b), self.source.ty(*a)),
            Op::Select(c, a, b) => {
                let [x, y, z] = [c, a, b].map(|v| self.get(*v));
                self.select(x, self.source.ty(*c), y, z, ty)
            }
            Op::Cast(cast, a) => self.cast(*cast, self.get(*a), self.source.ty(*a), ty)?,
            Op::Splat(a) => self.splat(result, self.get(*a), ty),
            Op::Extract(a, lane) => self.extract(self.get(*a), self.source.ty(*a), *lane),
            Op::Insert(a, lane, s) => self.insert(self.get(*a), ty, *lane, self.get(*s)),
            Op::Shuffle(a, b, lanes) => self.shuffle(self.get(*a), self.get(*b), self.source.ty(*a), lanes),
            Op::PtrAdd(p, bytes) => {
                let [p, bytes] = [p, bytes].map(|v| self.get(*v));
                self.b.ins().iadd(p, bytes)
            }
            Op::Load { ptr, offset, align, .. } => self.load(self.get(*ptr), *offset, *align, ty),
            Op::Stack { bytes } => self.stack(*bytes)?,
            _ => return Ok(None),
        }))
    }

    /// An instruction with regions, or without a result.
    fn effect(&mut self, inst: &Inst) -> Result<(), Failure> {
        match &inst.op {
            Op::For { lo, hi, step, init, body } => self.for_loop([*lo, *hi, *step], init, body, &inst.results),
            Op::If { cond, then, els } => self.branch(*cond, then, els, &inst.results),
            Op::Store { ptr, offset, value, align, .. } => {
                self.store(self.get(*ptr), *offset, self.get(*value), *align, self.source.ty(*value));
                Ok(())
            }
            // Cranelift has no prefetch, and KIR's has no effect on values.
            Op::Prefetch { .. } => Ok(()),
            Op::Call { callee, args } => {
                let args: Vec<Value> = args.iter().map(|a| self.get(*a)).collect();
                self.call(callee, &args)
            }
            Op::Barrier { phase } => {
                let phase = self.b.ins().iconst(types::I64, i64::from(*phase));
                let params = &self.source.body.params;
                let args = [self.get(params[0]), self.get(params[1]), self.get(params[2]), phase];
                self.call(BARRIER_SYMBOL, &args)
            }
            op if op.needs_group() => {
                let instruction = print::line(self.source, inst);
                Err(Failure::from(format!(
                    "`{instruction}` needs groups of threads, which this back end does not have"
                )))
            }
            op => Err(Failure::from(format!("{op:?} should have been expanded by legalize"))),
        }
    }
}

/// True for a type that is kept as a mask or a byte of 0 or 1.
fn is_truth(ty: Ty) -> bool {
    ty.elem == Elem::I1
}
