//! Products with weights: one or several segments over the same prepared rows.
//!
//! A segment is a weight with its epilogue; its rows are cut into units, and all units of all
//! segments are shared out among the workers in contiguous ranges.

use super::epilogue::Epilogue;
use super::gpu::{self, gemv::Gather};
use super::product::Product;
use super::prologue::{self, Prologue};
use crate::env::{Count, Env, Place, Rows, Scratch};
use crate::kir::{Function, Val};
use crate::schedule::Schedule;

/// A weight, its product and what happens to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Offset of the packed weight in the call's weights.
    pub weight: usize,
    /// The product of one unit.
    pub product: Product,
    /// Units in the weight.
    pub units: usize,
    /// What happens to each unit's product.
    pub epilogue: Epilogue,
}

impl Segment {
    fn unit_bytes(&self) -> usize {
        self.product.panels * self.product.format.panel_bytes(self.product.k)
    }
}

/// Products of the same rows with several weights.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearKernel {
    /// Which count the rows follow.
    pub count: Count,
    /// Input.
    pub x: Rows,
    /// What is done to the input first.
    pub prologue: Option<Prologue>,
    /// The segments.
    pub segments: Vec<Segment>,
    /// Own scratch for raw products: as many rows as a step has, each of the widest unit.
    pub raw: Place,
    /// Register tiling.
    pub schedule: Schedule,
    /// Where a group's units wait for their other rows.
    pub gather: Option<Gather>,
    /// Whether the kernel of [`LinearKernel::build_ahead`] runs before this one.
    pub ahead: bool,
    /// Whether there is never more than one row.
    pub single: bool,
}

impl LinearKernel {
    /// Whether the workers meet inside, between prologue and product.
    pub fn meets_inside(&self, scratch: Scratch) -> bool {
        let shared = scratch.threads == 1 || self.schedule.tiles && gpu::gemm::fits(self, scratch);
        self.prologue.is_some() && shared
    }

    /// Emits a kernel that asks for the first weights before the inputs are there, where that pays.
    pub fn build_ahead(&self, name: &str, scratch: Scratch) -> Option<Function> {
        self.ahead.then(|| gpu::gemv::build_ahead(self, name, scratch)).flatten()
    }

    /// Emits the kernel.
    pub fn build(&self, name: &str, scratch: Scratch) -> Function {
        if self.schedule.tiles && gpu::gemm::fits(self, scratch) {
            return gpu::gemm::build(self, name, scratch);
        }
        if scratch.threads > 1 {
            return gpu::gemv::build(self, name, scratch);
        }
        let mut env = Env::new(name, scratch);
        let n = env.count(self.count);
        let x = prologue::emit(&mut env, self.prologue.as_ref(), &self.x, n);
        let total: usize = self.segments.iter().map(|s| s.units).sum();
        let total = env.b.index(total);
        let (lo, hi) = env.share(total);
        let raw = env.ptr(self.raw);
        let mut first = 0;
        for segment in &self.segments {
            self.segment(&mut env, segment, (first, lo, hi), (x, raw), n);
            first += segment.units;
        }
        env.finish()
    }

    /// Units `lo..hi` as far as they are of this segment, which begins at unit `first`.
    fn segment(&self, env: &mut Env, s: &Segment, (first, lo, hi): (usize, Val, Val), (x, raw): (Val, Val), n: Val) {
        let (start, end) = (clamp(env, lo, first, s.units), clamp(env, hi, first, s.units));
        let weight = env.ptr(Place::Weights(s.weight));
        env.for_range(start, end, 1, |env, unit| {
            let w = env.at(weight, unit, s.unit_bytes());
            s.product.emit(env, &self.schedule, (x, w, raw), n);
            s.epilogue.emit(env, unit, raw, n);
        });
    }
}

/// `min(max(v - first, 0), len)`.
fn clamp(env: &mut Env, v: Val, first: usize, len: usize) -> Val {
    let (zero, len) = (env.b.index(0), env.b.index(len));
    let v = env.b.add_const(v, -(first as i64));
    let v = env.b.max(v, zero);
    env.b.min(v, len)
}
