//! The step: calls of kernels with barriers between them, run by every worker.

use crate::kir::{Builder, Function, Hint, Ty, Val};

/// One thing a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Calls a kernel.
    Kernel(String),
    /// Waits for all workers; ends this phase.
    Barrier(u32),
    /// Calls a kernel with the weights of the call that comes next, if there is one.
    Ahead(String),
}

/// Actions repeated for consecutive calls of a block: weights and cache of each lie a fixed
/// distance after those of the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Number of calls.
    pub count: usize,
    /// Offset of the first call's weights.
    pub weights: usize,
    /// Bytes to the next call's.
    pub weights_stride: usize,
    /// Offset of the first call's layer in a KV page.
    pub kv: usize,
    /// Bytes to the next call's.
    pub kv_stride: usize,
    /// What each call does.
    pub actions: Vec<Action>,
}

/// Emits the step's function.
pub fn build(symbol: &str, runs: &[Run]) -> Function {
    let (mut b, _) = Builder::new(symbol, &[]);
    let offset = llmc_abi::step::STEP_FIELDS.iter().find(|(n, _)| *n == "weights").expect("a field").1;
    let args = b.args();
    let weights = b.load_with(Ty::PTR, args, offset as i32, 8, Hint::Constant);
    for run in runs {
        b.for_const(run.count, 1, |b, i| call(b, run, weights, i));
    }
    b.finish()
}

/// Where the weights of call `i` begin.
fn weights_of(b: &mut Builder, run: &Run, weights: Val, i: Val) -> Val {
    let w = b.mul_const(i, run.weights_stride as i64);
    let w = b.add_const(w, run.weights as i64);
    b.ptr_add(weights, w)
}

fn call(b: &mut Builder, run: &Run, weights: Val, i: Val) {
    let w = weights_of(b, run, weights, i);
    let kv = b.mul_const(i, run.kv_stride as i64);
    let kv = b.add_const(kv, run.kv as i64);
    for action in &run.actions {
        match action {
            Action::Kernel(name) => b.call(name.clone(), &[w, kv]),
            Action::Barrier(phase) => b.barrier(*phase),
            Action::Ahead(name) => {
                let (next, last) = (b.add_const(i, 1), b.index(run.count - 1));
                let next = b.min(next, last);
                let w = weights_of(b, run, weights, next);
                b.call(name.clone(), &[w, kv]);
            }
        }
    }
}
