//! The product of rows of 8-bit integers with quantized weights, in integers.
//!
//! Products of a group of k are summed in 32-bit integers, which is exact in any order. Groups with
//! scales of their own are then added up in f32 in ascending order, as in a float product; a row
//! with one scale stays in integers to its end. What is left to do for a whole row (the scale of the
//! token, the scale of the weight's row) is done once, when all its sums are there.

use super::byte_rows::ByteRow;
use super::int_sums::{IntSums, Tokens};
use super::panel_ahead::{Ask, PanelAhead};
use super::product::{At, CodedWeights, Cut, Product, VECTOR_BYTES};
use super::tile_product::{ANY_ROWS, BLOCK_BYTES, MATRIX_ROWS, TileBlocks};
use crate::env::{Env, Place};
use crate::formats::codes::{BLOCK, Block, STEP, STEPS};
use crate::formats::quant::QuantLayout;
use crate::kir::{Cast, Cond, Elem, Hint, TileKind, Ty, Val};
use crate::layout::LANES;
use crate::schedule::{Schedule, Streams, Tile};
use llmc_ir::quant::Scheme;

const FLOATS: Ty = Ty::vector(Elem::F32, LANES);
/// Bytes of a block of codes as products read them.
const CODES: usize = STEPS * VECTOR_BYTES;

/// Blocks that a tile takes at once.
const PAIR: usize = BLOCK_BYTES / BLOCK;

/// An integer product under construction.
pub(super) struct IntProduct<'a> {
    product: &'a Product,
    sums: IntSums,
    codes: Val,
    table: Option<Val>,
    /// Steps whose products are summed in 16 bits.
    halves: Option<usize>,
    /// How weights are read.
    streams: Streams,
}

/// Some blocks of k: the first (i64) and their number.
type Chunk = (Val, usize);

