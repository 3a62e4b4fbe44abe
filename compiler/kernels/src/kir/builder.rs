//! Builds functions. Kernels are plain Rust functions over a [`Builder`]: Rust is the macro language.
//!
//! Methods panic on type errors: those are bugs of a kernel, caught when it is first built.

use super::func::{Function, Region, Val};
use super::inst::{BinOp, CacheLevel, Cast, Cond, Hint, Inst, Mma, Op, Tiles, UnOp};
use super::types::{Elem, Ty};

/// A function under construction.
#[derive(Default)]
pub struct Builder {
    name: String,
    types: Vec<Ty>,
    regions: Vec<Region>,
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident $op:ident)*) => {
        $($(#[$doc])* pub fn $name(&mut self, a: Val, b: Val) -> Val {
            self.bin(BinOp::$op, a, b)
        })*
    };
}

impl Builder {
    /// A function with the parameters `args: ptr, worker: i64, workers: i64` and then `params`;
    /// the values of all of them come back with it.
    pub fn new(name: impl Into<String>, params: &[Ty]) -> (Builder, Vec<Val>) {
        let mut b = Builder { name: name.into(), types: Vec::new(), regions: vec![Region::default()] };
        let all: Vec<Val> = [Ty::PTR, Ty::I64, Ty::I64].iter().chain(params).map(|ty| b.define(*ty)).collect();
        b.regions[0].params = all.clone();
        (b, all)
    }

    /// The finished function.
    pub fn finish(mut self) -> Function {
        assert_eq!(self.regions.len(), 1, "{}: a region is still open", self.name);
        Function { name: self.name, types: self.types, body: self.regions.pop().expect("one region is open") }
    }

    /// The `args` parameter.
    pub fn args(&self) -> Val {
        Val(0)
    }

    /// This worker's index, i64.
    pub fn worker(&self) -> Val {
        Val(1)
    }

    /// Number of workers, i64.
    pub fn workers(&self) -> Val {
        Val(2)
    }

    /// Type of a value.
    pub fn ty(&self, v: Val) -> Ty {
        self.types[v.0 as usize]
    }

    fn define(&mut self, ty: Ty) -> Val {
        self.types.push(ty);
        Val(self.types.len() as u32 - 1)
    }

    fn emit(&mut self, op: Op, results: Vec<Val>) {
        self.regions.last_mut().expect("a region is open").body.push(Inst { results, op });
    }

    fn value(&mut self, op: Op, ty: Ty) -> Val {
        let v = self.define(ty);
        self.emit(op, vec![v]);
        v
    }

    /// Any instruction without regions; `ty` is its result's type if it has one.
    pub fn op(&mut self, op: Op, ty: Option<Ty>) -> Option<Val> {
        let result = ty.map(|ty| self.define(ty));
        self.emit(op, result.into_iter().collect());
        result
    }

    /// Integer constant of type `ty` (every lane).
    pub fn int(&mut self, ty: Ty, v: i64) -> Val {
        assert!(ty.elem.is_int() || ty.elem == Elem::I1, "int of {ty}");
        self.value(Op::Int(v), ty)
    }

    /// i64 constant.
    pub fn index(&mut self, v: usize) -> Val {
        self.int(Ty::I64, i64::try_from(v).expect("an index fits i64"))
    }

    /// Float constant of type `ty` (every lane).
    pub fn float(&mut self, ty: Ty, v: f64) -> Val {
        assert!(ty.elem.is_float(), "float of {ty}");
        let v = if ty.elem == Elem::F32 { f64::from(v as f32) } else { v };
        self.value(Op::Float(v), ty)
    }

    /// An instruction with one operand.
    pub fn un(&mut self, op: UnOp, a: Val) -> Val {
        let ty = self.ty(a);
        self.value(Op::Un(op, a), ty)
    }

    /// An instruction with two operands of one type.
    pub fn bin(&mut self, op: BinOp, a: Val, b: Val) -> Val {
        let ty = self.ty(a);
        assert_eq!(ty, self.ty(b), "{}: {op:?}", self.name);
        self.value(Op::Bin(op, a, b), ty)
    }

    binary! {
        /// Sum.
        add Add
        /// Difference.
        sub Sub
        /// Product.
        mul Mul
        /// Quotient.
        div Div
        /// Signed remainder.
        rem Rem
        /// Smaller one.
        min Min
        /// Larger one.
        max Max
        /// Bitwise and.
        and And
        /// Bitwise or.
        or Or
        /// Shift left.
        shl Shl
        /// Shift right, zeros in.
        lshr LShr
    }

    /// `a + constant` on i64 or i32.
    pub fn add_const(&mut self, a: Val, c: i64) -> Val {
        let k = self.int(self.ty(a), c);
        self.add(a, k)
    }

