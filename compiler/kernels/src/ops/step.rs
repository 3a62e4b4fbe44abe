//! The step: calls of kernels with barriers between them, run by every worker.

use crate::kir::{Builder, Cond, Function, Hint, Ty, Val};

/// One thing a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Calls a kernel.
    Kernel(String),
    /// Calls a kernel that asks for what comes next and stores nothing.
    Ask(String),
    /// Waits for all workers; ends this phase.
    Barrier(u32),
    /// Asks for what the call that comes next reads first.
    Ahead,
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
    /// Kernels that ask for what a call reads first.
    pub ahead: Vec<String>,
}

/// Emits the step's function.
pub fn build(symbol: &str, runs: &[Run]) -> Function {
    let (mut b, _) = Builder::new(symbol, &[]);
    let offset = llmc_abi::step::STEP_FIELDS.iter().find(|(n, _)| *n == "weights").expect("a field").1;
    let args = b.args();
    let weights = b.load_with(Ty::PTR, args, offset as i32, 8, Hint::Constant);
    if let Some(first) = runs.first() {
        let zero = b.index(0);
        ask(&mut b, first, weights, zero);
    }
    for (run, next) in runs.iter().zip(runs.iter().skip(1).map(Some).chain([None])) {
        b.for_const(run.count, 1, |b, i| call(b, run, next, weights, i));
    }
    b.finish()
}

/// Where the weights of call `i` begin.
fn weights_of(b: &mut Builder, run: &Run, weights: Val, i: Val) -> Val {
    let w = b.mul_const(i, run.weights_stride as i64);
    let w = b.add_const(w, run.weights as i64);
    b.ptr_add(weights, w)
}

/// Where the layer of call `i` begins in a KV page.
fn cache_of(b: &mut Builder, run: &Run, i: Val) -> Val {
    let kv = b.mul_const(i, run.kv_stride as i64);
    b.add_const(kv, run.kv as i64)
}

/// Asks for what call `i` reads first.
fn ask(b: &mut Builder, run: &Run, weights: Val, i: Val) {
    if run.ahead.is_empty() {
        return;
    }
    let (w, kv) = (weights_of(b, run, weights, i), cache_of(b, run, i));
    run.ahead.iter().for_each(|kernel| b.call(kernel.clone(), &[w, kv]));
}

fn call(b: &mut Builder, run: &Run, next: Option<&Run>, weights: Val, i: Val) {
    let w = weights_of(b, run, weights, i);
    let kv = cache_of(b, run, i);
    let asks = |action: &Action| matches!(action, Action::Ask(_) | Action::Ahead);
    let mut rest = run.actions.as_slice();
    while let Some((action, after)) = rest.split_first() {
        let count = rest.iter().take_while(|a| asks(a)).count();
        if let (1.., Some(Action::Barrier(phase))) = (count, rest.get(count)) {
            // What is asked for comes while the others are waited for.
            b.arrive();
            rest[..count].iter().for_each(|a| act(b, a, (run, next), (weights, w, kv), i));
            b.wait_for_all(*phase);
            rest = &rest[count + 1..];
        } else {
            act(b, action, (run, next), (weights, w, kv), i);
            rest = after;
        }
    }
}

fn act(b: &mut Builder, action: &Action, runs: (&Run, Option<&Run>), (weights, w, kv): (Val, Val, Val), i: Val) {
    match action {
        Action::Kernel(name) | Action::Ask(name) => b.call(name.clone(), &[w, kv]),
        Action::Barrier(phase) => b.barrier(*phase),
        Action::Ahead => ask_next(b, runs, weights, i),
    }
}

/// Asks for what the call after `i` reads first, of the same run or the one that comes next.
fn ask_next(b: &mut Builder, (run, next): (&Run, Option<&Run>), weights: Val, i: Val) {
    let (following, count) = (b.add_const(i, 1), b.index(run.count));
    let more = b.cmp(Cond::Lt, following, count);
    let own = |b: &mut Builder| {
        ask(b, run, weights, following);
        vec![]
    };
    let other = |b: &mut Builder| {
        if let Some(next) = next {
            let zero = b.index(0);
            ask(b, next, weights, zero);
        }
        vec![]
    };
    b.if_else(more, own, other);
}
