//! The product of many rows with weights in bf16, by tiles in shared memory.
//!
//! A worker takes a tile of [`TILE_PANELS`] panels and [`TILE_TOKENS`] tokens after another. Steps of k are
//! copied into shared memory [`STAGES`] ahead of their use; a warp multiplies half of the panels with a
//! quarter of the tokens. Sums then go through shared memory to the epilogue, which sees whole units.

use super::SHARED_BYTES;
use super::fragments::{STEP as HALF, thread_of};
use crate::env::{Env, Place, RowElem, Scratch, WARP};
use crate::formats::WeightFormat;
use crate::kir::{BinOp, Cond, Elem, Function, Hint, Mma, Ty, Val};
use crate::layout::PANEL;
use crate::ops::linear::{LinearKernel, Segment};
use crate::ops::prologue;

/// Panels of a tile: 256 rows.
const TILE_PANELS: usize = 16;
/// Tokens of a tile.
const TILE_TOKENS: usize = 128;
/// Elements of k of a step: two halves of as many as a thread loads at once.
const STEP: usize = 2 * HALF;
/// Steps in shared memory.
const STAGES: usize = 2;
/// Warps along a tile's panels, and along its tokens.
const WARPS: (usize, usize) = (2, 4);
/// Panels and columns of eight tokens of a warp.
const PANELS: usize = TILE_PANELS / WARPS.0;
const COLUMNS: usize = TILE_TOKENS / WARPS.1 / 8;
/// Bytes of a step of a panel, of a token, and of all of them.
const PANEL_STEP: usize = STEP / 2 * PANEL * 4;
const TOKEN_STEP: usize = STEP * 2;
const STAGE: usize = TILE_PANELS * PANEL_STEP + TILE_TOKENS * TOKEN_STEP;
/// Bytes of a copy.
const COPY: usize = 16;
/// Tokens whose sums are in shared memory together, and bytes of a token's: padded against bank conflicts.
const RAW_TOKENS: usize = 64;
const RAW_ROW: usize = TILE_PANELS * PANEL * 4 + COPY;

/// Whether a kernel's products can be made this way.
pub fn fits(kernel: &LinearKernel, threads: usize) -> bool {
    let elem = kernel.prologue.as_ref().map_or(kernel.x.elem, |p| p.elem);
    let whole = |s: &Segment| {
        s.product.format == WeightFormat::Bf16
            && s.product.k.is_multiple_of(STEP)
            && s.product.panels <= TILE_PANELS
            && TILE_PANELS.is_multiple_of(s.product.panels)
    };
    threads == WARPS.0 * WARPS.1 * WARP && elem == RowElem::Bf16 && kernel.segments.iter().all(whole)
}

/// A product under construction.
struct Gemm<'a> {
    kernel: &'a LinearKernel,
}

/// What a tile works on.
#[derive(Clone, Copy)]
struct Tile {
    /// Beginning of shared memory.
    shared: Val,
    /// First panel of the segment's, and first token.
    panel: Val,
    token: Val,
    /// Number of tokens of the step.
    n: Val,
}

/// Emits the kernel.
pub fn build(kernel: &LinearKernel, name: &str, scratch: Scratch) -> Function {
    let mut env = Env::new(name, scratch);
    let bytes = (STAGES * STAGE).max(RAW_TOKENS * RAW_ROW);
    assert!(bytes <= SHARED_BYTES, "the tiles fit shared memory");
    let shared = env.b.shared(bytes);
    let n = env.count(kernel.count);
    let x = prologue::share_out(&mut env, kernel.prologue.as_ref(), &kernel.x, n);
    let gemm = Gemm { kernel };
    let size = env.b.index(TILE_TOKENS);
    let up = env.b.add_const(n, TILE_TOKENS as i64 - 1);
    let columns = env.b.div(up, size);
    for segment in &kernel.segments {
        gemm.segment(&mut env, segment, (shared, x), (n, columns));
    }
    env.finish()
}

