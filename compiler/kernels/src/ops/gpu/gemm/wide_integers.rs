//! Tiles of quantized weights and rows of 8-bit integers whose tokens the matrix units of four warps read in shared
//! memory; see [`super::wide`].
//!
//! Weights become signed bytes in registers, whatever their codes count from, so that sums begin with zero. Thread t of a
//! row has steps t and t + 4 of each block of 32 k. Sums are integers: of a whole row where it has one scale, else of a
//! group, and then added up in f32 in ascending order.

use super::copies::{COPY, Lines, PanelPart, Pieces, in_order};
use super::rows::{ROWS, panel_scales};
use super::wide::{SHARES, columns_of, token_place};
use super::{Form, Shares, TILE_PANELS, TILE_TOKENS, Tile, thread_rows};
use crate::env::Env;
use crate::formats::codes::BLOCK;
use crate::formats::pairs::{PairAt, PairRows, found};
use crate::formats::quant::QuantLayout;
use crate::kir::{BinOp, Cast, Cond, Elem, Hint, Mma, Ty, Val};
use crate::ops::byte_rows::ByteRow;
use crate::ops::gpu::fragments::{of_pair, operand, thread_of};
use crate::ops::linear::Segment;
use llmc_ir::quant::Scheme;

/// Blocks of a step: a line of 128 bytes of a token.
const BLOCKS: usize = 4;
const TOKEN_STEP: usize = BLOCKS * BLOCK;
/// Bytes of a step of all tokens, which begin a stage.
const ALL_TOKENS: usize = TILE_TOKENS * TOKEN_STEP;
/// Alignment of lines whose pieces are exchanged.
const ALIGN: usize = 1024;
/// Steps in shared memory.
const STAGES: usize = 4;
/// Steps of four k that a thread has of a block: its own and one four after it.
const STEPS: usize = 2;
/// Sums of a pair of rows and all columns.
const LANES: u16 = 4 * SHARES.columns() as u16;
const INTS: Ty = Ty::vector(Elem::I32, LANES);
const FLOATS: Ty = Ty::vector(Elem::F32, LANES);
/// Four codes of each of a thread's rows.
const WORDS: Ty = Ty::vector(Elem::I32, ROWS);

/// Products of quantized weights.
pub(super) struct WideIntegers {
    layout: QuantLayout,
    /// Bytes from one row of x to the next.
    x_stride: usize,
}

/// Where a thread reads a group of a stage.
struct At {
    /// Codes of its first block: of each step for each plane.
    codes: Vec<Val>,
    /// The columns of its first block.
    columns: Val,
    /// Scales and zero points of the panel's groups, or numbers of tables of its blocks.
    sides: Val,
    table: Val,
    /// Its number in the stage: i64.
    group: Val,
}

impl WideIntegers {
    /// If there are whole steps of whole groups.
    pub(super) fn new(scheme: Scheme, k: usize, x_stride: usize) -> Option<WideIntegers> {
        let layout = QuantLayout { scheme, k };
        let form = WideIntegers { layout, x_stride };
        let whole = layout.is_row_scaled() || BLOCKS.is_multiple_of(layout.group_blocks());
        (!scheme.is_float() && whole && k.is_multiple_of(TOKEN_STEP)).then_some(form)
    }

    fn rows(&self) -> PairRows {
        PairRows { layout: self.layout, count: ROWS }
    }

    /// Blocks of a group, and groups of a step.
    fn size(&self) -> usize {
        if self.layout.is_row_scaled() { BLOCKS } else { self.layout.group_blocks() }
    }

    fn groups(&self) -> usize {
        BLOCKS / self.size()
    }

    fn codes_step(&self) -> usize {
        BLOCKS * self.layout.block_bytes()
    }

    /// Where in a panel what stands beside codes begins, bytes of a step, and of a copy: scales and zero points of groups,
    /// or numbers of tables.
    fn side_parts(&self) -> Vec<(usize, usize, usize)> {
        let of_groups = [self.layout.group_scales(), self.layout.group_zeros()].into_iter().flatten();
        let of_groups = of_groups.map(|(offset, bytes)| (offset, self.groups() * bytes, COPY));
        let numbers = self.layout.table_numbers().map(|(offset, bytes)| (offset, BLOCKS * bytes, 8));
        of_groups.chain(numbers).collect()
    }

    fn side_step(&self) -> usize {
        self.side_parts().iter().map(|(_, bytes, _)| bytes).sum()
    }

