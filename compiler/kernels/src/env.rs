//! What every kernel starts from: the step's arguments, buffers and scratch.
//!
//! A kernel's parameters are `args, worker, workers, weights: ptr, kv: i64`: where the weights of
//! this call of the block begin, and where its layer begins in a KV page.

use crate::group::Group;
use crate::kir::{Builder, Cond, Elem, Function, Hint, Ty, Val};
use crate::layout::{LANES, row_bytes};
use crate::math;
use crate::ops::byte_rows::ByteRow;
use crate::ops::gpu::SHARED_BYTES;
use llmc_abi::step::STEP_FIELDS;

/// Sizes of the scratch memory behind `StepArgs::arena`, and what a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// Bytes shared by all workers.
    pub arena_bytes: usize,
    /// Bytes of each worker, after the shared ones.
    pub worker_bytes: usize,
    /// Threads of a worker: 1, or a multiple of [`WARP`].
    pub threads: usize,
    /// Offset of the kernels' counters from `StepArgs::sync`; only groups of threads have them.
    pub counters: usize,
    /// Shared memory of a group that a kernel may use.
    pub shared: usize,
    /// What of it kernels use that read no weights.
    pub between: usize,
    /// Whether a copy engine fills shared memory.
    pub engine: bool,
    /// Whether the matrix units of four warps work together.
    pub wgmma: bool,
}

impl Scratch {
    /// Without any memory, for workers of so many threads.
    pub fn of_threads(threads: usize) -> Scratch {
        Scratch {
            arena_bytes: 0,
            worker_bytes: 0,
            threads,
            counters: 0,
            shared: SHARED_BYTES,
            between: 0,
            engine: false,
            wgmma: false,
        }
    }
}

/// Threads of a warp.
pub const WARP: usize = 32;
/// Elements of a row that a warp takes at a time where rows are cut into pieces.
const PIECE: usize = 4 * WARP;

/// Where a buffer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Byte offset in the shared arena.
    Arena(usize),
    /// Byte offset in this worker's scratch.
    Worker(usize),
    /// Byte offset in the weights of this call.
    Weights(usize),
    /// The kernels' counter (i32) of this number.
    Counter(usize),
    /// The step's result.
    Logits,
}

/// How the elements of a row lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowElem {
    /// binary32.
    F32,
    /// bfloat16.
    Bf16,
    /// bfloat16 values in binary32, for products that multiply in f32.
    Bf16InF32,
    /// 8-bit integers with a scale for the row; see [`crate::ops::byte_rows`].
    Bytes,
}

impl RowElem {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            RowElem::F32 | RowElem::Bf16InF32 => 4,
            RowElem::Bf16 => 2,
            RowElem::Bytes => 1,
        }
    }

    /// Bytes from one row of `width` elements to the next.
    pub fn stride(self, width: usize) -> usize {
        row_bytes(match self {
            RowElem::Bytes => ByteRow { k: width }.bytes(),
            other => width * other.bytes(),
        })
    }
}

/// Rows in memory: row r begins `r * stride` bytes after `place`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Where row 0 begins.
    pub place: Place,
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Elements of a row.
    pub width: usize,
    /// What the elements are.
    pub elem: RowElem,
}

impl Rows {
    /// Rows of `width` elements with the usual stride.
    pub fn new(place: Place, width: usize, elem: RowElem) -> Rows {
        Rows { place, stride: elem.stride(width), width, elem }
    }
}

/// Which count of the step a kernel's rows follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// `n_tokens`.
    Tokens,
    /// `n_rows`.
    Rows,
}

/// A kernel under construction with what it reads from the step's arguments.
pub struct Env {
    /// The function.
    pub b: Builder,
    /// Weights of this call: ptr.
    pub weights: Val,
    /// Byte offset of this call's layer in a KV page: i64.
    pub kv: Val,
    fields: Vec<Val>,
    worker_scratch: Val,
    counters: usize,
    /// The threads of this worker.
    pub group: Group,
}

