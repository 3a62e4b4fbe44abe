//! The product of few rows with weights: every worker takes a contiguous range of tiles, and its warps
//! share out k.
//!
//! A round of weights is always being loaded while the one before is multiplied, across tiles and over
//! the preparation of x. When a chunk of tiles is done, the warps' sums are added in their order and the
//! epilogue follows. A unit whose epilogue needs all its rows waits in memory; the worker that completes it
//! finishes it.

use super::fragments::{Ahead, COLUMNS, Fragments, Loaded, Scalars, Weights, store};
use super::integers::Integers;
use super::rows::{Stage, Staged};
use super::{REDUCE_BYTES, SHARED_BYTES};
use crate::env::{Env, Place, RowElem, Scratch, WARP};
use crate::formats::WeightFormat;
use crate::formats::quant::QuantLayout;
use crate::kir::{Cast, Cond, Elem, Function, Ty, Val};
use crate::layout::PANEL;
use crate::ops::epilogue::RawRow;
use crate::ops::linear::{LinearKernel, Segment};
use crate::ops::norm::Norm;

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
/// Fewest tiles of two panels for each worker that make up for their coarser division.
const COARSE: usize = 512;

/// Bytes that each worker asks for ahead, and bytes of one request.
const PREFETCH: usize = 96 * 1024;
const PREFETCH_PIECE: usize = 512;

/// How a kernel's tiles are multiplied.
#[derive(Clone, Copy, Debug)]
enum Form {
    Matrix(Fragments),
    Integer(Integers),
    Scalar(Scalars),
}

/// A product under construction.
struct Gemv<'a> {
    kernel: &'a LinearKernel,
    form: Form,
    staged: Staged,
    /// Panels of a tile.
    panels: usize,
    /// Tokens that are staged at a time.
    tokens: usize,
    warps: usize,
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
}

/// This worker's tiles of a segment.
#[derive(Clone, Copy)]
struct Range {
    start: Val,
    end: Val,
}

/// Most tokens that a product with rows of `k` elements takes at a time.
pub fn most_tokens(kernel: &LinearKernel, threads: usize) -> usize {
    Gemv::new(kernel, threads).tokens
}

/// Emits the kernel.
pub fn build(kernel: &LinearKernel, name: &str, scratch: Scratch) -> Function {
    let mut env = Env::new(name, scratch);
    let gemv = Gemv::new(kernel, scratch.threads);
    let shared = env.b.shared(gemv.shared_bytes());
    gemv.emit(&mut env, shared);
    env.finish()
}

/// Emits a kernel that asks for the beginning of what [`build`]'s kernel reads, to be run before its inputs are
/// there: memory then does not rest while the workers meet. `None` where nothing is known of it.
pub fn build_prefetch(kernel: &LinearKernel, name: &str, scratch: Scratch) -> Option<Function> {
    let gemv = Gemv::new(kernel, scratch.threads);
    // Where a warp's part of a panel begins, and how many parts there are.
    let (range, parts) = match &gemv.form {
        Form::Matrix(f) => (f.range_bytes(), gemv.warps),
        Form::Integer(_) => (kernel.segments[0].product.format.panel_bytes(gemv.k()), 1),
        Form::Scalar(_) => return None,
    };
    let mut env = Env::new(name, scratch);
    let ranges = gemv.ranges(&mut env);
    let first = gemv.first_panels(&mut env, &ranges);
    let lines = (PREFETCH / gemv.panels / parts).min(range) / PREFETCH_PIECE;
    gemv.prefetch_norm(&mut env);
    for panel in first {
        let (hi, step) = (env.b.index(lines * parts), env.b.index(scratch.threads));
        env.for_step(env.group.thread, hi, step, |env, line| {
            let each = env.b.index(lines);
            let (warp, line) = (env.b.div(line, each), env.b.rem(line, each));
            let at = env.at(panel, warp, range);
            let at = env.at(at, line, PREFETCH_PIECE);
            env.b.fetch(at, PREFETCH_PIECE as u32);
        });
    }
    Some(env.finish())
}