    /// Offset in a stage of what stands beside codes.
    fn sides(&self) -> usize {
        ALL_TOKENS + TILE_PANELS * self.codes_step()
    }

    /// The place of piece `piece` (i64) of a panel's codes: where a vector is a step, those of every second two are
    /// exchanged by twos, so that the threads of a row read different banks.
    fn place(&self, env: &mut Env, piece: Val) -> Val {
        if self.layout.scheme.code_bits() < 8 {
            return piece;
        }
        let (bit, by) = (env.b.index(8), env.b.int(Ty::I64, 2));
        let odd = env.b.and(piece, bit);
        let flip = env.b.lshr(odd, by);
        env.b.bin(BinOp::Xor, piece, flip)
    }

    /// This thread's step number `number` of each block: i64.
    fn step_of(env: &mut Env, number: usize) -> Val {
        let (_, t) = thread_of(env);
        env.b.add_const(t, 4 * number as i64)
    }

    /// The first of its rows.
    fn row(env: &mut Env) -> Val {
        let (_, quad) = thread_rows(env);
        env.b.mul_const(quad, ROWS.into())
    }

    fn at(&self, env: &mut Env, stage: Val, reads: &[Val], group: Val) -> At {
        let [sides, table, ref codes @ ..] = *reads else { unreachable!("reads are two and more") };
        let columns = env.at(stage, group, self.size() * BLOCK);
        let first = env.at(stage, group, self.size() * self.layout.block_bytes());
        let codes = codes.iter().map(|offset| env.b.ptr_add(first, *offset)).collect();
        At { codes, columns, sides: env.b.ptr_add(stage, sides), table, group }
    }

    /// What a weight's byte is less than its code with 128 added: four bytes for each row, or one word for all.
    fn bias(&self, env: &mut Env, at: &At) -> Val {
        let most = env.b.int(WORDS, 0x8080_8080_u32 as i32 as i64);
        if !self.layout.has_zeros() {
            let less = i64::from(self.layout.offset()) * 0x0101_0101;
            let less = env.b.int(WORDS, i64::from(less as u32 as i32));
            return env.b.sub(most, less);
        }
        let (rows, place) = (self.rows(), self.pair_at(env, 0));
        let beside = rows.copied_beside(at.sides, self.groups());
        let zeros = rows.zeros_at(env, place, beside, (at.group, 0)).expect("the scheme has zero points");
        let zeros = zeros.load(env, Hint::None);
        let zeros = rows.zeros(env, zeros);
        let less = env.b.mul_const(zeros, 0x0101_0101);
        env.b.sub(most, less)
    }

    fn pair_at(&self, env: &mut Env, number: usize) -> PairAt {
        let (step, two) = (Self::step_of(env, number), env.b.index(2));
        PairAt { row: Self::row(env), part: env.b.div(step, two) }
    }

    /// The weights of a block as signed bytes: of each of the thread's steps four of each row.
    fn weights(&self, env: &mut Env, at: &At, block: usize, bias: Val) -> [Val; STEPS] {
        let rows = self.rows();
        let planes = at.codes.len() / STEPS;
        [0, 1].map(|number| {
            let offset = (block * self.layout.block_bytes()) as i32;
            let places = &at.codes[number * planes..][..planes];
            let load = |place: &Val| env.b.load_with(WORDS, *place, offset, 16, Hint::None);
            let loaded: Vec<Val> = places.iter().map(load).collect();
            let step = Self::step_of(env, number);
            let mut codes = rows.step_codes(env, &loaded, step);
            if self.table_bytes() > 0 {
                let (place, zero) = (self.pair_at(env, number), env.b.index(0));
                let beside = rows.copied_beside(at.sides, self.groups());
                let number = rows.table_number(env, place, beside, (zero, block));
                let number = number.load(env, Hint::None);
                let table = rows.table(env, place, (at.table, Hint::None), number);
                codes = found(env, table, codes);
            }
            let raised = env.b.add(codes, bias);
            let top = env.b.int(WORDS, 0x8080_8080_u32 as i32 as i64);
            env.b.bin(BinOp::Xor, raised, top)
        })
    }

    /// Begins to add the products of a block to sums of the first or second two of the thread's rows. The factors stay in
    /// registers: they are added to `kept`.
    fn add(
        env: &mut Env,
        at: &At,
        (block, [low, high]): (usize, [Val; STEPS]),
        (rows, sum): (u16, Val),
        kept: &mut Vec<Val>,
    ) -> Val {
        let columns = env.b.ptr_add_const(at.columns, block * BLOCK);
        let a = operand(env, low, high, rows);
        kept.push(a);
        env.b.wgmma(Mma::S8S8, sum, a, columns)
    }