impl Env {
    /// A kernel with this symbol.
    pub fn new(name: &str, scratch: Scratch) -> Env {
        let (mut b, params) = Builder::new(name, &[Ty::PTR, Ty::I64]);
        let args = b.args();
        let fields: Vec<Val> = STEP_FIELDS
            .iter()
            .map(|(field, offset)| {
                let counted = field.starts_with("n_") || field.ends_with("stride");
                let ty = if counted { Ty::I64 } else { Ty::PTR };
                b.load_with(ty, args, *offset as i32, 8, Hint::Constant)
            })
            .collect();
        let group = Group::new(&mut b, scratch.threads);
        let (weights, kv, counters) = (params[3], params[4], scratch.counters);
        let mut env = Env { b, weights, kv, fields, worker_scratch: params[0], counters, group };
        let arena = env.field("arena");
        let worker = env.b.worker();
        let own = env.b.mul_const(worker, scratch.worker_bytes as i64);
        let own = env.b.add_const(own, scratch.arena_bytes as i64);
        env.worker_scratch = env.b.ptr_add(arena, own);
        env
    }

    /// The finished kernel.
    pub fn finish(self) -> Function {
        self.b.finish()
    }

    /// A field of `StepArgs`, loaded on entry.
    pub fn field(&self, name: &str) -> Val {
        let index = STEP_FIELDS.iter().position(|(n, _)| *n == name).expect("a field of StepArgs");
        self.fields[index]
    }

    /// A count of the step: i64.
    pub fn count(&self, count: Count) -> Val {
        self.field(match count {
            Count::Tokens => "n_tokens",
            Count::Rows => "n_rows",
        })
    }

    /// Address of a place.
    pub fn ptr(&mut self, place: Place) -> Val {
        let (base, offset) = match place {
            Place::Arena(o) => (self.field("arena"), o),
            Place::Worker(o) => (self.worker_scratch, o),
            Place::Weights(o) => (self.weights, o),
            Place::Counter(i) => (self.field("sync"), self.counters + 4 * i),
            Place::Logits => return self.field("logits"),
        };
        self.b.ptr_add_const(base, offset)
    }

    /// `base + index * bytes`.
    pub fn at(&mut self, base: Val, index: Val, bytes: usize) -> Val {
        let offset = self.b.mul_const(index, bytes as i64);
        self.b.ptr_add(base, offset)
    }

    /// Address of row `row` (i64) of a buffer.
    pub fn row(&mut self, rows: &Rows, row: Val) -> Val {
        let base = self.ptr(rows.place);
        self.at(base, row, rows.stride)
    }

    /// Address of element `index` (i64) of a row that begins at `row`. On a GPU the pairs of a row of bf16
    /// stand in the order of [`crate::group::pair_place`].
    pub fn element(&mut self, elem: RowElem, row: Val, index: Val) -> Val {
        if elem == RowElem::Bf16 && self.group.threads > 1 {
            return crate::group::bf16_place(self, row, index);
        }
        self.at(row, index, elem.bytes())
    }

    /// Loads `lanes` elements of a row that begins at `row`, from element `index` (i64), as f32.
    pub fn load_row(&mut self, elem: RowElem, row: Val, index: Val, lanes: u16) -> Val {
        let from = self.element(elem, row, index);
        match elem {
            RowElem::F32 | RowElem::Bf16InF32 => self.load_f32(from, lanes),
            RowElem::Bf16 => {
                let half = self.b.load(Ty { elem: Elem::I16, lanes }, from, 0);
                math::from_bf16(&mut self.b, half)
            }
            RowElem::Bytes => unreachable!("only integer products read rows of bytes"),
        }
    }

    /// Loads `lanes` f32. A GPU loads several at once only where they are known to be aligned: rows are,
    /// and there an element that several are loaded from is a multiple of their number.
    pub fn load_f32(&mut self, from: Val, lanes: u16) -> Val {
        let align = if self.group.threads > 1 { 4 * u32::from(lanes) } else { 4 };
        self.b.load_with(Ty { elem: Elem::F32, lanes }, from, 0, align, Hint::None)
    }

    /// Stores f32 elements, rounded to what the row holds, from element `index` (i64) of a row.
    pub fn store_row(&mut self, elem: RowElem, v: Val, row: Val, index: Val) {
        let to = self.element(elem, row, index);
        self.store_elems(elem, v, to);
    }

    /// Stores f32 elements, rounded to what a row holds, at an address in it.
    pub fn store_elems(&mut self, elem: RowElem, v: Val, to: Val) {
        let v = self.rounded(elem, v);
        self.b.store(v, to, 0);
    }