impl Gemm<'_> {
    fn x_stride(&self) -> usize {
        self.kernel.prologue.as_ref().map_or(self.kernel.x.stride, |p| p.elem.stride(self.kernel.x.width))
    }

    fn segment(&self, env: &mut Env, s: &Segment, (shared, x): (Val, Val), (n, columns): (Val, Val)) {
        let panels = s.units * s.product.panels;
        let items = env.b.mul_const(columns, panels.div_ceil(TILE_PANELS) as i64);
        let (worker, workers) = (env.b.worker(), env.b.workers());
        env.for_step(worker, items, workers, |env, item| {
            let (row, column) = (env.b.div(item, columns), env.b.rem(item, columns));
            let panel = env.b.mul_const(row, TILE_PANELS as i64);
            let token = env.b.mul_const(column, TILE_TOKENS as i64);
            let tile = Tile { shared, panel, token, n };
            let sums = self.product(env, s, tile, x);
            self.epilogue(env, s, tile, &sums);
        });
    }

    /// The sums of a warp: for each pair of panels, each pair of rows and each column of tokens.
    fn product(&self, env: &mut Env, s: &Segment, tile: Tile, x: Val) -> Vec<Val> {
        let steps = s.product.k / STEP;
        let copies = Copies::new(env, s, tile, x, self.x_stride());
        env.b.group_barrier();
        for stage in 0..(STAGES - 1).min(steps) {
            let step = env.b.index(stage);
            copies.emit(env, step);
            env.b.async_commit();
        }
        let zero = env.b.float(Ty::vector(Elem::F32, 4), 0.0);
        let (lo, hi, one) = (env.b.index(0), env.b.index(steps), env.b.index(1));
        let reads = Reads::new(env, tile.shared);
        let sums = env.for_carried((lo, hi, one), &[zero; PANELS * COLUMNS], |env, step, sums| {
            env.b.async_wait(STAGES as u32 - 2);
            env.b.group_barrier();
            let ahead = env.b.add_const(step, STAGES as i64 - 1);
            let more = env.b.cmp(Cond::Lt, ahead, hi);
            env.if_then(more, |env| copies.emit(env, ahead));
            env.b.async_commit();
            reads.multiply(env, step, sums)
        });
        env.b.async_wait(0);
        env.b.group_barrier();
        sums
    }

    fn epilogue(&self, env: &mut Env, s: &Segment, tile: Tile, sums: &[Val]) {
        let quarter = TILE_TOKENS / WARPS.1;
        for first in (0..TILE_TOKENS).step_by(RAW_TOKENS) {
            let (lo, hi) = (env.b.index(first / quarter), env.b.index((first + RAW_TOKENS) / quarter));
            let (_, own) = warp_place(env);
            let (after, before) = (env.b.cmp(Cond::Ge, own, lo), env.b.cmp(Cond::Lt, own, hi));
            let mine = env.b.and(after, before);
            env.if_then(mine, |env| self.keep(env, tile, sums, first));
            env.b.group_barrier();
            let tile = Tile { token: env.b.add_const(tile.token, first as i64), ..tile };
            if s.epilogue.is_pointwise() {
                self.pointwise(env, s, tile);
            } else {
                self.units(env, s, tile);
            }
            env.b.group_barrier();
        }
    }

    /// Stores a warp's sums as `[token][row]`.
    fn keep(&self, env: &mut Env, tile: Tile, sums: &[Val], first: usize) {
        let ((half, quarter), (row, t)) = (warp_place(env), thread_of(env));
        let token = env.b.mul_const(quarter, (TILE_TOKENS / WARPS.1) as i64);
        let token = env.b.add_const(token, -(first as i64));
        let two = env.b.mul_const(t, 2);
        let token = env.b.add(token, two);
        let at = env.at(tile.shared, token, RAW_ROW);
        let at = env.at(at, half, PANELS * PANEL * 4);
        let at = env.at(at, row, 16);
        for pair in 0..PANELS / 2 {
            for column in 0..COLUMNS {
                let [a, b] = [0, 1].map(|rows| sums[(pair * 2 + rows) * COLUMNS + column]);
                for odd in 0..2u16 {
                    let v = env.b.shuffle(a, b, vec![odd, odd + 2, 4 + odd, 6 + odd]);
                    let offset = (8 * column + usize::from(odd)) * RAW_ROW + pair * 2 * PANEL * 4;
                    env.b.store_with(v, at, offset as i32, 16);
                }
            }
        }
    }

    /// Rows of the result that a tile has of a segment.
    fn result_rows(&self, s: &Segment) -> usize {
        TILE_PANELS / s.product.panels * s.epilogue.unit_rows
    }

    /// A warp takes a token after another, all values of each thread in flight.
    fn pointwise(&self, env: &mut Env, s: &Segment, tile: Tile) {
        let rows = self.result_rows(s);
        let (end, step) = (env.b.index(RAW_TOKENS), env.b.index(env.group.warps()));
        env.for_step(env.group.warp, end, step, |env, slot| {
            let token = env.b.add(tile.token, slot);
            let exists = env.b.cmp(Cond::Lt, token, tile.n);
            let raw = env.at(tile.shared, slot, RAW_ROW);
            env.if_then(exists, |env| self.token(env, s, tile, (token, raw), rows));
        });
    }

    /// The results of one token.
    fn token(&self, env: &mut Env, s: &Segment, tile: Tile, (token, raw): (Val, Val), rows: usize) {
        let mut values = Vec::new();
        for piece in 0..rows.div_ceil(WARP) {
            let r = env.b.add_const(env.group.lane, (piece * WARP) as i64);
            let at = self.unit_of(env, s, tile, r, rows);
            let raw = env.at(raw, at.raw, 4);
            let value = |env: &mut Env| vec![s.epilogue.value_at(env, (at.unit, at.element, token), raw)];
            let v = match at.exists {
                None => value(env),
                Some(exists) => env.if_value(exists, value, |env| vec![env.b.float(Ty::F32, 0.0)]),
            };
            values.push((at, v[0]));
        }
        for (at, v) in values {
            let place = (at.unit, at.element, token);
            match at.exists {
                None => s.epilogue.store_at(env, place, v),
                Some(exists) => env.if_then(exists, |env| s.epilogue.store_at(env, place, v)),
            }
        }
    }

    /// Unit and element of row `r` (i64) of a tile's result, where its sum stands, and whether it exists.
    fn unit_of(&self, env: &mut Env, s: &Segment, tile: Tile, r: Val, rows: usize) -> At {
        let (unit_rows, panels) = (s.epilogue.unit_rows, s.product.panels);
        let size = env.b.index(unit_rows);
        let (own, element) = (env.b.div(r, size), env.b.rem(r, size));
        let raw = env.b.mul_const(own, (panels * PANEL) as i64);
        let raw = env.b.add(raw, element);
        let count = env.b.index(panels);
        let first = env.b.div(tile.panel, count);
        let unit = env.b.add(first, own);
        let units = env.b.index(s.units);
        let mut exists = None;
        if !(s.units * panels).is_multiple_of(TILE_PANELS) {
            exists = Some(env.b.cmp(Cond::Lt, unit, units));
        }
        if !rows.is_multiple_of(WARP) {
            let end = env.b.index(rows);
            let inside = env.b.cmp(Cond::Lt, r, end);
            exists = Some(exists.map_or(inside, |e| env.b.and(e, inside)));
        }
        At { unit, element, raw, exists }
    }

    /// Units whose epilogue sees all of their rows: a warp takes a unit of a token after another.
    fn units(&self, env: &mut Env, s: &Segment, tile: Tile) {
        let each = TILE_PANELS / s.product.panels;
        let (end, step) = (env.b.index(RAW_TOKENS * each), env.b.index(env.group.warps()));
        env.for_step(env.group.warp, end, step, |env, item| {
            let size = env.b.index(each);
            let (slot, own) = (env.b.div(item, size), env.b.rem(item, size));
            let token = env.b.add(tile.token, slot);
            let count = env.b.index(s.product.panels);
            let unit = env.b.div(tile.panel, count);
            let unit = env.b.add(unit, own);
            let units = env.b.index(s.units);
            let (a, b) = (env.b.cmp(Cond::Lt, token, tile.n), env.b.cmp(Cond::Lt, unit, units));
            let exists = env.b.and(a, b);
            env.if_then(exists, |env| {
                let raw = env.at(tile.shared, slot, RAW_ROW);
                let raw = env.at(raw, own, s.product.panels * PANEL * 4);
                s.epilogue.emit_row(env, unit, raw, token);
            });
        });
    }
}