impl<'a> IntProduct<'a> {
    /// The product of these weights.
    pub(super) fn new(
        env: &mut Env,
        s: &Schedule,
        product: &'a Product,
        (scheme, weights): (Scheme, CodedWeights),
    ) -> IntProduct<'a> {
        let layout = QuantLayout { scheme, k: product.k };
        let table = weights.table.map(|offset| env.ptr(Place::Weights(offset)));
        let codes = env.ptr(weights.codes);
        let halves = layout.steps_in_halves().filter(|_| s.halves);
        IntProduct {
            product,
            sums: IntSums { layout, x: ByteRow { k: product.k } },
            codes,
            table,
            halves,
            streams: s.streams(product.format),
        }
    }

    /// Steps after which sums of 16 bits are added to those of 32; one where there are none.
    fn together(&self) -> usize {
        self.halves.unwrap_or(1)
    }

    /// Adds a step's products to a sum: in 16 bits, or in 32.
    fn dot(&self, env: &mut Env, acc: Val, (w, x): (Val, Val)) -> Val {
        if self.halves.is_some() { env.b.dot2_i8(acc, w, x) } else { env.b.dot4_i8(acc, w, x) }
    }

    /// The sums that some steps begin with.
    fn open(&self, env: &mut Env, sums: &[Val]) -> Vec<Val> {
        let none = self.halves.map(|_| env.b.int(FLOATS.with_elem(Elem::I32), 0));
        sums.iter().map(|sum| none.unwrap_or(*sum)).collect()
    }

    /// The sums after these steps, from what they began with.
    fn close(&self, env: &mut Env, sums: &[Val], dotted: Vec<Val>) -> Vec<Val> {
        match self.halves {
            None => dotted,
            Some(_) => sums.iter().zip(dotted).map(|(sum, halves)| env.b.add_halves(*sum, halves)).collect(),
        }
    }

    fn layout(&self) -> &QuantLayout {
        &self.sums.layout
    }

    /// Whether codes lie in the weights as products read them.
    fn is_direct(&self) -> bool {
        self.layout().scheme.code_bits() == 8
    }

    /// Addresses of `count` panels from `w` on.
    fn panels(&self, env: &mut Env, w: Val, count: usize) -> Vec<Val> {
        (0..count).map(|p| env.b.ptr_add_const(w, p * self.layout().panel_bytes())).collect()
    }

    /// How `panels` panels are asked for that are read together. Bytes need it only where scales of groups stand between
    /// those of one panel and the next.
    fn ahead(&self, panels: usize) -> PanelAhead {
        let layout = self.layout();
        PanelAhead {
            panel_bytes: layout.panel_bytes(),
            steps: layout.blocks(),
            panels,
            streams: self.streams,
            whole: !self.is_direct() || panels == 1 && !layout.is_row_scaled(),
        }
    }

    /// As many rows as `tokens` with `streams` panels. Packed codes are asked for ahead all the time, since decoding
    /// leaves the processor too few loads in flight.
    pub(super) fn gemv_panels(&self, env: &mut Env, Tile { tokens, panels: streams }: Tile, at: At) {
        let panels = self.panels(env, at.w, streams);
        let mut sums: Vec<Val> = (0..tokens * streams).map(|_| self.sums.zero(env)).collect();
        let tokens = Tokens { x: at.x, stride: self.product.x_stride, count: tokens };
        for ((first, end), ask) in self.ahead(streams).parts(self.layout().scaled_blocks()) {
            sums = self.gemv_blocks(env, &panels, tokens, (first, end - first), &sums, ask);
        }
        for (i, v) in sums.iter().enumerate() {
            let offset = i / streams * self.product.raw_bytes() + i % streams * VECTOR_BYTES;
            env.b.store(*v, at.raw, offset as i32);
        }
    }

    /// Blocks `first..first + len` of some rows with some panels.
    fn gemv_blocks(
        &self,
        env: &mut Env,
        panels: &[Val],
        tokens: Tokens,
        (first, len): (usize, usize),
        init: &[Val],
        ask: Option<Ask>,
    ) -> Vec<Val> {
        if len == 0 {
            return init.to_vec();
        }
        let first = env.b.index(first);
        self.sums.emit(env, tokens, panels, (first, len), init, &|env, block, acc| {
            let xs = env.at(tokens.x, block, BLOCK);
            match tokens.count {
                1 => self.block_of_one(env, panels, (block, ask), xs, acc),
                _ => self.block_of_few(env, panels, (block, ask), Tokens { x: xs, ..tokens }, acc),
            }
        })
    }

    /// Sums of nothing that a block's products are added to in turn: each product waits for the one before in its
    /// chain, and a whole row in one chain would wait longer than for memory.
    fn chains(&self, env: &mut Env) -> Vec<Val> {
        let zero = env.b.int(FLOATS.with_elem(Elem::I32), 0);
        vec![zero; if self.halves.is_some() { 1 } else { 2 }]
    }

    /// A block (i64) of one row at `xs`: a panel's codes are used up before those of the next are decoded, and each
    /// step's before those of the next, as narrow vectors have no room for more.
    fn block_of_one(&self, env: &mut Env, panels: &[Val], block: (Val, Option<Ask>), xs: Val, acc: &[Val]) -> Vec<Val> {
        let dot = |(panel, acc): (&Val, &Val)| {
            let codes = self.codes_ahead(env, *panel, block);
            let mut sums = self.chains(env);
            for first in (0..STEPS).step_by(self.together()) {
                let chain = first / self.together() % sums.len();
                let mut dotted = self.open(env, &[sums[chain]]);
                for step in first..first + self.together() {
                    let x = input(env, xs, STEP * step);
                    let codes = codes.step(env, step);
                    dotted[0] = self.dot(env, dotted[0], (codes, x));
                }
                sums[chain] = self.close(env, &[sums[chain]], dotted)[0];
            }
            let all = sums.into_iter().reduce(|all, sum| env.b.add(all, sum)).expect("there is a chain");
            env.b.add(*acc, all)
        };
        panels.iter().zip(acc).map(dot).collect()
    }

    /// A block (i64) of several rows: each element of them is loaded once for all panels.
    fn block_of_few(
        &self,
        env: &mut Env,
        panels: &[Val],
        block: (Val, Option<Ask>),
        xs: Tokens,
        acc: &[Val],
    ) -> Vec<Val> {
        let codes: Vec<Vec<Val>> = panels.iter().map(|panel| self.codes_ahead(env, *panel, block).all(env)).collect();
        (0..STEPS).step_by(self.together()).fold(acc.to_vec(), |acc, first| {
            let mut dotted = self.open(env, &acc);
            for step in first..first + self.together() {
                for (t, sums) in dotted.chunks_mut(panels.len()).enumerate() {
                    let x = input(env, xs.x, t * xs.stride + STEP * step);
                    sums.iter_mut().zip(&codes).for_each(|(sum, codes)| *sum = self.dot(env, *sum, (codes[step], x)));
                }
            }
            self.close(env, &acc, dotted)
        })
    }

    /// The codes of a block of a panel, with others asked for.
    fn codes_ahead(&self, env: &mut Env, panel: Val, (block, ask): (Val, Option<Ask>)) -> Codes {
        if let Some(ask) = ask {
            ask.emit(env, panel, block);
        }
        self.codes(env, panel, block)
    }

    /// The codes of a block (i64) of a panel.
    fn codes(&self, env: &mut Env, panel: Val, block: Val) -> Codes {
        let codes = env.b.ptr_add_const(panel, self.layout().codes());
        let at = env.at(codes, block, self.layout().block_bytes());
        let packed = Block { bits: self.layout().scheme.code_bits(), at, lanes: LANES };
        let tables = match self.table {
            None => vec![],
            Some(t) => (0..2).flat_map(|half| self.layout().tables(&mut env.b, t, (panel, block), half)).collect(),
        };
        Codes { packed, tables }
    }

    /// Whether many rows go through the processor's tiles.
    pub(super) fn is_tiled(&self, s: &Schedule) -> bool {
        s.matrix && self.sums.is_row_scaled()
    }

    /// Rows in tiles, or those that go through the processor's, in chunks of k: a chunk's codes are decoded once for
    /// all of them, and a tile of x stays in the first-level cache for all panels.
    pub(super) fn gemm(&self, env: &mut Env, s: &Schedule, at: At, cut: &Cut) {
        let rows = cut.tiled();
        let most = s.int_gemm_k_block / BLOCK;
        let (whole, rest) = (self.layout().blocks() / most * most, self.layout().blocks() % most);
        let zero = self.sums.zero(env);
        self.product.clear(env, at.raw, rows, zero);
        let pairs = if self.is_tiled(s) { rest / PAIR * PAIR } else { 0 };
        let each = |env: &mut Env, chunk: Chunk| match self.is_tiled(s) && chunk.1.is_multiple_of(PAIR) {
            true => self.tiled_chunk(env, at, rows, chunk),
            false => self.chunk(env, at, cut, chunk),
        };
        if whole > 0 {
            env.for_const(whole, most, |env, block| each(env, (block, most)));
        }
        for (first, len) in [(whole, pairs), (whole + pairs, rest - pairs)] {
            if len > 0 {
                let block = env.b.index(first);
                each(env, (block, len));
            }
        }
    }

    /// A chunk of pairs of blocks, which are what tiles take.
    fn tiled_chunk(&self, env: &mut Env, at: At, rows: (Val, Val), (first, len): Chunk) {
        self.decode_for(env, at.w, rows, (first, len));
        let panel = env.b.index(0);
        let (w, panel_stride) = self.codes_of(env, (at.w, panel), (first, len));
        let x = env.at(at.x, first, BLOCK);
        let blocks = TileBlocks { kind: TileKind::I8, blocks: len / PAIR, panels: self.product.panels, panel_stride };
        blocks.emit(env, self.product, At { x, w, raw: at.raw }, rows.1);
    }

    /// Decodes a chunk, if there are rows that need it.
    fn decode_for(&self, env: &mut Env, w: Val, rows: (Val, Val), chunk: Chunk) {
        if !self.is_direct() {
            let some = env.b.cmp(Cond::Lt, rows.0, rows.1);
            env.if_then(some, |env| self.decode_chunk(env, w, chunk));
        }
    }

    /// The tiles of a GEMM, the largest first, and how many rows it takes at least.
    pub(super) fn tiles(&self, s: &Schedule) -> (&'static [Tile], usize) {
        match (self.is_tiled(s), self.sums.is_row_scaled()) {
            (true, _) => (&ANY_ROWS, MATRIX_ROWS),
            (_, true) => (s.int_gemm, s.int_gemm_rows),
            _ => (s.int_gemm_groups, s.int_gemm_rows),
        }
    }

    fn chunk(&self, env: &mut Env, at: At, cut: &Cut, chunk: Chunk) {
        self.decode_for(env, at.w, cut.tiled(), chunk);
        for (tile, rows) in &cut.tiles {
            self.tiles_of(env, *tile, at, *rows, chunk);
        }
    }

    /// Rows, a multiple of the tile, over a chunk.
    fn tiles_of(&self, env: &mut Env, tile: Tile, at: At, rows: (Val, Val), chunk: Chunk) {
        let step = env.b.index(tile.tokens);
        env.for_step(rows.0, rows.1, step, |env, t| {
            let x = env.at(at.x, t, self.product.x_stride);
            let raw = env.at(at.raw, t, self.product.raw_bytes());
            let whole = self.product.panels / tile.panels * tile.panels;
            env.for_const(whole, tile.panels, |env, panel| {
                self.one_tile(env, tile, (At { x, raw, ..at }, panel), chunk);
            });
            if whole < self.product.panels {
                let panel = env.b.index(whole);
                let tile = Tile { panels: self.product.panels - whole, ..tile };
                self.one_tile(env, tile, (At { x, raw, ..at }, panel), chunk);
            }
        });
    }

    /// Decodes a chunk of every panel into scratch.
    fn decode_chunk(&self, env: &mut Env, w: Val, (first, len): Chunk) {
        let ask = self.ahead(1).within();
        env.for_const(self.product.panels, 1, |env, p| {
            let panel = env.at(w, p, self.layout().panel_bytes());
            let to = env.at(self.codes, p, len * CODES);
            env.for_const(len, 1, |env, i| {
                let block = env.b.add(first, i);
                let codes = self.codes_ahead(env, panel, (block, ask)).all(env);
                let to = env.at(to, i, CODES);
                codes.iter().enumerate().for_each(|(step, v)| env.b.store(*v, to, (step * VECTOR_BYTES) as i32));
            });
        });
    }

    /// A tile of tokens with panels from `panel` (i64) on, over a chunk.
    fn one_tile(&self, env: &mut Env, tile: Tile, (at, panel): (At, Val), chunk: Chunk) {
        let w = env.at(at.w, panel, self.layout().panel_bytes());
        let raw = env.at(at.raw, panel, VECTOR_BYTES);
        let panels = self.panels(env, w, tile.panels);
        let (codes, stride) = self.codes_of(env, (w, panel), chunk);
        let offset = |i: usize| (i / tile.panels * self.product.raw_bytes() + i % tile.panels * VECTOR_BYTES) as i32;
        let ty = self.sums.ty();
        let init: Vec<Val> = (0..tile.tokens * tile.panels).map(|i| env.b.load(ty, raw, offset(i))).collect();
        let tokens = Tokens { x: at.x, stride: self.product.x_stride, count: tile.tokens };
        let sums = self.sums.emit(env, tokens, &panels, chunk, &init, &|env, block, acc| {
            let xs = env.at(at.x, block, BLOCK);
            let index = env.b.sub(block, chunk.0);
            let codes = env.at(codes, index, CODES);
            let mut acc = acc.to_vec();
            for first in (0..STEPS).step_by(self.together()) {
                let mut dotted = self.open(env, &acc);
                for step in first..first + self.together() {
                    let load = |env: &mut Env, p: usize| {
                        let at = env.b.ptr_add_const(codes, p * stride + step * VECTOR_BYTES);
                        env.b.load(Ty::vector(Elem::I32, LANES), at, 0)
                    };
                    let weights: Vec<Val> = (0..tile.panels).map(|p| load(env, p)).collect();
                    for t in 0..tile.tokens {
                        let x = input(env, xs, t * self.product.x_stride + STEP * step);
                        for (p, w) in weights.iter().enumerate() {
                            let sum = &mut dotted[t * tile.panels + p];
                            *sum = self.dot(env, *sum, (*w, x));
                        }
                    }
                }
                acc = self.close(env, &acc, dotted);
            }
            acc
        });
        for (i, v) in sums.iter().enumerate() {
            env.b.store(*v, raw, offset(i));
        }
    }

    /// Where the codes of a chunk begin for the panel at `w` with number `panel`, and bytes to the next
    /// panel's.
    fn codes_of(&self, env: &mut Env, (w, panel): (Val, Val), (first, len): Chunk) -> (Val, usize) {
        match self.is_direct() {
            true => {
                let codes = env.b.ptr_add_const(w, self.layout().codes());
                (env.at(codes, first, CODES), self.layout().panel_bytes())
            }
            false => (env.at(self.codes, panel, len * CODES), len * CODES),
        }
    }

    /// Turns the sums of rows `0..n` into the product: what is left are factors of the whole row.
    pub(super) fn finish(&self, env: &mut Env, at: At, n: Val) {
        let none = env.b.index(0);
        env.for_range(none, n, 1, |env, t| {
            let x = env.at(at.x, t, self.product.x_stride);
            let raw = env.at(at.raw, t, self.product.raw_bytes());
            let x_scale = env.b.load(Ty::F32, x, self.sums.x.scale() as i32);
            let x_scale = env.b.splat(x_scale, LANES);
            for (p, panel) in self.panels(env, at.w, self.product.panels).into_iter().enumerate() {
                let sum = env.b.load(self.sums.ty(), raw, (p * VECTOR_BYTES) as i32);
                let sum = self.sums.whole_row(env, sum, x);
                let sum = match self.layout().row_scale(&mut env.b, panel, None) {
                    Some(scale) => env.b.mul(sum, scale),
                    None => sum,
                };
                let y = env.b.mul(sum, x_scale);
                env.b.store(y, raw, (p * VECTOR_BYTES) as i32);
            }
        });
    }
}