    /// f32 elements as a row holds them.
    pub fn rounded(&mut self, elem: RowElem, v: Val) -> Val {
        match elem {
            RowElem::F32 => v,
            RowElem::Bf16 => math::to_bf16(&mut self.b, v),
            RowElem::Bf16InF32 => {
                let half = math::to_bf16(&mut self.b, v);
                math::from_bf16(&mut self.b, half)
            }
            RowElem::Bytes => unreachable!("rows of bytes are written whole"),
        }
    }

    /// Element `index` (i64) of an i32 array of the step, as i64.
    pub fn step_index(&mut self, field: &str, index: Val) -> Val {
        let base = self.field(field);
        let p = self.at(base, index, 4);
        let v = self.b.load(Ty::I32, p, 0);
        self.b.cast(crate::kir::Cast::SExt, v, Ty::I64)
    }

    /// This worker's contiguous share `lo..hi` of `total` (i64) items.
    pub fn share(&mut self, total: Val) -> (Val, Val) {
        let (worker, workers) = (self.b.worker(), self.b.workers());
        let next = self.b.add_const(worker, 1);
        let lo = self.b.mul(total, worker);
        let hi = self.b.mul(total, next);
        (self.b.div(lo, workers), self.b.div(hi, workers))
    }

    /// Runs `body` for this worker's rows of `0..n`: worker, worker + workers, .. In a group each warp has
    /// rows of its own.
    pub fn own_rows(&mut self, n: Val, body: impl FnOnce(&mut Env, Val)) {
        let (lo, step) = self.turns();
        self.for_step(lo, n, step, body);
    }

    /// Lanes of the vectors that kernels work with: 1 in a group.
    pub fn lanes(&self) -> u16 {
        if self.group.threads > 1 { 1 } else { LANES }
    }

    /// The first of this worker's items (in a group, of this warp's), and the distance to the next one.
    fn turns(&mut self) -> (Val, Val) {
        let (worker, workers) = (self.b.worker(), self.b.workers());
        if self.group.threads == 1 {
            return (worker, workers);
        }
        let first = self.b.mul(self.group.warp, workers);
        (self.b.add(first, worker), self.b.mul_const(workers, self.group.warps() as i64))
    }

    /// Runs `body` for the elements `0..n` of a row: (first element, number of elements), a vector at a time
    /// where there are [`LANES`] left. In a group the warp's threads take elements in turns, and what
    /// they have written is there for all of them when it is done.
    pub fn elements(&mut self, n: usize, mut body: impl FnMut(&mut Env, Val, u16)) {
        if self.group.threads > 1 {
            let (hi, step) = (self.b.index(n), self.b.index(WARP));
            let lane = self.group.lane;
            self.for_step(lane, hi, step, |env, i| body(env, i, 1));
            return self.b.warp_barrier();
        }
        let whole = n / LANES as usize * LANES as usize;
        self.for_const(whole, LANES as usize, |env, i| body(env, i, LANES));
        let (lo, hi) = (self.b.index(whole), self.b.index(n));
        self.for_range(lo, hi, 1, |env, i| body(env, i, 1));
    }

    /// Runs `body` for each of `0..n` by itself; in a group the warp's threads take them in turns.
    pub fn one_by_one(&mut self, n: usize, body: impl FnOnce(&mut Env, Val)) {
        if self.group.threads == 1 {
            return self.for_const(n, 1, body);
        }
        let (hi, step) = (self.b.index(n), self.b.index(WARP));
        self.for_step(self.group.lane, hi, step, body);
        self.b.warp_barrier();
    }

    /// Runs `body` for the elements `0..width` of the rows `0..n`: (row, first element, number of elements).
    /// Rows are shared out; in a group pieces of rows are.
    pub fn own_elements(&mut self, n: Val, width: usize, mut body: impl FnMut(&mut Env, Val, Val, u16)) {
        if self.group.threads == 1 {
            return self.own_rows(n, |env, row| env.elements(width, |env, i, lanes| body(env, row, i, lanes)));
        }
        let pieces = width.div_ceil(PIECE);
        let items = self.b.mul_const(n, pieces as i64);
        self.own_rows(items, |env, item| {
            let count = env.b.index(pieces);
            let (row, piece) = (env.b.div(item, count), env.b.rem(item, count));
            let first = env.b.mul_const(piece, PIECE as i64);
            let first = env.b.add(first, env.group.lane);
            for step in (0..PIECE).step_by(WARP) {
                let i = env.b.add_const(first, step as i64);
                if width.is_multiple_of(PIECE) {
                    body(env, row, i, 1);
                } else {
                    let end = env.b.index(width);
                    let inside = env.b.cmp(Cond::Lt, i, end);
                    env.if_then(inside, |env| body(env, row, i, 1));
                }
            }
        });
    }