/// Where a row of a tile's result comes from.
#[derive(Clone, Copy)]
struct At {
    unit: Val,
    element: Val,
    raw: Val,
    exists: Option<Val>,
}

/// This warp's half of the panels and quarter of the tokens.
fn warp_place(env: &mut Env) -> (Val, Val) {
    let quarters = env.b.index(WARPS.1);
    (env.b.div(env.group.warp, quarters), env.b.rem(env.group.warp, quarters))
}

/// The copies of a thread for one step: pieces that stand equally far apart, of weights and of rows.
struct Copies {
    weights: Pieces,
    rows: Pieces,
    shared: Val,
}

/// Equally large pieces of equally long lines: a thread has the same piece of every few lines.
struct Pieces {
    /// Source of each; only the first where the others follow at a fixed distance.
    sources: Vec<Val>,
    /// That distance.
    apart: usize,
    /// Offset of the first in a stage, and distance there.
    to: Val,
    to_apart: usize,
    count: usize,
    /// Bytes of a step of a line.
    step: usize,
}

impl Copies {
    fn new(env: &mut Env, s: &Segment, tile: Tile, x: Val, x_stride: usize) -> Copies {
        let base = env.ptr(Place::Weights(s.weight));
        let panels = s.units * s.product.panels;
        let (panel, piece) = thread_piece(env, PANEL_STEP / COPY);
        let apart = env.group.threads / (PANEL_STEP / COPY);
        let swizzled = swizzle(env, piece);
        let to = env.b.mul_const(panel, PANEL_STEP as i64);
        let first = env.b.add(tile.panel, panel);
        let weights = Pieces {
            sources: lines(
                env,
                (base, piece),
                first,
                (TILE_PANELS, apart),
                s.product.format.panel_bytes(s.product.k),
                (!panels.is_multiple_of(TILE_PANELS)).then_some(panels),
            ),
            apart: apart * s.product.format.panel_bytes(s.product.k),
            to: env.b.add(to, swizzled),
            to_apart: apart * PANEL_STEP,
            count: TILE_PANELS / apart,
            step: PANEL_STEP,
        };
        let (token, piece) = thread_piece(env, TOKEN_STEP / COPY);
        let apart = env.group.threads / (TOKEN_STEP / COPY);
        let to = env.b.mul_const(token, TOKEN_STEP as i64);
        let to = env.b.add_const(to, (TILE_PANELS * PANEL_STEP) as i64);
        let within = half_swizzle(env, token, piece);
        let first = env.b.add(tile.token, token);
        let sources = (0..TILE_TOKENS / apart).map(|i| {
            let (token, last) = (env.b.add_const(first, (i * apart) as i64), env.b.add_const(tile.n, -1));
            let token = env.b.min(token, last);
            let line = env.at(x, token, x_stride);
            env.at(line, piece, COPY)
        });
        let rows = Pieces {
            sources: sources.collect(),
            apart: 0,
            to: env.b.add(to, within),
            to_apart: apart * TOKEN_STEP,
            count: TILE_TOKENS / apart,
            step: TOKEN_STEP,
        };
        Copies { weights, rows, shared: tile.shared }
    }

