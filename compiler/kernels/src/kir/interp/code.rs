//! Programs as flat lists of steps with jumps, operands resolved to places in a frame.
//!
//! Each lane of each value has a place of 64 bits in its function's frame. Loops and branches
//! become jumps, so that a worker can stop at a barrier anywhere and go on later.

use super::async_copy::AsyncStep;
use super::meet::{GroupMeet, Meet, WarpMeet};
use super::scalar;
use super::signal::SignalStep;
use super::step::Step;
use super::tiles::TileStep;
use super::wgmma::Product;
use crate::kir::func::{Function, Program, Region, Val};
use crate::kir::inst::{Hint, Inst, Op};
use crate::kir::types::{Elem, Ty};
use std::collections::BTreeMap;

/// A function's steps.
pub(super) struct Code<'a> {
    pub function: &'a Function,
    pub steps: Vec<Step>,
    /// The instruction each step belongs to; none for a return.
    pub sources: Vec<Option<&'a Inst>>,
    /// Places in the frame; parameters are the first.
    pub places: usize,
}

/// A program ready to run.
pub struct Compiled<'a> {
    pub(super) functions: Vec<Code<'a>>,
    pub(super) names: BTreeMap<&'a str, usize>,
    /// Bytes that the threads of a worker share, if they do.
    pub(super) shared: Option<u32>,
    /// Whether fences of that memory matter.
    pub(super) fenced: bool,
}

