//! Quantized weights and rows of 8-bit integers. Sums are integers, which begin with zero: of a whole row where it has one
//! scale, else of a group, and then added up in f32 in ascending order.

use super::super::copies::{COPY, Lines, PanelPart, Pieces, in_order};
use super::super::integers::of_columns;
use super::super::rows::panel_scales;
use super::super::{Form, TILE_PANELS, TILE_TOKENS, TOGETHER, Tile, thread_rows};
use super::weights::{At, BLOCKS, STEPS, Weights};
use super::{ALIGN, LANES, LINE, columns_of, token_place};
use crate::env::Env;
use crate::formats::codes::BLOCK;
use crate::formats::quant::QuantLayout;
use crate::kir::{Cast, Elem, Mma, Ty, Val};
use crate::ops::byte_rows::ByteRow;
use crate::ops::gpu::fragments::{of_pair, operand, thread_of};
use crate::ops::linear::Segment;
use llmc_ir::quant::Scheme;

/// Bytes of a step of all tokens, which begin a stage.
const ALL_TOKENS: usize = TILE_TOKENS * LINE;
const INTS: Ty = Ty::vector(Elem::I32, LANES);
const FLOATS: Ty = Ty::vector(Elem::F32, LANES);

/// Products of quantized weights.
pub(in super::super) struct WideIntegers {
    layout: QuantLayout,
    weights: Weights,
    /// Bytes from one row of x to the next.
    x_stride: usize,
}

impl WideIntegers {
    /// If there are whole steps of whole groups.
    pub(in super::super) fn new(scheme: Scheme, k: usize, x_stride: usize) -> Option<WideIntegers> {
        let layout = QuantLayout { scheme, k };
        let whole = layout.is_row_scaled() || BLOCKS.is_multiple_of(layout.group_blocks());
        let form = WideIntegers { layout, weights: Weights { layout }, x_stride };
        (!scheme.is_float() && whole && k.is_multiple_of(LINE)).then_some(form)
    }

    fn codes_step(&self) -> usize {
        BLOCKS * self.layout.block_bytes()
    }

    /// Where in a panel what stands beside codes begins, bytes of a step, and of a copy: scales and zero points of groups,
    /// or numbers of tables.
    fn side_parts(&self) -> Vec<(usize, usize, usize)> {
        let of_groups = [self.layout.group_scales(), self.layout.group_zeros()].into_iter().flatten();
        let of_groups = of_groups.map(|(offset, bytes)| (offset, self.weights.groups() * bytes, COPY));
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

    fn at(&self, env: &mut Env, stage: Val, reads: &[Val], group: Val) -> At {
        let [sides, table, ref codes @ ..] = *reads else { unreachable!("reads are two and more") };
        let columns = env.at(stage, group, self.weights.size() * BLOCK);
        let first = env.at(stage, group, self.weights.size() * self.layout.block_bytes());
        let codes = codes.iter().map(|offset| env.b.ptr_add(first, *offset)).collect();
        At { codes, columns, sides: env.b.ptr_add(stage, sides), table, group }
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
        let (mut sums, mut kept, bias) = (sums.to_vec(), Vec::new(), self.weights.bias(env, at));
        for block in 0..BLOCKS {
            let weights = self.weights.bytes(env, at, block, bias);
            for (rows, sum) in (0..).zip(&mut sums) {
                *sum = Self::add(env, at, (block, weights), (rows, *sum), &mut kept);
            }
        }
        sums.into_iter().map(|sum| env.b.wgmma_wait(sum, kept.clone())).collect()
    }

    /// Adds a group's products times its scales. Weights are taken anew for each pair of rows: they would take registers
    /// for the sums of the other one.
    fn scaled(&self, env: &mut Env, at: &At, sums: &[Val]) -> Vec<Val> {
        let bias = self.weights.bias(env, at);
        let scales = self.weights.scales(env, at);
        let of_rows = |env: &mut Env, rows: u16, sum: Val| {
            let (mut dots, mut kept) = (env.b.int(INTS, 0), Vec::new());
            for block in 0..self.weights.size() {
                let weights = self.weights.bytes(env, at, block, bias);
                dots = Self::add(env, at, (block, weights), (rows, dots), &mut kept);
            }
            let dots = env.b.wgmma_wait(dots, kept);
            let exact = env.b.cast(Cast::IntToFloat, dots, FLOATS);
            let own = of_pair(env, scales, rows);
            let of_all = env.b.shuffle(own, own, (0..LANES).map(|lane| lane % 4).collect());
            env.b.fma(exact, of_all, sum)
        };
        (0..).zip(sums).map(|(rows, sum)| of_rows(env, rows, *sum)).collect()
    }
}

impl Form for WideIntegers {
    fn step(&self) -> usize {
        LINE
    }

    fn stage(&self) -> usize {
        (self.sides() + TILE_PANELS * self.side_step()).next_multiple_of(ALIGN)
    }

    fn is_wide(&self) -> bool {
        true
    }

    fn copies(&self, env: &mut Env, s: &Segment, tile: Tile, x: Val) -> Vec<Pieces> {
        let rows = Lines::of_tokens(tile, (x, self.x_stride), (LINE, 0), (&token_place, 8));
        let mut all = vec![rows.pieces(env)];
        let place = |env: &mut Env, _: Val, piece: Val| self.weights.place(env, piece);
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
        let ((own, _), (odd, _)) = (TOGETHER.place(env), thread_rows(env));
        let panels = env.b.mul_const(own, TOGETHER.panels() as i64);
        let panel = env.b.add(panels, odd);
        let sides = env.b.mul_const(panel, self.side_step() as i64);
        let mut reads = vec![env.b.add_const(sides, self.sides() as i64), tile.table];
        let codes = env.b.mul_const(panel, self.codes_step() as i64);
        let codes = env.b.add_const(codes, ALL_TOKENS as i64);
        reads.extend(self.weights.offsets(env).into_iter().map(|offset| env.b.add(codes, offset)));
        reads
    }

    /// Groups one after the other: more of them at once would take more registers than there are.
    fn multiply(&self, env: &mut Env, (stage, _): (Val, Val), reads: &[Val], sums: &[Val]) -> Vec<Val> {
        let (lo, hi, one) = (env.b.index(0), env.b.index(self.weights.groups()), env.b.index(1));
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
        let scales = panel_scales(env, (s, tile, TOGETHER), &self.layout, 0);
        let each = TOGETHER.columns();
        let of = |(i, sum): (usize, Val)| {
            let scales = scales.map(|scales| of_pair(env, scales, (i / each) as u16));
            let sum = scales.map_or(sum, |scales| env.b.mul(sum, scales));
            env.b.mul(sum, factors[i % each])
        };
        columns.into_iter().enumerate().map(of).collect()
    }

    fn table_bytes(&self) -> usize {
        self.weights.table_bytes()
    }

    fn store_table(&self, env: &mut Env, to: Val, from: Val) {
        self.weights.store_table(env, to, from);
    }
}

impl WideIntegers {
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
            of_columns(env, both)
        };
        (0..TOGETHER.columns()).map(of_column).collect()
    }
}