impl<'a> Gemv<'a> {
    fn new(kernel: &'a LinearKernel, threads: usize) -> Gemv<'a> {
        let first = &kernel.segments[0].product;
        let (format, k, warps) = (first.format, first.k, threads / WARP);
        let (form, staged, panels) = form_for(kernel, warps);
        let mut gemv = Gemv { kernel, form, staged, panels, tokens: 1, warps };
        let most = if staged == Staged::Bf16Split { 2 } else { COLUMNS };
        gemv.tokens = (1..=most).rev().find(|t| gemv.bytes_for(*t) <= SHARED_BYTES).unwrap_or(1);
        if let Form::Scalar(_) = gemv.form {
            gemv.form = Form::scalar(format, k, gemv.tokens, panels);
        }
        gemv
    }

    fn k(&self) -> usize {
        self.kernel.segments[0].product.k
    }

    fn padded(&self) -> usize {
        self.form.ahead().map_or(self.k(), |f| f.padded(self.warps))
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
        REDUCE_BYTES + self.x_bytes(tokens) + CHUNK * self.tile_bytes(tokens) + CHUNK * tokens * self.rows() * 4
    }

    fn shared_bytes(&self) -> usize {
        self.bytes_for(self.tokens)
    }

    fn emit(&self, env: &mut Env, shared: Val) {
        let n = env.count(self.kernel.count);
        let ranges = self.ranges(env);
        let x = env.b.ptr_add_const(shared, REDUCE_BYTES);
        let partial = env.b.ptr_add_const(x, self.x_bytes(self.tokens));
        let zero = env.b.index(0);
        env.for_range(zero, n, self.tokens, |env, first| {
            let (left, most) = (env.b.sub(n, first), env.b.index(self.tokens));
            let count = env.b.min(left, most);
            let columns = env.b.mul_const(count, self.staged.planes() as i64);
            let at = At { shared, x, partial, tokens: (first, count), columns };
            self.some_tokens(env, at, &ranges);
        });
        for (i, segment) in self.kernel.segments.iter().enumerate() {
            if !segment.epilogue.is_pointwise() {
                self.finish(env, (i, segment), ranges[i], n);
            }
        }
    }

    /// This worker's tiles of each segment.
    fn ranges(&self, env: &mut Env) -> Vec<Range> {
        let tiles: Vec<usize> = self.kernel.segments.iter().map(|s| self.tiles(s)).collect();
        let total: usize = tiles.iter().sum();
        let share = |env: &mut Env, more: i64| {
            let worker = env.b.worker();
            let worker = env.b.add_const(worker, more);
            let [worker, workers] = [worker, env.b.workers()].map(|v| env.b.cast(Cast::Trunc, v, Ty::I32));
            let scaled = env.b.mul_const(worker, total as i64);
            let share = env.b.div(scaled, workers);
            env.b.cast(Cast::SExt, share, Ty::I64)
        };
        let (lo, hi) = (share(env, 0), share(env, 1));
        let mut first = 0;
        let mut out = Vec::new();
        for count in tiles {
            let clamp = |env: &mut Env, v: Val| {
                let (zero, most) = (env.b.index(0), env.b.index(count));
                let v = env.b.add_const(v, -(first as i64));
                let v = env.b.max(v, zero);
                env.b.min(v, most)
            };
            out.push(Range { start: clamp(env, lo), end: clamp(env, hi) });
            first += count;
        }
        out
    }

    fn tiles(&self, s: &Segment) -> usize {
        s.units * s.product.panels / self.panels
    }

    fn some_tokens(&self, env: &mut Env, at: At, ranges: &[Range]) {
        let mut loaded = match self.form.ahead() {
            Some(f) => {
                let first = self.next_segment(env, f, 0, ranges);
                let zero = env.b.index(0);
                f.load(env, first, zero)
            }
            None => vec![],
        };
        env.b.group_barrier();
        let norm = self.kernel.prologue.as_ref().and_then(|p| p.norm);
        let stage = Stage { x: &self.kernel.x, norm, staged: self.staged, padded: self.padded() };
        stage.emit(env, at.shared, at.x, at.tokens);
        for (i, segment) in self.kernel.segments.iter().enumerate() {
            loaded = self.segment(env, at, (i, segment), ranges, &loaded);
        }
    }

    /// Asks for the norm's scale, all workers together.
    fn prefetch_norm(&self, env: &mut Env) {
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

    /// The panels of this worker's first tile.
    fn first_panels(&self, env: &mut Env, ranges: &[Range]) -> Vec<Val> {
        let mut found: Option<Vec<Val>> = None;
        for (segment, range) in self.kernel.segments.iter().zip(ranges).rev() {
            let last = env.b.index(self.tiles(segment) - 1);
            let start = env.b.min(range.start, last);
            let (a, b) = self.panels_of(env, segment, start);
            let own: Vec<Val> = std::iter::once(a).chain(b).collect();
            let some = env.b.cmp(Cond::Lt, range.start, range.end);
            found = Some(match found {
                None => own,
                Some(after) => own.iter().zip(&after).map(|(o, a)| env.b.select(some, *o, *a)).collect(),
            });
        }
        found.expect("a product has segments")
    }

    /// The weights of this worker's first tile in the first segment from `i` on that it has tiles of, or some
    /// that can be read.
    fn next_segment(&self, env: &mut Env, f: &dyn Ahead, i: usize, ranges: &[Range]) -> Weights {
        let Some(segment) = self.kernel.segments.get(i) else {
            let first = &self.kernel.segments[0];
            let zero = env.b.index(0);
            let (a, b) = self.panels_of(env, first, zero);
            return f.weights(env, a, b);
        };
        let after = self.next_segment(env, f, i + 1, ranges);
        let some = env.b.cmp(Cond::Lt, ranges[i].start, ranges[i].end);
        let last = env.b.index(self.tiles(segment) - 1);
        let start = env.b.min(ranges[i].start, last);
        let (a, b) = self.panels_of(env, segment, start);
        let own = f.weights(env, a, b);
        Weights { at: env.b.select(some, own.at, after.at) }
    }

    /// Addresses of a tile's panels.
    fn panels_of(&self, env: &mut Env, s: &Segment, tile: Val) -> (Val, Option<Val>) {
        let base = env.ptr(Place::Weights(s.weight));
        let bytes = s.product.format.panel_bytes(s.product.k);
        if !s.epilogue.is_gated() {
            let first = env.at(base, tile, self.panels * bytes);
            let second = (self.panels == 2).then(|| env.b.ptr_add_const(first, bytes));
            return (first, second);
        }
        let half = s.product.panels / 2;
        let count = env.b.index(half);
        let (unit, part) = (env.b.div(tile, count), env.b.rem(tile, count));
        let unit = env.at(base, unit, s.product.panels * bytes);
        let first = env.at(unit, part, bytes);
        (first, Some(env.b.ptr_add_const(first, half * bytes)))
    }

    fn segment(
        &self,
        env: &mut Env,
        at: At,
        (index, s): (usize, &Segment),
        ranges: &[Range],
        loaded: &[Val],
    ) -> Vec<Val> {
        let Range { start, end } = ranges[index];
        let after = self.form.ahead().map(|f| self.next_segment(env, f, index + 1, ranges));
        let step = env.b.index(CHUNK);
        env.for_carried((start, end, step), loaded, |env, first, loaded| {
            let (many, chunk) = (env.b.sub(end, first), env.b.index(CHUNK));
            let count = env.b.min(many, chunk);
            let stop = env.b.add(first, count);
            let one = env.b.index(1);
            let loaded = env.for_carried((first, stop, one), loaded, |env, tile, loaded| {
                let slot = env.b.sub(tile, first);
                let to = env.at(at.partial, slot, self.tile_bytes(self.tokens));
                let to = env.at(to, env.group.warp, self.tile_bytes(self.tokens) / self.warps);
                self.tile(env, at, s, (tile, end), (to, after), loaded)
            });
            env.b.group_barrier();
            self.sum(env, at, (index, s), first, count);
            env.b.group_barrier();
            loaded
        })
    }

    /// Multiplies a tile, of those before `end`, into this warp's sums at `to`; loads what comes next.
    fn tile(
        &self,
        env: &mut Env,
        at: At,
        s: &Segment,
        (tile, end): (Val, Val),
        (to, after): (Val, Option<Weights>),
        loaded: &[Val],
    ) -> Vec<Val> {
        let (first, second) = self.panels_of(env, s, tile);
        let (Some(f), Some(after)) = (self.form.ahead(), after) else {
            let Form::Scalar(f) = &self.form else { unreachable!("all other forms load ahead") };
            for (i, panel) in std::iter::once(first).chain(second).enumerate() {
                let to = env.b.ptr_add_const(to, i * PANEL * 4);
                f.emit(env, panel, at.x, to, at.columns);
            }
            return vec![];
        };
        let own = f.weights(env, first, second);
        let following = {
            let next = env.b.add_const(tile, 1);
            let more = env.b.cmp(Cond::Lt, next, end);
            let next = env.b.select(more, next, tile);
            let (a, b) = self.panels_of(env, s, next);
            let next = f.weights(env, a, b);
            Weights { at: env.b.select(more, next.at, after.at) }
        };
        let x = f.columns(env, at.x, self.staged, at.columns);
        let sums = f.zero(env);
        let state: Vec<Val> = loaded.iter().chain(&sums).copied().collect();
        let (lo, last, one) = (env.b.index(0), env.b.index(f.rounds() - 1), env.b.index(1));
        let state = env.for_carried((lo, last, one), &state, |env, round, state| {
            let (loaded, sums) = state.split_at(loaded.len());
            let next = env.b.add_const(round, 1);
            let now = Loaded { values: loaded, x: &x, round };
            let (fresh, sums) = f.advance(env, (own, next), now, sums);
            [fresh, sums].concat()
        });
        let (loaded, sums) = state.split_at(loaded.len());
        let now = Loaded { values: loaded, x: &x, round: last };
        let (fresh, sums) = f.advance(env, (following, lo), now, sums);
        store(env, &sums, to, at.columns);
        fresh
    }

    /// Adds the warps' sums of tiles `first..first + count`, a warp for each, and finishes or keeps them.
    fn sum(&self, env: &mut Env, at: At, (index, s): (usize, &Segment), first: Val, count: Val) {
        let step = env.b.index(self.warps);
        let raw = env.b.ptr_add_const(at.partial, CHUNK * self.tile_bytes(self.tokens));
        env.for_step(env.group.warp, count, step, |env, slot| {
            let tile = env.b.add(first, slot);
            let partial = env.at(at.partial, slot, self.tile_bytes(self.tokens));
            let raw = env.at(raw, slot, self.tokens * self.rows() * 4);
            let zero = env.b.index(0);
            env.for_range(zero, at.tokens.1, 1, |env, t| {
                let token = env.b.add(at.tokens.0, t);
                let raw = env.at(raw, t, self.rows() * 4);
                let from = env.at(partial, t, self.staged.planes() * self.rows() * 4);
                let x = env.at(at.x, t, self.staged.planes() * self.staged.stride(self.padded()));
                if s.epilogue.is_pointwise() {
                    self.add_up(env, from, raw, (s, tile, x));
                    self.finish_part(env, s, (tile, token), raw);
                } else {
                    let to = self.gathered(env, (index, s), (tile, token));
                    self.add_up(env, from, to, (s, tile, x));
                }
            });
        });
    }

    /// Adds the warps' sums of one token, whose staged row is at `x`.
    fn add_up(&self, env: &mut Env, from: Val, to: Val, (s, tile, x): (&Segment, Val, Val)) {
        let stride = self.tile_bytes(self.tokens) / self.warps;
        env.elements(self.rows(), |env, e, _| {
            let from = env.at(from, e, 4);
            let elem = self.form.sum_elem();
            let load = |env: &mut Env, warp: usize, plane: usize| {
                env.b.load(Ty::scalar(elem), from, (warp * stride + plane * self.rows() * 4) as i32)
            };
            let mut total = None;
            for plane in 0..self.staged.planes() {
                for warp in 0..self.warps {
                    let v = load(env, warp, plane);
                    total = Some(total.map_or(v, |total| env.b.add(total, v)));
                }
            }
            let total = total.expect("a group has warps");
            let total = match &self.form {
                Form::Integer(f) => {
                    let row = self.row_of(env, s, tile, e);
                    f.finish(env, total, row, x)
                }
                _ => total,
            };
            let to = env.at(to, e, 4);
            env.b.store(total, to, 0);
        });
    }

    /// The panel of row `e` (i64) of a tile, and the row's number in it.
    fn row_of(&self, env: &mut Env, s: &Segment, tile: Val, e: Val) -> (Val, Val) {
        let (first, second) = self.panels_of(env, s, tile);
        let Some(second) = second else { return (first, e) };
        let rows = env.b.index(PANEL);
        let upper = env.b.cmp(Cond::Ge, e, rows);
        (env.b.select(upper, second, first), env.b.rem(e, rows))
    }

    fn finish_part(&self, env: &mut Env, s: &Segment, (tile, token): (Val, Val), raw: Val) {
        let gated = s.epilogue.is_gated();
        let tiles = s.product.panels / self.panels;
        let (unit, first, count) = match tiles {
            // A unit of one panel, of which a tile has two: columns go on from one unit to the next.
            0 => (env.b.mul_const(tile, self.panels as i64), env.b.index(0), self.rows()),
            _ => {
                let count = env.b.index(tiles);
                let (unit, part) = (env.b.div(tile, count), env.b.rem(tile, count));
                let rows = if gated { PANEL } else { self.rows() };
                (unit, env.b.mul_const(part, rows as i64), rows)
            }
        };
        s.epilogue.emit_part(env, unit, RawRow { at: raw, first: Some(first), count }, token);
    }

    fn unit_bytes(s: &Segment) -> usize {
        s.product.panels * PANEL * 4
    }

    /// Where a segment's units wait.
    fn gather(&self, env: &mut Env, index: usize) -> Val {
        let g = self.kernel.gather.expect("units that wait have a place");
        let before: usize = self.kernel.segments[..index].iter().map(|s| s.units * Self::unit_bytes(s)).sum();
        let base = env.ptr(g.rows);
        let n = env.count(self.kernel.count);
        env.at(base, n, before)
    }

    /// Where a tile's sums of one token wait.
    fn gathered(&self, env: &mut Env, (index, s): (usize, &Segment), (tile, token): (Val, Val)) -> Val {
        let base = self.gather(env, index);
        let tiles = env.b.index(s.product.panels / self.panels);
        let (unit, part) = (env.b.div(tile, tiles), env.b.rem(tile, tiles));
        let row = self.unit_row(env, base, s, (unit, token));
        env.at(row, part, self.rows() * 4)
    }

    fn unit_row(&self, env: &mut Env, base: Val, s: &Segment, (unit, token): (Val, Val)) -> Val {
        let n = env.count(self.kernel.count);
        let row = env.b.mul(unit, n);
        let row = env.b.add(row, token);
        env.at(base, row, Self::unit_bytes(s))
    }

    /// Finishes the units of a segment of which this worker has computed the last part.
    fn finish(&self, env: &mut Env, (index, s): (usize, &Segment), range: Range, n: Val) {
        let g = self.kernel.gather.expect("units that wait have a place");
        let before: usize = self.kernel.segments[..index].iter().map(|s| s.units).sum();
        let tiles = s.product.panels / self.panels;
        let size = env.b.index(tiles);
        let first = env.b.div(range.start, size);
        let end = env.b.add_const(range.end, tiles as i64 - 1);
        let end = env.b.div(end, size);
        let some = env.b.cmp(Cond::Lt, range.start, range.end);
        let end = env.b.select(some, end, first);
        let base = self.gather(env, index);
        env.for_range(first, end, 1, |env, unit| {
            let (lo, hi) = (env.b.mul(unit, size), env.b.add_const(unit, 1));
            let hi = env.b.mul(hi, size);
            let (lo, hi) = (env.b.max(lo, range.start), env.b.min(hi, range.end));
            let add = env.b.sub(hi, lo);
            let add = env.b.cast(Cast::Trunc, add, Ty::I32);
            let counter = env.ptr(Place::Counter(g.counters + before));
            let counter = env.at(counter, unit, 4);
            let last = env.b.last_of(counter, add, tiles);
            env.if_then(last, |env| {
                let step = env.b.index(self.warps);
                env.for_step(env.group.warp, n, step, |env, t| {
                    let raw = self.unit_row(env, base, s, (unit, t));
                    s.epilogue.emit_row(env, unit, raw, t);
                });
            });
        });
    }
}

impl Form {
    /// The product, if its weights are loaded ahead.
    fn ahead(&self) -> Option<&dyn Ahead> {
        match self {
            Form::Matrix(f) => Some(f),
            Form::Integer(f) => Some(f),
            Form::Scalar(_) => None,
        }
    }

    fn scalar(format: WeightFormat, k: usize, columns: usize, panels: usize) -> Form {
        Form::Scalar(Scalars { format, k, columns, rows: panels * PANEL })
    }

    /// What the sums of a warp are.
    fn sum_elem(&self) -> Elem {
        match self {
            Form::Integer(f) => f.sum_elem(),
            _ => Elem::F32,
        }
    }
}

/// How a kernel's tiles are multiplied, what is staged for it, and panels of a tile.
fn form_for(kernel: &LinearKernel, warps: usize) -> (Form, Staged, usize) {
    let first = &kernel.segments[0].product;
    if let WeightFormat::Quant(scheme) = first.format {
        let panels = tile_panels(kernel, true);
        let integers = Integers::new(QuantLayout { scheme, k: first.k }, first.int, panels, warps);
        return (Form::Integer(integers), Staged::Bytes(integers.sums()), panels);
    }
    let staged = staged_for(first.format, kernel);
    let matrix = matches!(staged, Staged::Bf16 | Staged::Bf16Split);
    let panels = tile_panels(kernel, matrix);
    let form = match matrix {
        true => Form::Matrix(Fragments::new(first.k, panels, warps)),
        false => Form::scalar(first.format, first.k, 1, panels),
    };
    (form, staged, panels)
}

/// What is staged for weights of a float format.
fn staged_for(format: WeightFormat, kernel: &LinearKernel) -> Staged {
    let elem = kernel.prologue.as_ref().map_or(kernel.x.elem, |p| p.elem);
    match (format, elem) {
        (WeightFormat::Bf16, RowElem::Bf16) => Staged::Bf16,
        (WeightFormat::Bf16, RowElem::F32) => Staged::Bf16Split,
        (_, RowElem::Bf16InF32) => Staged::Bf16InF32,
        _ => Staged::F32,
    }
}

/// Panels of a tile: two where a gate goes with its up, or where there are so many that the workers are
/// still evenly busy.
fn tile_panels(kernel: &LinearKernel, matrix: bool) -> usize {
    if kernel.segments.iter().any(|s| s.epilogue.is_gated()) {
        return 2;
    }
    let total: usize = kernel.segments.iter().map(|s| s.units * s.product.panels).sum();
    let even = kernel.segments.iter().all(|s| {
        let panels = s.product.panels;
        panels.is_multiple_of(2) || (panels == 1 && s.epilogue.is_pointwise() && s.units.is_multiple_of(2))
    });
    if matrix && even && total / 2 >= COARSE { 2 } else { 1 }
}