impl<'a> Compiled<'a> {
    /// Prepares a verified program.
    pub fn new(program: &'a Program) -> Compiled<'a> {
        let (functions, names) = (Vec::new(), BTreeMap::new());
        let mut compiled = Compiled { functions, names, shared: shared_bytes(program), fenced: has_products(program) };
        for (index, function) in program.functions.iter().enumerate() {
            let code = Emitter::function(function, &compiled.names);
            compiled.functions.push(code);
            compiled.names.insert(&function.name, index);
        }
        compiled
    }
}

/// The most that a function asks for.
fn shared_bytes(program: &Program) -> Option<u32> {
    let insts = program.functions.iter().flat_map(|f| &f.body.body);
    insts.filter_map(|inst| if let Op::Shared { bytes } = inst.op { Some(bytes) } else { None }).max()
}

/// Whether some function has products that the matrix units of four warps make.
fn has_products(program: &Program) -> bool {
    fn of(region: &Region) -> bool {
        region.body.iter().any(|inst| match &inst.op {
            Op::Wgmma { .. } => true,
            Op::For { body, .. } => of(body),
            Op::If { then, els, .. } => of(then) || of(els),
            _ => false,
        })
    }
    program.functions.iter().any(|f| of(&f.body))
}

struct Emitter<'a, 'n> {
    code: Code<'a>,
    /// First place of every value.
    places: Vec<usize>,
    names: &'n BTreeMap<&'a str, usize>,
}

impl<'a> Emitter<'a, '_> {
    fn function(function: &'a Function, names: &BTreeMap<&'a str, usize>) -> Code<'a> {
        let code = Code { function, steps: vec![], sources: vec![], places: 0 };
        let mut e = Emitter { code, places: vec![usize::MAX; function.types.len()], names };
        let params = function.body.params.iter().copied();
        let others = (0..function.types.len() as u32).map(Val);
        for v in params.chain(others) {
            if e.place(v) == usize::MAX {
                e.places[v.0 as usize] = e.code.places;
                e.code.places += e.lanes(v);
            }
        }
        e.body(&function.body);
        e.push(None, Step::Return);
        e.code
    }

    fn place(&self, v: Val) -> usize {
        self.places[v.0 as usize]
    }

    fn ty(&self, v: Val) -> Ty {
        self.code.function.ty(v)
    }

    fn lanes(&self, v: Val) -> usize {
        usize::from(self.ty(v).lanes)
    }

    /// Places of all lanes of some values.
    fn all(&self, values: &[Val]) -> Vec<usize> {
        values.iter().flat_map(|v| self.place(*v)..self.place(*v) + self.lanes(*v)).collect()
    }

    fn push(&mut self, source: Option<&'a Inst>, step: Step) -> usize {
        self.code.steps.push(step);
        self.code.sources.push(source);
        self.code.steps.len() - 1
    }

    fn here(&self) -> usize {
        self.code.steps.len()
    }

    fn assign(&mut self, inst: &'a Inst, to: &[Val], from: &[Val]) {
        if !to.is_empty() {
            let (to, from) = (self.all(to), self.all(from));
            self.push(Some(inst), Step::Move { to, from });
        }
    }

    fn body(&mut self, region: &'a Region) {
        for inst in &region.body {
            match &inst.op {
                Op::For { .. } => self.for_loop(inst),
                Op::If { .. } => self.branch(inst),
                Op::Prefetch { .. } | Op::Fetch { .. } => {}
                Op::LoadMatrix { ptr } => self.load_matrix(inst, *ptr),
                op => {
                    let step = self.step(inst, op);
                    self.push(Some(inst), step);
                }
            }
        }
    }

    /// Each thread's row, then the exchange.
    fn load_matrix(&mut self, inst: &'a Inst, ptr: Val) {
        let to = self.place(inst.results[0]);
        let ptr = self.place(ptr);
        self.push(Some(inst), Step::Load { to, lanes: 4, bytes: 4, ptr, offset: 0, align: 16, constant: false });
        self.push(Some(inst), Step::Meet(Meet::Warp(WarpMeet::Transpose { to })));
    }

    fn for_loop(&mut self, inst: &'a Inst) {
        let Op::For { lo, hi, step, init, body } = &inst.op else { unreachable!("a loop") };
        self.assign(inst, &body.params[..1], &[*lo]);
        self.assign(inst, &body.params[1..], init);
        let (i, hi, step) = (self.place(body.params[0]), self.place(*hi), self.place(*step));
        let head = self.push(Some(inst), Step::LoopTest { i, hi, step, exit: 0 });
        self.body(body);
        self.assign(inst, &body.params[1..], &body.yields);
        self.push(Some(inst), Step::LoopNext { i, step, head });
        self.code.steps[head] = Step::LoopTest { i, hi, step, exit: self.here() };
        self.assign(inst, &inst.results, &body.params[1..]);
    }

    fn branch(&mut self, inst: &'a Inst) {
        let Op::If { cond, then, els } = &inst.op else { unreachable!("a branch") };
        let cond = self.place(*cond);
        let test = self.push(Some(inst), Step::Unless { cond, target: 0 });
        self.body(then);
        self.assign(inst, &inst.results, &then.yields);
        let skip = self.push(Some(inst), Step::Jump { target: 0 });
        self.code.steps[test] = Step::Unless { cond, target: self.here() };
        self.body(els);
        self.assign(inst, &inst.results, &els.yields);
        self.code.steps[skip] = Step::Jump { target: self.here() };
    }

    fn step(&self, inst: &Inst, op: &Op) -> Step {
        let result = inst.results.first().copied();
        let ty = result.map_or(Ty::I64, |v| self.ty(v));
        let to = result.map_or(0, |v| self.place(v));
        let lanes = usize::from(ty.lanes);
        let at = |v: &Val| self.place(*v);
        let map1 = |f, a| Step::Map1 { f, to, lanes, a: at(a) };
        let map2 = |f, a, b| Step::Map2 { f, to, lanes, a: at(a), b: at(b) };
        let map3 = |f, a, b, c| Step::Map3 { f, to, lanes, a: at(a), a_stride: 1, b: at(b), c: at(c) };
        match op {
            Op::Int(v) => Step::Fill { to, lanes, bits: scalar::wrap_to(*v as u64, ty.elem.bits()) },
            Op::Float(v) if ty.elem == Elem::F32 => Step::Fill { to, lanes, bits: (*v as f32).to_bits().into() },
            Op::Float(v) => Step::Fill { to, lanes, bits: v.to_bits() },
            Op::Un(op, a) => map1(scalar::un(*op, ty.elem), a),
            Op::Bin(op, a, b) => map2(scalar::bin(*op, ty.elem), a, b),
            Op::Cmp(cond, a, b) => map2(scalar::cmp(*cond, self.ty(*a).elem), a, b),
            Op::PtrAdd(a, b) => map2(scalar::ptr_add, a, b),
            Op::Fma(a, b, c) => map3(scalar::fma(ty.elem), a, b, c),
            Op::Dot2Bf16 { acc, a, b } => map3(scalar::dot2_bf16, acc, a, b),
            Op::Dot4I8 { acc, a, b } => map3(scalar::dot4_i8, acc, a, b),
            Op::Dot2I8 { acc, a, b } => map3(scalar::dot2_i8, acc, a, b),
            Op::AddHalves { acc, a } => map2(scalar::add_halves, acc, a),
            Op::Select(c, a, b) => {
                let a_stride = usize::from(self.ty(*c).lanes > 1);
                Step::Map3 { f: scalar::select, to, lanes, a: at(c), a_stride, b: at(a), c: at(b) }
            }
            Op::Cast(cast, a) if self.lanes(*a) == lanes => map1(scalar::cast(*cast, self.ty(*a).elem, ty.elem), a),
            Op::Cast(_, a) => {
                let bytes = |ty: Ty| (ty.elem.bits() / 8) as usize;
                Step::Repack { to, lanes, bytes: bytes(ty), a: at(a), a_bytes: bytes(self.ty(*a)) }
            }
            _ => self.movement(op, ty, to),
        }
    }

    fn movement(&self, op: &Op, ty: Ty, to: usize) -> Step {
        let lanes = usize::from(ty.lanes);
        let at = |v: &Val| self.place(*v);
        let bytes = |ty: Ty| (ty.elem.bits() / 8) as usize;
        match op {
            Op::Splat(a) => Step::Pick { to, from: vec![at(a); lanes] },
            Op::Extract(a, lane) => Step::Pick { to, from: vec![at(a) + usize::from(*lane)] },
            Op::Insert(a, lane, s) => {
                let mut from: Vec<usize> = (at(a)..at(a) + lanes).collect();
                from[usize::from(*lane)] = at(s);
                Step::Pick { to, from }
            }
            Op::Table16 { table, index } => Step::Table { to, lanes, table: at(table), index: at(index) },
            Op::Lookup16 { table, index } => Step::Lookup { to, lanes, table: at(table), index: at(index) },
            Op::Shuffle(a, b, list) => {
                let both = self.all(&[*a, *b]);
                Step::Pick { to, from: list.iter().map(|l| both[usize::from(*l)]).collect() }
            }
            Op::Load { ptr, offset, align, hint } => {
                let constant = *hint == Hint::Constant;
                Step::Load { to, lanes, bytes: bytes(ty), ptr: at(ptr), offset: *offset, align: *align, constant }
            }
            Op::Store { ptr, offset, value, align, .. } => {
                let (from, ty) = (at(value), self.ty(*value));
                let lanes = usize::from(ty.lanes);
                Step::Store { from, lanes, bytes: bytes(ty), ptr: at(ptr), offset: *offset, align: *align }
            }
            Op::Stack { bytes } => Step::Stack { to, bytes: *bytes },
            Op::Tiles { tiles, x, panels, sums, rows } => {
                let (x, panels, sums, rows) = (at(x), at(panels), at(sums), at(rows));
                Step::Tiles(TileStep { tiles: *tiles, x, panels, sums, rows })
            }
            Op::Call { callee, args } => Step::Call { function: self.names[callee.as_str()], args: self.all(args) },
            _ => self.group(op, to),
        }
    }

    /// What a thread does as one of many.
    fn group(&self, op: &Op, to: usize) -> Step {
        let at = |v: &Val| self.place(*v);
        match op {
            Op::Thread => Step::Thread { to },
            Op::Shared { .. } => Step::Shared { to },
            Op::Arrive => Step::Meet(Meet::Group(GroupMeet::Barrier)),
            Op::Barrier { .. } | Op::Await { .. } => Step::Meet(Meet::Barrier),
            Op::GroupBarrier => Step::Meet(Meet::Group(GroupMeet::Barrier)),
            Op::LastOf { counter, add, total } => {
                let (counter, add) = (at(counter), at(add));
                Step::Meet(Meet::Group(GroupMeet::LastOf { to, counter, add, total: *total }))
            }
            Op::WarpBarrier => Step::Meet(Meet::Warp(WarpMeet::Barrier)),
            Op::LaneXor { value, mask } => {
                Step::Meet(Meet::Warp(WarpMeet::LaneXor { to, from: at(value), mask: usize::from(*mask) }))
            }
            Op::Mma { kind, acc, a, b } => {
                let (acc, a, b) = (at(acc), at(a), at(b));
                Step::Meet(Meet::Warp(WarpMeet::Mma { kind: *kind, to, acc, a, b }))
            }
            Op::Wgmma { kind, acc, a, b } => {
                let (lanes, acc, a, b) = (self.lanes(*acc), at(acc), at(a), at(b));
                Step::Meet(Meet::Warp(WarpMeet::Wgmma(Product { kind: *kind, to, lanes, acc, a, b })))
            }
            Op::WgmmaWait { sums, .. } => {
                Step::Meet(Meet::Warp(WarpMeet::WgmmaWait { to, from: at(sums), lanes: self.lanes(*sums) }))
            }
            Op::SharedFence => Step::Fence,
            Op::AsyncCopy { to, from, bytes } => {
                Step::Async(AsyncStep::Copy { to: at(to), from: at(from), bytes: *bytes })
            }
            Op::AsyncCommit => Step::Async(AsyncStep::Commit),
            Op::AsyncWait { pending } => Step::Async(AsyncStep::Wait { pending: *pending as usize }),
            Op::SignalBegin { ptr, copies } => Step::Signal(SignalStep::Begin { at: at(ptr), copies: *copies }),
            Op::SignalEnd { ptr } => Step::Signal(SignalStep::End { at: at(ptr) }),
            Op::SignalWait { ptr, parity } => Step::Signal(SignalStep::Wait { at: at(ptr), parity: at(parity) }),
            Op::BulkCopy { to, from, bytes, signal } => {
                Step::Signal(SignalStep::Copy { to: at(to), from: at(from), bytes: *bytes, at: at(signal) })
            }
            _ => unreachable!("the other instructions are handled by the caller"),
        }
    }
}