    /// Begins the copies of step `step` (i64).
    fn emit(&self, env: &mut Env, step: Val) {
        let stage = stage_at(env, self.shared, step);
        for pieces in [&self.weights, &self.rows] {
            let to = env.b.ptr_add(stage, pieces.to);
            let along = env.b.mul_const(step, pieces.step as i64);
            for i in 0..pieces.count {
                let (source, more) = match pieces.sources.get(i) {
                    Some(source) => (*source, 0),
                    None => (pieces.sources[0], i * pieces.apart),
                };
                let source = env.b.ptr_add(source, along);
                let source = env.b.ptr_add_const(source, more);
                let to = env.b.ptr_add_const(to, i * pieces.to_apart);
                env.b.async_copy(to, source, COPY as u32);
            }
        }
    }
}

/// This thread's line and piece of `pieces` in it.
fn thread_piece(env: &mut Env, pieces: usize) -> (Val, Val) {
    let size = env.b.index(pieces);
    (env.b.div(env.group.thread, size), env.b.rem(env.group.thread, size))
}

/// Addresses of a piece of the lines `first`, `first + apart`, .. as far as there are `limit` lines; only of the
/// first where all exist.
fn lines(
    env: &mut Env,
    (base, piece): (Val, Val),
    first: Val,
    (count, apart): (usize, usize),
    bytes: usize,
    limit: Option<usize>,
) -> Vec<Val> {
    let many = if limit.is_some() { count / apart } else { 1 };
    (0..many)
        .map(|i| {
            let mut line = env.b.add_const(first, (i * apart) as i64);
            if let Some(limit) = limit {
                let last = env.b.index(limit - 1);
                line = env.b.min(line, last);
            }
            let line = env.at(base, line, bytes);
            env.at(line, piece, COPY)
        })
        .collect()
}

/// Where a step's copies lie.
fn stage_at(env: &mut Env, shared: Val, step: Val) -> Val {
    let mask = env.b.index(STAGES - 1);
    let stage = env.b.and(step, mask);
    env.at(shared, stage, STAGE)
}