    /// `a * constant` on integers.
    pub fn mul_const(&mut self, a: Val, c: i64) -> Val {
        let k = self.int(self.ty(a), c);
        self.mul(a, k)
    }

    /// `a * b + c`, rounded once.
    pub fn fma(&mut self, a: Val, b: Val, c: Val) -> Val {
        let ty = self.ty(a);
        assert!(ty == self.ty(b) && ty == self.ty(c), "{}: fma", self.name);
        self.value(Op::Fma(a, b, c), ty)
    }

    /// Comparison.
    pub fn cmp(&mut self, cond: Cond, a: Val, b: Val) -> Val {
        let ty = self.ty(a);
        assert_eq!(ty, self.ty(b), "{}: cmp", self.name);
        self.value(Op::Cmp(cond, a, b), ty.with_elem(Elem::I1))
    }

    /// `c ? a : b`.
    pub fn select(&mut self, c: Val, a: Val, b: Val) -> Val {
        let ty = self.ty(a);
        assert_eq!(ty, self.ty(b), "{}: select", self.name);
        self.value(Op::Select(c, a, b), ty)
    }

    /// Conversion to `ty`.
    pub fn cast(&mut self, cast: Cast, a: Val, ty: Ty) -> Val {
        self.value(Op::Cast(cast, a), ty)
    }

    /// A scalar in `lanes` lanes; with one lane the scalar itself.
    pub fn splat(&mut self, a: Val, lanes: u16) -> Val {
        if lanes == 1 {
            return a;
        }
        let ty = Ty::vector(self.ty(a).elem, lanes);
        self.value(Op::Splat(a), ty)
    }

    /// A lane of a vector.
    pub fn extract(&mut self, a: Val, lane: u16) -> Val {
        let ty = Ty::scalar(self.ty(a).elem);
        self.value(Op::Extract(a, lane), ty)
    }

    /// The vector with one lane replaced.
    pub fn insert(&mut self, a: Val, lane: u16, scalar: Val) -> Val {
        let ty = self.ty(a);
        self.value(Op::Insert(a, lane, scalar), ty)
    }

    /// Lanes picked from two vectors.
    pub fn shuffle(&mut self, a: Val, b: Val, lanes: Vec<u16>) -> Val {
        let ty = Ty::vector(self.ty(a).elem, lanes.len() as u16);
        self.value(Op::Shuffle(a, b, lanes), ty)
    }

    /// `ptr + bytes`.
    pub fn ptr_add(&mut self, ptr: Val, bytes: Val) -> Val {
        self.value(Op::PtrAdd(ptr, bytes), Ty::PTR)
    }

    /// `ptr + constant bytes`.
    pub fn ptr_add_const(&mut self, ptr: Val, bytes: usize) -> Val {
        let k = self.index(bytes);
        self.ptr_add(ptr, k)
    }

    /// Value of type `ty` at `ptr + offset`, aligned to its element.
    pub fn load(&mut self, ty: Ty, ptr: Val, offset: i32) -> Val {
        let align = (ty.elem.bits() / 8).max(1);
        self.load_with(ty, ptr, offset, align, Hint::None)
    }

    /// Value of type `ty` at `ptr + offset` with a guaranteed alignment.
    pub fn load_with(&mut self, ty: Ty, ptr: Val, offset: i32, align: u32, hint: Hint) -> Val {
        self.value(Op::Load { ptr, offset, align, hint }, ty)
    }

    /// Stores at `ptr + offset`, aligned to the value's element.
    pub fn store(&mut self, value: Val, ptr: Val, offset: i32) {
        let align = (self.ty(value).elem.bits() / 8).max(1);
        self.emit(Op::Store { ptr, offset, value, align, hint: Hint::None }, vec![]);
    }

    /// Stores at `ptr + offset` with a guaranteed alignment.
    pub fn store_with(&mut self, value: Val, ptr: Val, offset: i32, align: u32) {
        self.emit(Op::Store { ptr, offset, value, align, hint: Hint::None }, vec![]);
    }

    /// Asks for a cache line.
    pub fn prefetch(&mut self, ptr: Val, offset: i32, to: CacheLevel) {
        self.emit(Op::Prefetch { ptr, offset, to }, vec![]);
    }

    /// Frame memory, aligned to 64 bytes.
    pub fn stack(&mut self, bytes: u32) -> Val {
        assert_eq!(self.regions.len(), 1, "{}: stack memory inside a region", self.name);
        self.value(Op::Stack { bytes }, Ty::PTR)
    }

    /// Two bf16 products per lane added to f32.
    pub fn dot2_bf16(&mut self, acc: Val, a: Val, b: Val) -> Val {
        let ty = self.ty(acc);
        self.value(Op::Dot2Bf16 { acc, a, b }, ty)
    }

