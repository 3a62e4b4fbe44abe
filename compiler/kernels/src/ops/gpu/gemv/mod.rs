//! The product of few rows with weights: every worker takes a contiguous range of tiles, and its warps
//! share out k.
//!
//! Weights come through a [`Ring`], which goes on across tiles and over the preparation of x, and which
//! may begin before the product does. When a chunk of tiles is done, the warps' sums are added in their order
//! and the epilogue follows.

mod early;
mod form;
mod gather;
mod sums;
mod tiles;

use super::fragments::COLUMNS;
use super::rows::{Stage, Staged};
use super::{REDUCE_BYTES, ring::Ring};
use crate::env::{Env, Place, Scratch, WARP};
use crate::formats::float_rows;
use crate::kir::{Cast, Cond, Function, Ty, Val};
use crate::layout::PANEL;
use crate::ops::epilogue::AtHand;
use crate::ops::linear::{LinearKernel, Segment};
use crate::ops::norm::Norm;
use form::{Form, form_for, in_halves, scalar_form_for};

/// Where units wait for their other rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    /// Rows of f32: of each segment for each unit and token all its panels.
    pub rows: Place,
    /// Number of the first unit's counter.
    pub counters: usize,
}

/// Most tiles whose sums are added together.
const CHUNK: usize = 4;
/// Fewest tiles of two panels that make up for their coarser division among the workers.
const COARSE: usize = 512;
/// Least shared memory for weights on their way.
const RING_BYTES: usize = 32 * 1024;
/// Bytes of one request for what the norm needs.
const PREFETCH_PIECE: usize = 512;

/// A product under construction.
struct Gemv<'a> {
    kernel: &'a LinearKernel,
    form: Form,
    staged: Staged,
    /// Panels of a tile.
    panels: usize,
    /// Whether those are of the two halves of a unit.
    halves: bool,
    /// Tokens that are staged at a time.
    tokens: usize,
    warps: usize,
    /// Weights on their way, of forms that ask for them ahead.
    ring: Option<Ring>,
}

/// Values that the whole kernel uses.
#[derive(Clone, Copy)]
struct At {
    shared: Val,
    /// Staged rows.
    x: Val,
    /// Sums of the warps: `[tile][warp][column][row]`.
    partial: Val,
    /// First token, and number of tokens.
    tokens: (Val, Val),
    /// Columns that exist.
    columns: Val,
    /// What a single token's heads need.
    at_hand: AtHand,
}

/// Consecutive tiles, counted over all segments or in one.
#[derive(Clone, Copy)]
struct Range {
    start: Val,
    end: Val,
}

/// Emits the kernel.
pub fn build(kernel: &LinearKernel, name: &str, scratch: Scratch) -> Function {
    let mut env = Env::new(name, scratch);
    let gemv = Gemv::new(kernel, scratch);
    let shared = env.b.shared(gemv.shared_bytes());
    gemv.emit(&mut env, shared);
    env.finish()
}

/// Emits a kernel that asks for the first weights that [`build`]'s kernel reads, to be run before its inputs
/// are there: memory then does not rest while the workers meet. Between the two no other product may run, and
/// what does uses no more than `scratch.between` bytes of shared memory. `None` where weights are not asked
/// for ahead.
pub fn build_ahead(kernel: &LinearKernel, name: &str, scratch: Scratch) -> Option<Function> {
    let gemv = Gemv::new(kernel, scratch);
    gemv.ring?;
    let mut env = Env::new(name, scratch);
    let shared = env.b.shared(gemv.shared_bytes());
    let all = gemv.share(&mut env);
    // What the kernel before had in shared memory is needed no more when all its threads have come here.
    env.b.group_barrier();
    gemv.prime(&mut env, shared, all);
    gemv.ask_norm(&mut env);
    Some(env.finish())
}

