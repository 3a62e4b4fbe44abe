//! The product of many rows with weights, by tiles in shared memory.
//!
//! A worker takes a tile of [`TILE_PANELS`] panels and [`TILE_TOKENS`] tokens after another. Steps of k are
//! copied into shared memory ahead of their use; a warp multiplies half of the panels with a quarter of the tokens, or,
//! where the matrix units of four warps work together, two panels with all tokens. Sums then go through shared memory to
//! the epilogue, which sees whole units. What a step is made of and how it is multiplied is a [`Form`]'s.

mod coded;
mod copies;
mod floats;
mod integers;
mod result;
mod rows;
mod wide;

use super::fragments::thread_of;
use crate::env::{Env, Place, RowElem, Scratch, WARP};
use crate::formats::WeightFormat;
use crate::formats::float_rows::FloatRows;
use crate::kir::{BinOp, Cond, Function, Ty, Val};
use crate::layout::PANEL;
use crate::ops::linear::{LinearKernel, Segment};
use crate::ops::prologue;
use coded::Coded;
use copies::Pieces;
use floats::Floats;
use integers::Integers;
use wide::{WideFloats, WideIntegers};

/// Panels of a tile: 256 rows.
const TILE_PANELS: usize = 16;
/// Tokens of a tile.
const TILE_TOKENS: usize = 128;
/// Steps in shared memory: powers of two. Where four warps multiply together there is more of it.
const STAGES: usize = 2;
const WIDE_STAGES: usize = 4;
/// Warps of a group, and how they share out a tile where each multiplies for itself, and where four do together.
const WARPS: usize = 8;
const ALONE: Shares = Shares { panels: 2, tokens: 4 };
const TOGETHER: Shares = Shares { panels: WARPS, tokens: 1 };
/// Panels and columns of eight tokens of a warp there.
const PANELS: usize = ALONE.panels();
const COLUMNS: usize = ALONE.columns();
/// Tokens whose sums are in shared memory together, and bytes of a token's: padded against bank conflicts.
const RAW_TOKENS: usize = 64;
const RAW_ROW: usize = TILE_PANELS * PANEL * 4 + 16;

/// How the warps share out a tile.
#[derive(Clone, Copy)]
struct Shares {
    /// Warps along its panels, and along its tokens.
    panels: usize,
    tokens: usize,
}

impl Shares {
    /// Panels of a warp.
    const fn panels(self) -> usize {
        TILE_PANELS / self.panels
    }

    /// Tokens of a warp, and columns of eight of them.
    const fn tokens(self) -> usize {
        TILE_TOKENS / self.tokens
    }

    const fn columns(self) -> usize {
        self.tokens() / 8
    }

    /// Which part of the panels and which of the tokens this warp has.
    fn place(self, env: &mut Env) -> (Val, Val) {
        let tokens = env.b.index(self.tokens);
        (env.b.div(env.group.warp, tokens), env.b.rem(env.group.warp, tokens))
    }
}

/// What a tile's weights are, and what that makes of a step. All threads of a group call each function together.
trait Form {
    /// Elements of k of a step.
    fn step(&self) -> usize;

    /// Bytes of a step in shared memory.
    fn stage(&self) -> usize;

    /// The copies of a thread for one step of a segment's tile; `x` is the first row.
    fn copies(&self, env: &mut Env, s: &Segment, tile: Tile, x: Val) -> Vec<Pieces>;

    /// Whether the matrix units of four warps work together, and read what was copied themselves.
    fn is_wide(&self) -> bool {
        false
    }

    /// How the warps share out a tile.
    fn shares(&self) -> Shares {
        if self.is_wide() { TOGETHER } else { ALONE }
    }

    /// Steps in shared memory.
    fn stages(&self) -> usize {
        if self.is_wide() { WIDE_STAGES } else { STAGES }
    }

    /// What a warp's sums begin with.
    fn zeros(&self, env: &mut Env) -> Vec<Val>;

    /// Where in a stage this thread reads, and what else it needs of a tile.
    fn reads(&self, env: &mut Env, s: &Segment, tile: Tile) -> Vec<Val>;

    /// Adds the products of the step at an address, whose number (i64) comes with it, to a warp's sums.
    fn multiply(&self, env: &mut Env, at: (Val, Val), reads: &[Val], sums: &[Val]) -> Vec<Val>;