    /// Four byte products per lane added to i32.
    pub fn dot4_i8(&mut self, acc: Val, a: Val, b: Val) -> Val {
        let ty = self.ty(acc);
        self.value(Op::Dot4I8 { acc, a, b }, ty)
    }

    /// Two byte products added to each half of an i32; see [`Op::Dot2I8`].
    pub fn dot2_i8(&mut self, acc: Val, a: Val, b: Val) -> Val {
        let ty = self.ty(acc);
        self.value(Op::Dot2I8 { acc, a, b }, ty)
    }

    /// The halves of an i32 added to another.
    pub fn add_halves(&mut self, acc: Val, a: Val) -> Val {
        let ty = self.ty(acc);
        self.value(Op::AddHalves { acc, a }, ty)
    }

    /// Products of `rows` (i64) rows of x with panels, added to the sums; see [`Tiles`].
    pub fn tiles(&mut self, tiles: Tiles, (x, panels, sums): (Val, Val, Val), rows: Val) {
        self.emit(Op::Tiles { tiles, x, panels, sums, rows }, vec![]);
    }

    /// Bytes looked up in tables of 16; see [`Op::Table16`].
    pub fn table16(&mut self, table: Val, index: Val) -> Val {
        let ty = self.ty(table);
        self.value(Op::Table16 { table, index }, ty)
    }

    /// Numbers looked up in a table of 16; see [`Op::Lookup16`].
    pub fn lookup16(&mut self, table: Val, index: Val) -> Val {
        let ty = self.ty(table);
        self.value(Op::Lookup16 { table, index }, ty)
    }