    /// Adds all products of a step, which has one group.
    fn whole(&self, env: &mut Env, at: &At, sums: &[Val]) -> Vec<Val> {
        let (mut sums, mut kept, bias) = (sums.to_vec(), Vec::new(), self.bias(env, at));
        for block in 0..BLOCKS {
            let weights = self.weights(env, at, block, bias);
            for (rows, sum) in (0..).zip(&mut sums) {
                *sum = Self::add(env, at, (block, weights), (rows, *sum), &mut kept);
            }
        }
        sums.into_iter().map(|sum| env.b.wgmma_wait(sum, kept.clone())).collect()
    }

    /// Adds a group's products times its scales.
    fn scaled(&self, env: &mut Env, at: &At, sums: &[Val]) -> Vec<Val> {
        let bias = self.bias(env, at);
        let weights: Vec<_> = (0..self.size()).map(|block| self.weights(env, at, block, bias)).collect();
        let scales = self.scales(env, at);
        let of_rows = |env: &mut Env, rows: u16, sum: Val| {
            let (zero, mut kept) = (env.b.int(INTS, 0), Vec::new());
            let blocks = weights.iter().enumerate();
            let dots = blocks.fold(zero, |dots, (b, w)| Self::add(env, at, (b, *w), (rows, dots), &mut kept));
            let dots = env.b.wgmma_wait(dots, kept);
            let exact = env.b.cast(Cast::IntToFloat, dots, FLOATS);
            let own = of_pair(env, scales, rows);
            let of_all = env.b.shuffle(own, own, (0..LANES).map(|lane| lane % 4).collect());
            env.b.fma(exact, of_all, sum)
        };
        (0..).zip(sums).map(|(rows, sum)| of_rows(env, rows, *sum)).collect()
    }

    /// The scales of a group for the thread's rows: f32.
    fn scales(&self, env: &mut Env, at: &At) -> Val {
        let (rows, place) = (self.rows(), self.pair_at(env, 0));
        let beside = rows.copied_beside(at.sides, self.groups());
        let scales = rows.scales_at(env, place, beside, (at.group, 0)).expect("groups have scales");
        let scales = scales.load(env, Hint::None);
        rows.scales(env, scales)
    }
}

impl Form for WideIntegers {
    fn step(&self) -> usize {
        TOKEN_STEP
    }

    fn stage(&self) -> usize {
        (self.sides() + TILE_PANELS * self.side_step()).next_multiple_of(ALIGN)
    }

    fn shares(&self) -> Shares {
        SHARES
    }

    fn stages(&self) -> usize {
        STAGES
    }

    fn is_fenced(&self) -> bool {
        true
    }

    fn copies(&self, env: &mut Env, s: &Segment, tile: Tile, x: Val) -> Vec<Pieces> {
        let rows = Lines::of_tokens(tile, (x, self.x_stride), (TOKEN_STEP, 0), (&token_place, 8));
        let mut all = vec![rows.pieces(env)];
        let place = |env: &mut Env, _: Val, piece: Val| self.place(env, piece);
        let step = self.codes_step();
        let codes = PanelPart { offset: self.layout.codes(), step, to: (ALL_TOKENS, step) };
        all.push(Lines::of_panels(env, (s, tile), codes, (&place, 1)).pieces(env));
        let mut before = 0;
        for (offset, step, piece) in self.side_parts() {
            let part = PanelPart { offset, step, to: (self.sides() + before, self.side_step()) };
            let lines = Lines::of_panels(env, (s, tile), part, (&in_order, 1));
            all.push(Lines { piece, ..lines }.pieces(env));
            before += step;
        }
        all
    }

    /// A pair of rows and all columns in each.
    fn zeros(&self, env: &mut Env) -> Vec<Val> {
        let zero = if self.layout.is_row_scaled() { env.b.int(INTS, 0) } else { env.b.float(FLOATS, 0.0) };
        vec![zero; 2]
    }