/// The codes of a block of a panel, or what they stand for.
struct Codes {
    packed: Block,
    /// Tables that the codes of two steps each are looked up in, if they are.
    tables: Vec<Val>,
}

impl Codes {
    /// Those of a step.
    fn step(&self, env: &mut Env, step: usize) -> Val {
        let codes = self.packed.step(&mut env.b, step);
        self.tables.get(step / 2).map_or(codes, |table| look_up(env, *table, codes))
    }

    /// Those of all steps.
    fn all(&self, env: &mut Env) -> Vec<Val> {
        (0..STEPS).map(|step| self.step(env, step)).collect()
    }
}

/// Four integers of a row at `xs + offset`, in every lane.
fn input(env: &mut Env, xs: Val, offset: usize) -> Val {
    let v = env.b.load_with(Ty::I32, xs, offset as i32, 4, Hint::None);
    env.b.splat(v, LANES)
}

/// The bytes of a table at each code.
fn look_up(env: &mut Env, table: Val, codes: Val) -> Val {
    let bytes = Ty::vector(Elem::I8, 4 * LANES);
    let [table, index] = [table, codes].map(|v| env.b.cast(Cast::Bitcast, v, bytes));
    let found = env.b.table16(table, index);
    env.b.cast(Cast::Bitcast, found, FLOATS.with_elem(Elem::I32))
}