    /// What the products are, f32: for each pair of panels, each pair of rows and each column of tokens.
    fn finish(&self, env: &mut Env, s: &Segment, tile: Tile, x: Val, sums: Vec<Val>) -> Vec<Val>;

    /// Bytes of the table in shared memory that weights are looked up in.
    fn table_bytes(&self) -> usize {
        0
    }

    /// Stores the table of weights at `from` in shared memory at `to`.
    fn store_table(&self, _env: &mut Env, _to: Val, _from: Val) {}
}

/// The form of a segment's products, if they can be made by tiles: of rows that hold `elem`. Where the matrix units of four
/// warps may work together, they do so if they can.
fn form_for(s: &Segment, (elem, x_stride): (RowElem, usize), scratch: Scratch) -> Option<Box<dyn Form>> {
    let wide = scratch.wgmma;
    let (format, k) = (s.product.format, s.product.k);
    let form: Box<dyn Form> = match (format, elem) {
        (_, RowElem::Bf16) if wide && let Some(form) = WideFloats::new(format, k, x_stride) => Box::new(form),
        (WeightFormat::Quant(scheme), RowElem::Bytes)
            if wide && let Some(form) = WideIntegers::new(scheme, k, x_stride) =>
        {
            Box::new(form)
        }
        (WeightFormat::Bf16, RowElem::Bf16) => Box::new(Floats { x_stride }),
        (format, RowElem::Bf16) if FloatRows::takes(format) => Box::new(Coded::new(format, k, x_stride)),
        (WeightFormat::Quant(scheme), RowElem::Bytes) => Box::new(Integers::new(scheme, k, s.product.coded, x_stride)?),
        _ => return None,
    };
    let fits = k.is_multiple_of(form.step())
        && form.stages() * form.stage() + form.table_bytes() <= scratch.shared
        && s.product.panels <= TILE_PANELS
        && TILE_PANELS.is_multiple_of(s.product.panels);
    fits.then_some(form)
}

/// What the rows that meet the weights hold, and bytes from one to the next.
fn rows_of(kernel: &LinearKernel) -> (RowElem, usize) {
    match kernel.prologue {
        Some(p) => (p.elem, p.elem.stride(kernel.x.width)),
        None => (kernel.x.elem, kernel.x.stride),
    }
}

/// Whether a kernel's products can be made this way.
pub fn fits(kernel: &LinearKernel, scratch: Scratch) -> bool {
    let rows = rows_of(kernel);
    scratch.threads == WARPS * WARP && kernel.segments.iter().all(|s| form_for(s, rows, scratch).is_some())
}

/// A segment's products under construction.
struct Gemm<'a> {
    segment: &'a Segment,
    form: Box<dyn Form>,
}

/// What a tile works on.
#[derive(Clone, Copy)]
struct Tile {
    /// Beginning of shared memory, and the table there.
    shared: Val,
    table: Val,
    /// First panel of the segment's, and first token.
    panel: Val,
    token: Val,
    /// Number of tokens of the step.
    n: Val,
}

/// Emits the kernel.
pub fn build(kernel: &LinearKernel, name: &str, scratch: Scratch) -> Function {
    let mut env = Env::new(name, scratch);
    let rows = rows_of(kernel);
    let of = |segment| Gemm { segment, form: form_for(segment, rows, scratch).expect("tiles fit") };
    let gemms: Vec<Gemm> = kernel.segments.iter().map(of).collect();
    let stages = gemms.iter().map(|g| g.form.stages() * g.form.stage()).max().unwrap_or(0);
    let bytes = stages.max(RAW_TOKENS * RAW_ROW);
    let table_bytes = gemms.iter().map(|g| g.form.table_bytes()).max().unwrap_or(0);
    assert!(bytes + table_bytes <= scratch.shared, "the tiles fit shared memory");
    let shared = env.b.shared(bytes + table_bytes);
    let table = env.b.ptr_add_const(shared, bytes);
    if let Some(gemm) = gemms.iter().find(|g| g.form.table_bytes() > 0) {
        env.b.group_barrier();
        let from = gemm.segment.product.coded.and_then(|weights| weights.table).expect("the weights have a table");
        let from = env.ptr(Place::Weights(from));
        gemm.form.store_table(&mut env, table, from);
    }
    let n = env.count(kernel.count);
    let x = prologue::share_out(&mut env, kernel.prologue.as_ref(), &kernel.x, n);
    let size = env.b.index(TILE_TOKENS);
    let up = env.b.add_const(n, TILE_TOKENS as i64 - 1);
    let columns = env.b.div(up, size);
    for gemm in &gemms {
        gemm.emit(&mut env, (shared, table), x, (n, columns));
    }
    env.finish()
}