    /// Converts rows `0..n`; elements are shared out.
    pub fn copy_rows(&mut self, n: Val, x: &Rows, y: &Rows) {
        self.own_elements(n, y.width, |env, r, i, lanes| {
            let (from, to) = (env.row(x, r), env.row(y, r));
            let v = env.load_row(x.elem, from, i, lanes);
            env.store_row(y.elem, v, to, i);
        });
    }

    /// Runs `body` where `cond` holds.
    pub fn if_then(&mut self, cond: Val, body: impl FnOnce(&mut Env)) {
        self.if_else(cond, body, |_| {});
    }

    /// A loop with carried values whose body takes the environment.
    pub fn for_carried(
        &mut self,
        bounds: (Val, Val, Val),
        init: &[Val],
        body: impl FnOnce(&mut Env, Val, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        self.lend(|b, env| b.for_carried(bounds, init, |b, i, carried| env.inside(b, |env| body(env, i, carried))))
    }

    /// A loop whose body takes the environment.
    pub fn for_step(&mut self, lo: Val, hi: Val, step: Val, body: impl FnOnce(&mut Env, Val)) {
        self.for_carried((lo, hi, step), &[], |env, i, _| {
            body(env, i);
            vec![]
        });
    }

    /// A loop over `lo..hi` by a constant step whose body takes the environment.
    pub fn for_range(&mut self, lo: Val, hi: Val, step: usize, body: impl FnOnce(&mut Env, Val)) {
        let step = self.b.index(step);
        self.for_step(lo, hi, step, body);
    }

    /// A loop over `0..n` by a constant step whose body takes the environment.
    pub fn for_const(&mut self, n: usize, step: usize, body: impl FnOnce(&mut Env, Val)) {
        let (lo, hi) = (self.b.index(0), self.b.index(n));
        self.for_range(lo, hi, step, body);
    }

    /// A branch without results whose arms take the environment.
    pub fn if_else(&mut self, cond: Val, then: impl FnOnce(&mut Env), els: impl FnOnce(&mut Env)) {
        self.lend(|b, env| {
            let env = std::cell::RefCell::new(env);
            let arm = |b: &mut Builder, f: &mut dyn FnMut(&mut Env)| {
                env.borrow_mut().inside(b, |env| f(env));
                vec![]
            };
            let (mut then, mut els) = (Some(then), Some(els));
            b.if_else(
                cond,
                |b| arm(b, &mut |env| then.take().expect("runs once")(env)),
                |b| arm(b, &mut |env| els.take().expect("runs once")(env)),
            );
        });
    }

    /// A branch with results whose arms take the environment.
    pub fn if_value(
        &mut self,
        cond: Val,
        then: impl FnOnce(&mut Env) -> Vec<Val>,
        els: impl FnOnce(&mut Env) -> Vec<Val>,
    ) -> Vec<Val> {
        self.lend(|b, env| {
            let env = std::cell::RefCell::new(env);
            b.if_else(cond, |b| env.borrow_mut().inside(b, then), |b| env.borrow_mut().inside(b, els))
        })
    }

    /// Lends the builder out, with the rest of the environment beside it.
    fn lend<R>(&mut self, f: impl FnOnce(&mut Builder, &mut Env) -> R) -> R {
        let mut b = std::mem::take(&mut self.b);
        let result = f(&mut b, self);
        self.b = b;
        result
    }

    /// Takes a lent builder back for the length of `f`.
    fn inside<R>(&mut self, b: &mut Builder, f: impl FnOnce(&mut Env) -> R) -> R {
        std::mem::swap(&mut self.b, b);
        let result = f(self);
        std::mem::swap(&mut self.b, b);
        result
    }
}