/// Byte of piece `piece` (i64) of a token's step: of every second token the halves are exchanged.
fn half_swizzle(env: &mut Env, token: Val, piece: Val) -> Val {
    let (one, by) = (env.b.index(1), env.b.int(Ty::I64, 2));
    let odd = env.b.and(token, one);
    let flip = env.b.bin(BinOp::Shl, odd, by);
    let place = env.b.bin(BinOp::Xor, piece, flip);
    env.b.mul_const(place, COPY as i64)
}

/// Byte of piece `piece` (i64) of a panel's step: the pieces of every second two words are exchanged by
/// twos, so that a warp's reads fall into different banks.
fn swizzle(env: &mut Env, piece: Val) -> Val {
    // Piece 4 * word + quad; quad bit 1 is flipped where word bit 1 is set.
    let (two, by) = (env.b.index(8), env.b.int(Ty::I64, 2));
    let odd = env.b.and(piece, two);
    let flip = env.b.lshr(odd, by);
    let place = env.b.bin(BinOp::Xor, piece, flip);
    env.b.mul_const(place, COPY as i64)
}

/// Where a thread reads a stage.
struct Reads {
    shared: Val,
    /// Offset of this thread's first words of a pair of panels, and of its words of a token.
    weights: Val,
    rows: [Val; 2],
}

impl Reads {
    fn new(env: &mut Env, shared: Val) -> Reads {
        let ((half, quarter), (row, t)) = (warp_place(env), thread_of(env));
        // Row 4 * panel + quad of a pair; word t.
        let four = env.b.index(4);
        let (panel, quad) = (env.b.div(row, four), env.b.rem(row, four));
        let panels = env.b.mul_const(half, PANELS as i64);
        let panel = env.b.add(panels, panel);
        let panel = env.b.mul_const(panel, PANEL_STEP as i64);
        let piece = env.b.mul_const(t, 4);
        let piece = env.b.add(piece, quad);
        let piece = swizzle(env, piece);
        let weights = env.b.add(panel, piece);
        let token = env.b.mul_const(quarter, (TILE_TOKENS / WARPS.1) as i64);
        let token = env.b.add(token, row);
        let line = env.b.mul_const(token, TOKEN_STEP as i64);
        let line = env.b.add_const(line, (TILE_PANELS * PANEL_STEP) as i64);
        let rows = [0, 4].map(|first| {
            let piece = env.b.add_const(t, first);
            let within = half_swizzle(env, token, piece);
            env.b.add(line, within)
        });
        Reads { shared, weights, rows }
    }

    /// Adds a step's products.
    fn multiply(&self, env: &mut Env, step: Val, sums: &[Val]) -> Vec<Val> {
        let stage = stage_at(env, self.shared, step);
        let weights = env.b.ptr_add(stage, self.weights);
        self.rows.iter().enumerate().fold(sums.to_vec(), |sums, (half, rows)| {
            let rows = env.b.ptr_add(stage, *rows);
            let weights = env.b.ptr_add_const(weights, half * HALF / 2 * PANEL * 4);
            multiply_half(env, weights, rows, sums)
        })
    }
}

/// Adds the products of half a step.
fn multiply_half(env: &mut Env, weights: Val, rows: Val, mut sums: Vec<Val>) -> Vec<Val> {
    let quad = Ty::vector(Elem::I32, 4);
    let load = |env: &mut Env, at: Val, offset: usize| env.b.load_with(quad, at, offset as i32, 16, Hint::None);
    let x: Vec<Val> = (0..COLUMNS).map(|c| load(env, rows, 8 * c * TOKEN_STEP)).collect();
    for half in 0..2u16 {
        let b: Vec<Val> = x.iter().map(|x| env.b.shuffle(*x, *x, vec![2 * half, 2 * half + 1])).collect();
        for pair in 0..PANELS / 2 {
            // Words t + 4j of a step lie 16 pieces apart; j = 2 * half, 2 * half + 1.
            let word = |j: usize| pair * 2 * PANEL_STEP + j * 16 * COPY;
            let j = 2 * usize::from(half);
            let (low, high) = (load(env, weights, word(j)), load(env, weights, word(j + 1)));
            for rows in 0..2u16 {
                let a = env.b.shuffle(low, high, vec![2 * rows, 2 * rows + 1, 4 + 2 * rows, 5 + 2 * rows]);
                for (column, b) in b.iter().enumerate() {
                    let sum = &mut sums[(pair * 2 + usize::from(rows)) * COLUMNS + column];
                    *sum = env.b.mma(Mma::Bf16, *sum, a, *b);
                }
            }
        }
    }
    sums
}
