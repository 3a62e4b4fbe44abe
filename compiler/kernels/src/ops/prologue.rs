//! What happens to the rows of x before a product: a norm, a conversion, or nothing.
//!
//! Up to [`PROLOGUE_ROWS`] rows every worker prepares all of them in its own scratch, without
//! waiting for others; more rows are shared out and met at a barrier. The bits are the same.

use super::norm::{self, Norm};
use crate::env::{Env, Place, RowElem, Rows};
use crate::kir::{Cond, Val};
use crate::layout::PROLOGUE_ROWS;

/// The prologue of a product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prologue {
    /// Norm of each row.
    pub norm: Option<Norm>,
    /// What the prepared rows hold.
    pub elem: RowElem,
    /// Shared rows for the prepared input.
    pub shared: Place,
    /// Own rows ([`PROLOGUE_ROWS`] of them) for the prepared input.
    pub own: Place,
    /// Phase that the barrier between preparation and product ends.
    pub phase: u32,
}

/// Prepares `n` rows of `x`, which are shared out among the warps of all workers, who then meet; returns the
/// address of the first prepared row.
pub fn share_out(env: &mut Env, prologue: Option<&Prologue>, x: &Rows, n: Val) -> Val {
    let Some(p) = prologue else {
        return env.ptr(x.place);
    };
    let to = env.ptr(p.shared);
    env.own_rows(n, |env, r| {
        let (from, to) = (env.row(x, r), env.at(to, r, p.elem.stride(x.width)));
        norm::row(env, p.norm, (from, x.elem), (to, p.elem), x.width);
    });
    env.b.barrier(p.phase);
    to
}

/// Prepares `n` rows of `x`; returns the address of the first prepared row.
pub fn emit(env: &mut Env, prologue: Option<&Prologue>, x: &Rows, n: Val) -> Val {
    let Some(p) = prologue else {
        return env.ptr(x.place);
    };
    let limit = env.b.index(PROLOGUE_ROWS);
    let few = env.b.cmp(Cond::Le, n, limit);
    let (zero, one) = (env.b.index(0), env.b.index(1));
    let (worker, workers) = (env.b.worker(), env.b.workers());
    let (shared, own) = (env.ptr(p.shared), env.ptr(p.own));
    let to = env.b.select(few, own, shared);
    let (first, step) = (env.b.select(few, zero, worker), env.b.select(few, one, workers));
    env.for_step(first, n, step, |env, r| {
        let from = env.row(x, r);
        let to = env.at(to, r, p.elem.stride(x.width));
        norm::row(env, p.norm, (from, x.elem), (to, p.elem), x.width);
    });
    let phase = p.phase;
    env.if_else(few, |_| {}, |env| env.b.barrier(phase));
    to
}