impl Gemm<'_> {
    fn emit(&self, env: &mut Env, (shared, table): (Val, Val), x: Val, (n, columns): (Val, Val)) {
        let panels = self.segment.units * self.segment.product.panels;
        let items = env.b.mul_const(columns, panels.div_ceil(TILE_PANELS) as i64);
        let (worker, workers) = (env.b.worker(), env.b.workers());
        env.for_step(worker, items, workers, |env, item| {
            let (row, column) = (env.b.div(item, columns), env.b.rem(item, columns));
            let panel = env.b.mul_const(row, TILE_PANELS as i64);
            let token = env.b.mul_const(column, TILE_TOKENS as i64);
            let tile = Tile { shared, table, panel, token, n };
            let sums = self.product(env, tile, x);
            let sums = self.form.finish(env, self.segment, tile, x, sums);
            result::emit(env, self.segment, tile, self.form.shares(), &sums);
        });
    }

    /// The sums of a warp.
    fn product(&self, env: &mut Env, tile: Tile, x: Val) -> Vec<Val> {
        let (form, steps) = (&self.form, self.segment.product.k / self.form.step());
        let copies = form.copies(env, self.segment, tile, x);
        env.b.group_barrier();
        let stages = form.stages();
        for stage in 0..stages - 1 {
            if stage < steps {
                let step = env.b.index(stage);
                self.copy(env, tile, &copies, step);
            }
            env.b.async_commit();
        }
        let zeros = form.zeros(env);
        let (lo, hi, one) = (env.b.index(0), env.b.index(steps), env.b.index(1));
        let reads = form.reads(env, self.segment, tile);
        let sums = env.for_carried((lo, hi, one), &zeros, |env, step, sums| {
            env.b.async_wait(stages as u32 - 2);
            if form.is_wide() {
                env.b.shared_fence();
            }
            env.b.group_barrier();
            let ahead = env.b.add_const(step, stages as i64 - 1);
            let more = env.b.cmp(Cond::Lt, ahead, hi);
            env.if_then(more, |env| self.copy(env, tile, &copies, ahead));
            env.b.async_commit();
            let stage = self.stage_at(env, tile, step);
            form.multiply(env, (stage, step), &reads, sums)
        });
        env.b.async_wait(0);
        env.b.group_barrier();
        sums
    }

    /// Begins the copies of step `step` (i64).
    fn copy(&self, env: &mut Env, tile: Tile, copies: &[Pieces], step: Val) {
        let stage = self.stage_at(env, tile, step);
        copies.iter().for_each(|pieces| pieces.emit(env, stage, step));
    }

    /// Where a step's copies lie.
    fn stage_at(&self, env: &mut Env, tile: Tile, step: Val) -> Val {
        let mask = env.b.index(self.form.stages() - 1);
        let stage = env.b.and(step, mask);
        env.at(tile.shared, stage, self.form.stage())
    }
}

/// Which of a pair of panels this thread has rows of, and the number of its four rows there.
fn thread_rows(env: &mut Env) -> (Val, Val) {
    let (row, _) = thread_of(env);
    let four = env.b.index(4);
    (env.b.div(row, four), env.b.rem(row, four))
}

/// The place of piece `piece` (i64) of a token's step of bf16: of every second token each two blocks are exchanged.
fn token_swizzled(env: &mut Env, token: Val, piece: Val) -> Val {
    let (one, by) = (env.b.index(1), env.b.int(Ty::I64, 2));
    let odd = env.b.and(token, one);
    let flip = env.b.bin(BinOp::Shl, odd, by);
    env.b.bin(BinOp::Xor, piece, flip)
}
