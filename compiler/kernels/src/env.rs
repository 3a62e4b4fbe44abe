//! What every kernel starts from: the step's arguments, buffers and scratch.
//!
//! A kernel's parameters are `args, worker, workers, weights: ptr, kv: i64`: where the weights of
//! this call of the block begin, and where its layer begins in a KV page.

use crate::kir::{Builder, Elem, Function, Ty, Val};
use crate::layout::row_bytes;
use crate::math;
use crate::ops::byte_rows::ByteRow;
use llmc_abi::step::STEP_FIELDS;

/// Sizes of the scratch memory behind `StepArgs::arena`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scratch {
    /// Bytes shared by all workers.
    pub arena_bytes: usize,
    /// Bytes of each worker, after the shared ones.
    pub worker_bytes: usize,
}

/// Where a buffer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Byte offset in the shared arena.
    Arena(usize),
    /// Byte offset in this worker's scratch.
    Worker(usize),
    /// Byte offset in the weights of this call.
    Weights(usize),
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
                b.load(if counted { Ty::I64 } else { Ty::PTR }, args, *offset as i32)
            })
            .collect();
        let mut env = Env { b, weights: params[3], kv: params[4], fields, worker_scratch: params[0] };
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

    /// Loads `lanes` elements of a row that begins at `row`, from element `index` (i64), as f32.
    pub fn load_row(&mut self, elem: RowElem, row: Val, index: Val, lanes: u16) -> Val {
        let from = self.at(row, index, elem.bytes());
        match elem {
            RowElem::F32 | RowElem::Bf16InF32 => self.b.load(Ty { elem: Elem::F32, lanes }, from, 0),
            RowElem::Bf16 => {
                let half = self.b.load(Ty { elem: Elem::I16, lanes }, from, 0);
                math::from_bf16(&mut self.b, half)
            }
            RowElem::Bytes => unreachable!("only integer products read rows of bytes"),
        }
    }

    /// Stores f32 elements, rounded to what the row holds, from element `index` (i64) of a row.
    pub fn store_row(&mut self, elem: RowElem, v: Val, row: Val, index: Val) {
        let to = self.at(row, index, elem.bytes());
        self.store_elems(elem, v, to);
    }

    /// Stores f32 elements, rounded to what a row holds, at an address in it.
    pub fn store_elems(&mut self, elem: RowElem, v: Val, to: Val) {
        let v = match elem {
            RowElem::F32 => v,
            RowElem::Bf16 => math::to_bf16(&mut self.b, v),
            RowElem::Bf16InF32 => {
                let half = math::to_bf16(&mut self.b, v);
                math::from_bf16(&mut self.b, half)
            }
            RowElem::Bytes => unreachable!("rows of bytes are written whole"),
        };
        self.b.store(v, to, 0);
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

    /// Runs `body` for this worker's rows of `0..n`: worker, worker + workers, ..
    pub fn own_rows(&mut self, n: Val, body: impl FnOnce(&mut Env, Val)) {
        let (lo, step) = (self.b.worker(), self.b.workers());
        self.for_step(lo, n, step, body);
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