    /// A counted loop with carried values; see [`Op::For`].
    pub fn for_carried(
        &mut self,
        (lo, hi, step): (Val, Val, Val),
        init: &[Val],
        body: impl FnOnce(&mut Builder, Val, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        let i = self.define(Ty::I64);
        let carried: Vec<Val> = init.iter().map(|v| self.define(self.ty(*v))).collect();
        let mut params = vec![i];
        params.extend(&carried);
        self.regions.push(Region { params, ..Region::default() });
        let yields = body(self, i, &carried);
        let mut region = self.regions.pop().expect("the loop's region is open");
        let types = |b: &Builder, vs: &[Val]| vs.iter().map(|v| b.ty(*v)).collect::<Vec<_>>();
        assert_eq!(types(self, &yields), types(self, init), "{}: loop-carried types", self.name);
        region.yields = yields;
        let results: Vec<Val> = init.iter().map(|v| self.define(self.ty(*v))).collect();
        self.emit(Op::For { lo, hi, step, init: init.to_vec(), body: region }, results.clone());
        results
    }

    /// A counted loop `lo..hi` with a constant step and no carried values.
    pub fn for_range(&mut self, lo: Val, hi: Val, step: usize, body: impl FnOnce(&mut Builder, Val)) {
        let step = self.index(step);
        self.for_carried((lo, hi, step), &[], |b, i, _| {
            body(b, i);
            vec![]
        });
    }

    /// A loop over `0..n` with a constant step.
    pub fn for_const(&mut self, n: usize, step: usize, body: impl FnOnce(&mut Builder, Val)) {
        let (lo, hi) = (self.index(0), self.index(n));
        self.for_range(lo, hi, step, body);
    }

    /// A branch with results; see [`Op::If`].
    pub fn if_else(
        &mut self,
        cond: Val,
        then: impl FnOnce(&mut Builder) -> Vec<Val>,
        els: impl FnOnce(&mut Builder) -> Vec<Val>,
    ) -> Vec<Val> {
        let then = self.region(then);
        let els = self.region(els);
        let types = |b: &Builder, vs: &[Val]| vs.iter().map(|v| b.ty(*v)).collect::<Vec<_>>();
        let result_types = types(self, &then.yields);
        assert_eq!(result_types, types(self, &els.yields), "{}: types of the branches", self.name);
        let results: Vec<Val> = result_types.into_iter().map(|ty| self.define(ty)).collect();
        self.emit(Op::If { cond, then, els }, results.clone());
        results
    }

    /// Runs `then` where `cond` holds.
    pub fn if_then(&mut self, cond: Val, then: impl FnOnce(&mut Builder)) {
        self.if_else(
            cond,
            |b| {
                then(b);
                vec![]
            },
            |_| vec![],
        );
    }

    fn region(&mut self, body: impl FnOnce(&mut Builder) -> Vec<Val>) -> Region {
        self.regions.push(Region::default());
        let yields = body(self);
        let mut region = self.regions.pop().expect("the branch's region is open");
        region.yields = yields;
        region
    }

    /// Calls a function with `args, worker, workers` and then `more`.
    pub fn call(&mut self, callee: impl Into<String>, more: &[Val]) {
        let mut args = vec![self.args(), self.worker(), self.workers()];
        args.extend(more);
        self.emit(Op::Call { callee: callee.into(), args }, vec![]);
    }

    /// This thread's number in its worker: i64.
    pub fn thread(&mut self) -> Val {
        self.value(Op::Thread, Ty::I64)
    }

    /// Memory that the worker's threads share.
    pub fn shared(&mut self, bytes: usize) -> Val {
        assert_eq!(self.regions.len(), 1, "{}: shared memory inside a region", self.name);
        self.value(Op::Shared { bytes: u32::try_from(bytes).expect("shared memory is small") }, Ty::PTR)
    }

    /// The value of the thread whose number in the warp differs by the bits of `mask`.
    pub fn lane_xor(&mut self, value: Val, mask: u8) -> Val {
        let ty = self.ty(value);
        self.value(Op::LaneXor { value, mask }, ty)
    }

    /// A product of the matrix unit; see [`Mma`].
    pub fn mma(&mut self, kind: Mma, acc: Val, a: Val, b: Val) -> Val {
        let ty = self.ty(acc);
        self.value(Op::Mma { kind, acc, a, b }, ty)
    }

    /// Begins a product of four warps; see [`Op::Wgmma`].
    pub fn wgmma(&mut self, kind: Mma, acc: Val, a: Val, b: Val) -> Val {
        let ty = self.ty(acc);
        self.value(Op::Wgmma { kind, acc, a, b }, ty)
    }

    /// Waits for products of four warps; see [`Op::WgmmaWait`].
    pub fn wgmma_wait(&mut self, sums: Val, kept: Vec<Val>) -> Val {
        let ty = self.ty(sums);
        self.value(Op::WgmmaWait { sums, kept }, ty)
    }

    /// Lets products of four warps see what this thread has written.
    pub fn shared_fence(&mut self) {
        self.emit(Op::SharedFence, vec![]);
    }

    /// Four matrices of halves in shared memory, transposed; see [`Op::LoadMatrix`].
    pub fn load_matrix(&mut self, ptr: Val) -> Val {
        self.value(Op::LoadMatrix { ptr }, Ty::vector(Elem::I32, 4))
    }

    /// Whether this worker is the last one; see [`Op::LastOf`].
    pub fn last_of(&mut self, counter: Val, add: Val, total: usize) -> Val {
        let total = u32::try_from(total).expect("a count of panels fits 32 bits");
        self.value(Op::LastOf { counter, add, total }, Ty::I1)
    }

    /// Begins to copy into shared memory.
    pub fn async_copy(&mut self, to: Val, from: Val, bytes: u32) {
        self.emit(Op::AsyncCopy { to, from, bytes }, vec![]);
    }

    /// Asks for memory to be brought nearer.
    pub fn fetch(&mut self, ptr: Val, bytes: u32) {
        self.emit(Op::Fetch { ptr, bytes }, vec![]);
    }

    /// Closes a group of copies.
    pub fn async_commit(&mut self) {
        self.emit(Op::AsyncCommit, vec![]);
    }

    /// Waits until at most `pending` groups of copies are under way.
    pub fn async_wait(&mut self, pending: u32) {
        self.emit(Op::AsyncWait { pending }, vec![]);
    }

    /// Makes a signal; see [`Op::SignalBegin`].
    pub fn signal_begin(&mut self, ptr: Val, copies: usize) {
        self.emit(Op::SignalBegin { ptr, copies: copies as u32 }, vec![]);
    }

    /// Ends a signal.
    pub fn signal_end(&mut self, ptr: Val) {
        self.emit(Op::SignalEnd { ptr }, vec![]);
    }

    /// Begins a copy that a signal tells of.
    pub fn bulk_copy(&mut self, to: Val, from: Val, bytes: usize, signal: Val) {
        self.emit(Op::BulkCopy { to, from, bytes: bytes as u32, signal }, vec![]);
    }

    /// Waits for a signal.
    pub fn signal_wait(&mut self, ptr: Val, parity: Val) {
        self.emit(Op::SignalWait { ptr, parity }, vec![]);
    }

    /// Waits for all threads of the worker.
    pub fn group_barrier(&mut self) {
        self.emit(Op::GroupBarrier, vec![]);
    }

    /// Waits for all threads of the warp.
    pub fn warp_barrier(&mut self) {
        self.emit(Op::WarpBarrier, vec![]);
    }

    /// Tells of a barrier; see [`Op::Arrive`].
    pub fn arrive(&mut self) {
        self.emit(Op::Arrive, vec![]);
    }

    /// Waits at the barrier told of.
    pub fn wait_for_all(&mut self, phase: u32) {
        self.emit(Op::Await { phase }, vec![]);
    }

    /// Waits for all workers.
    pub fn barrier(&mut self, phase: u32) {
        self.emit(Op::Barrier { phase }, vec![]);
    }
}