impl<'a> Gemv<'a> {
    /// The form that is wanted, or one that takes less room where that does not fit.
    fn new(kernel: &'a LinearKernel, scratch: Scratch) -> Gemv<'a> {
        let wanted = Gemv::with(kernel, scratch, form_for(kernel, scratch.threads / WARP));
        match wanted.staged {
            Staged::Bf16Split if wanted.shared_bytes() > scratch.shared => {
                Gemv::with(kernel, scratch, scalar_form_for(kernel))
            }
            _ => wanted,
        }
    }

    fn with(kernel: &'a LinearKernel, scratch: Scratch, (form, staged, panels): (Form, Staged, usize)) -> Gemv<'a> {
        let warps = scratch.threads / WARP;
        let halves = in_halves(kernel);
        let mut gemv = Gemv { kernel, form, staged, panels, halves, tokens: 1, warps, ring: None };
        let most = match staged {
            _ if kernel.single => 1,
            Staged::Bf16Split => 2,
            _ => COLUMNS,
        };
        let ring_bytes = if form.ahead().is_some() { RING_BYTES } else { 0 };
        let fits = |t: &usize| gemv.bytes_for(*t) + ring_bytes <= scratch.shared;
        gemv.tokens = (1..=most).rev().find(fits).unwrap_or(1);
        if let Form::Scalar(scalars) = &mut gemv.form {
            scalars.columns = gemv.tokens;
        }
        let own = gemv.bytes_for(gemv.tokens).max(scratch.between);
        gemv.ring = gemv.form.ahead().map(|f| {
            let runs = f.runs(warps);
            Ring::new((own, scratch.shared), runs, warps, scratch.engine && runs.are_whole(f.first()))
        });
        gemv
    }

    fn k(&self) -> usize {
        self.kernel.segments[0].product.k
    }

    fn padded(&self) -> usize {
        match &self.form {
            Form::Scalar(f) => f.padded(),
            _ => self.form.ahead().map_or(self.k(), |f| f.padded(self.warps)),
        }
    }

    /// Bytes of the table that weights are looked up in, before the staged rows.
    fn table_bytes(&self) -> usize {
        match &self.form {
            Form::Coded(f) => f.table_bytes(),
            Form::Integer(f) => f.table_bytes(),
            Form::Matrix(_) | Form::Scalar(_) => 0,
        }
    }

    /// Makes that table.
    fn store_table(&self, env: &mut Env, x: Val) {
        let bytes = self.table_bytes();
        let table = self.kernel.segments[0].product.coded.and_then(|weights| weights.table);
        if let (true, Some(table)) = (bytes > 0, table) {
            let (before, from) = (env.b.int(Ty::I64, -(bytes as i64)), env.ptr(Place::Weights(table)));
            let to = env.b.ptr_add(x, before);
            match &self.form {
                Form::Integer(f) => f.store_table(env, to, from),
                _ => float_rows::store_table(env, to, from),
            }
        }
    }

    fn rows(&self) -> usize {
        self.panels * PANEL
    }

    fn x_bytes(&self, tokens: usize) -> usize {
        tokens * self.staged.planes() * self.staged.stride(self.padded())
    }

    /// Bytes of a tile's sums.
    fn tile_bytes(&self, tokens: usize) -> usize {
        self.warps * tokens * self.staged.planes() * self.rows() * 4
    }

    fn bytes_for(&self, tokens: usize) -> usize {
        REDUCE_BYTES
            + self.table_bytes()
            + self.x_bytes(tokens)
            + CHUNK * self.tile_bytes(tokens)
            + CHUNK * tokens * self.rows() * 4
            + self.at_hand_bytes()
    }

    fn shared_bytes(&self) -> usize {
        self.ring.map_or(self.bytes_for(self.tokens), |ring| ring.end())
    }

    fn emit(&self, env: &mut Env, shared: Val) {
        let n = env.count(self.kernel.count);
        let all = self.share(env);
        let ranges = self.ranges(env, all);
        let x = env.b.ptr_add_const(shared, REDUCE_BYTES + self.table_bytes());
        let partial = env.b.ptr_add_const(x, self.x_bytes(self.tokens));
        let at_hand = self.at_hand(env, partial);
        let zero = env.b.index(0);
        env.for_range(zero, n, self.tokens, |env, first| {
            let (left, most) = (env.b.sub(n, first), env.b.index(self.tokens));
            let count = env.b.min(left, most);
            let columns = env.b.mul_const(count, self.staged.planes() as i64);
            let at = At { shared, x, partial, tokens: (first, count), columns, at_hand };
            self.some_tokens(env, at, all, &ranges);
        });
        for (i, segment) in self.kernel.segments.iter().enumerate() {
            if self.waits(segment) {
                self.finish(env, (i, segment), ranges[i], n);
            }
        }
    }

    /// Whether a segment's units wait for all their rows.
    fn waits(&self, s: &Segment) -> bool {
        !self.halves && !s.epilogue.is_pointwise()
    }

    /// This worker's tiles of all segments together.
    fn share(&self, env: &mut Env) -> Range {
        let total: usize = self.kernel.segments.iter().map(|s| self.tiles(s)).sum();
        let share = |env: &mut Env, more: i64| {
            let (worker, workers) = (env.b.worker(), env.b.workers());
            let worker = env.b.add_const(worker, more);
            let [worker, workers] = [worker, workers].map(|v| env.b.cast(Cast::Trunc, v, Ty::I32));
            let scaled = env.b.mul_const(worker, total as i64);
            let share = env.b.div(scaled, workers);
            env.b.cast(Cast::SExt, share, Ty::I64)
        };
        Range { start: share(env, 0), end: share(env, 1) }
    }

    /// Of those the tiles of each segment.
    fn ranges(&self, env: &mut Env, all: Range) -> Vec<Range> {
        let mut first = 0;
        let mut out = Vec::new();
        for segment in &self.kernel.segments {
            let count = self.tiles(segment);
            let clamp = |env: &mut Env, v: Val| {
                let (zero, most) = (env.b.index(0), env.b.index(count));
                let v = env.b.add_const(v, -(first as i64));
                let v = env.b.max(v, zero);
                env.b.min(v, most)
            };
            out.push(Range { start: clamp(env, all.start), end: clamp(env, all.end) });
            first += count;
        }
        out
    }

    fn tiles(&self, s: &Segment) -> usize {
        s.units * s.product.panels / self.panels
    }

    fn some_tokens(&self, env: &mut Env, at: At, all: Range, ranges: &[Range]) {
        if self.ring.is_some() {
            // The first tokens' weights are on their way if a kernel has asked for them.
            let zero = env.b.index(0);
            let later = env.b.cmp(Cond::Gt, at.tokens.0, zero);
            match self.kernel.ahead {
                true => env.if_then(later, |env| self.prime(env, at.shared, all)),
                false => self.prime(env, at.shared, all),
            }
        }
        let state = self.begin(env, all);
        let early = self.load_early(env);
        env.b.group_barrier();
        self.store_table(env, at.x);
        let norm = self.kernel.prologue.as_ref().and_then(|p| p.norm);
        let stage = Stage { x: &self.kernel.x, norm, staged: self.staged, padded: self.padded() };
        stage.emit(env, at.shared, at.x, at.tokens);
        self.keep_early(env, early, at.at_hand);
        let (mut state, mut first) = (state, 0);
        for (i, segment) in self.kernel.segments.iter().enumerate() {
            state = self.segment(env, at, (i, segment, first), (all, ranges[i]), &state);
            first += self.tiles(segment);
        }
        if let Some(ring) = self.ring {
            ring.close(env, at.shared);
        }
    }

    /// Asks for the norm's scale, all workers together.
    fn ask_norm(&self, env: &mut Env) {
        let norm = self.kernel.prologue.as_ref().and_then(|p| p.norm);
        let Some(Norm::Rms { scale, .. } | Norm::Layer { scale, .. }) = norm else { return };
        let (worker, threads) = (env.b.worker(), env.group.threads);
        let first = env.b.mul_const(worker, threads as i64);
        let line = env.b.add(first, env.group.thread);
        let end = env.b.index(4 * self.kernel.x.width / PREFETCH_PIECE);
        let inside = env.b.cmp(Cond::Lt, line, end);
        let base = env.ptr(Place::Weights(scale));
        let at = env.at(base, line, PREFETCH_PIECE);
        env.if_then(inside, |env| env.b.fetch(at, PREFETCH_PIECE as u32));
    }
}