    /// What stands beside the thread's panel; the table; and where its codes are, of each step for each plane.
    fn reads(&self, env: &mut Env, _s: &Segment, tile: Tile) -> Vec<Val> {
        let ((own, _), (odd, _)) = (SHARES.place(env), thread_rows(env));
        let panels = env.b.mul_const(own, SHARES.panels() as i64);
        let panel = env.b.add(panels, odd);
        let sides = env.b.mul_const(panel, self.side_step() as i64);
        let mut reads = vec![env.b.add_const(sides, self.sides() as i64), tile.table];
        let codes = env.b.mul_const(panel, self.codes_step() as i64);
        let codes = env.b.add_const(codes, ALL_TOKENS as i64);
        for number in 0..STEPS {
            let (row, step) = (Self::row(env), Self::step_of(env, number));
            let row = self.exchanged(env, row, step);
            let places = self.rows().step_offsets(env, (row, step));
            reads.extend(places.into_iter().map(|place| env.b.add(codes, place)));
        }
        reads
    }

    /// Groups one after the other: more of them at once would take more registers than there are.
    fn multiply(&self, env: &mut Env, (stage, _): (Val, Val), reads: &[Val], sums: &[Val]) -> Vec<Val> {
        let (lo, hi, one) = (env.b.index(0), env.b.index(self.groups()), env.b.index(1));
        if self.layout.is_row_scaled() {
            let at = self.at(env, stage, reads, lo);
            return self.whole(env, &at, sums);
        }
        env.for_carried((lo, hi, one), sums, |env, group, sums| {
            let at = self.at(env, stage, reads, group);
            self.scaled(env, &at, sums)
        })
    }

    fn finish(&self, env: &mut Env, s: &Segment, tile: Tile, x: Val, sums: Vec<Val>) -> Vec<Val> {
        let floats = |env: &mut Env, sum: Val| match self.layout.is_row_scaled() {
            true => env.b.cast(Cast::IntToFloat, sum, FLOATS),
            false => sum,
        };
        let sums: Vec<Val> = sums.into_iter().map(|sum| floats(env, sum)).collect();
        let columns = columns_of(env, &sums);
        let factors = self.column_scales(env, tile, x);
        let scales = panel_scales(env, (s, tile, SHARES), &self.layout, 0);
        let each = SHARES.columns();
        let of = |(i, sum): (usize, Val)| {
            let scales = scales.map(|scales| of_pair(env, scales, (i / each) as u16));
            let sum = scales.map_or(sum, |scales| env.b.mul(sum, scales));
            env.b.mul(sum, factors[i % each])
        };
        columns.into_iter().enumerate().map(of).collect()
    }

    fn table_bytes(&self) -> usize {
        QuantLayout::table_bytes(self.layout.scheme).unwrap_or(0)
    }

    /// Each of the first threads copies a table of 16 bytes.
    fn store_table(&self, env: &mut Env, to: Val, from: Val) {
        let end = env.b.index(self.table_bytes() / COPY);
        let mine = env.b.cmp(Cond::Lt, env.group.thread, end);
        env.if_then(mine, |env| {
            let [from, to] = [from, to].map(|base| env.at(base, env.group.thread, COPY));
            let table = env.b.load_with(WORDS, from, 0, COPY as u32, Hint::Constant);
            env.b.store_with(table, to, 0, COPY as u32);
        });
    }
}

impl WideIntegers {
    /// Where rows from `row` (i64) on of a step are: see [`Self::place`].
    fn exchanged(&self, env: &mut Env, row: Val, step: Val) -> Val {
        if self.layout.scheme.code_bits() < 8 {
            return row;
        }
        let (two, by) = (env.b.index(2), env.b.int(Ty::I64, 2));
        let odd = env.b.and(step, two);
        let flip = env.b.shl(odd, by);
        env.b.bin(BinOp::Xor, row, flip)
    }

    /// The scales of the tokens in each column: of those that do not exist the last one's.
    fn column_scales(&self, env: &mut Env, tile: Tile, x: Val) -> Vec<Val> {
        let (_, t) = thread_of(env);
        let two = env.b.mul_const(t, 2);
        let token = env.b.add(tile.token, two);
        let (last, at) = (env.b.add_const(tile.n, -1), ByteRow { k: self.layout.k }.scale() as i32);
        let scale = |env: &mut Env, more: usize| {
            let token = env.b.add_const(token, more as i64);
            let token = env.b.min(token, last);
            let row = env.at(x, token, self.x_stride);
            env.b.load(Ty::F32, row, at)
        };
        let of_column = |column: usize| {
            let both = [0, 1].map(|odd| scale(env, 8 * column + odd));
            super::integers::of_columns(env, both)
        };
        (0..SHARES.columns()).map(of_column).collect()
    }
}
