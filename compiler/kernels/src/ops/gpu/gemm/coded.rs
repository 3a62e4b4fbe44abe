//! Tiles of weights that become words of bf16 when they are multiplied: of binary16, and of codes that stand for floats.
//!
//! Sums of half a block are multiplied with the scale of its group, where groups have one: more of them would take more
//! registers than there are.

use super::copies::{COPY, Lines, PanelPart, Pieces, in_order};
use super::rows::{ROWS, panel_scales, thread_place};
use super::{ALONE, COLUMNS, Form, PANELS, Shares, TILE_PANELS, TILE_TOKENS, Tile, thread_rows, token_swizzled};
use crate::env::Env;
use crate::formats::WeightFormat;
use crate::formats::codes::BLOCK;
use crate::formats::float_rows::{self, FloatRows, QUARTERS, TABLE_BYTES};
use crate::formats::pairs::PairRows;
use crate::kir::{BinOp, Cond, Elem, Hint, Mma, Ty, Val};
use crate::ops::gpu::coded::raised;
use crate::ops::gpu::fragments::{of_pair, operand, thread_of};
use crate::ops::linear::Segment;
use llmc_ir::quant::Scheme;

/// Fewest blocks of k of a step.
const BLOCKS: usize = 2;
/// Bytes of a block of a token.
const TOKEN_BLOCK: usize = 2 * BLOCK;

const WORDS: Ty = Ty::vector(Elem::I32, 4);
const FLOATS: Ty = Ty::vector(Elem::F32, 4);

/// Products of such weights.
#[derive(Clone, Copy)]
pub(super) struct Coded {
    rows: FloatRows,
    /// Blocks of k of a step: whole groups.
    blocks: usize,
    /// Bytes from one row of x to the next.
    x_stride: usize,
}

/// Where a thread reads a block of a stage.
struct At {
    /// Its two k of the first quarter of the first panel.
    codes: [Val; 2],
    /// Scales of its first panel.
    scales: Val,
    /// The block's group in the step: i64.
    group: Val,
    /// The words of x of each column.
    x: Vec<Val>,
    table: Val,
}

impl Coded {
    pub(super) fn new(format: WeightFormat, k: usize, x_stride: usize) -> Coded {
        let rows = FloatRows { format, k, count: ROWS };
        Coded { rows, blocks: rows.group_blocks().unwrap_or(1).max(BLOCKS), x_stride }
    }

    /// What scales are, where groups have some, and bytes of a panel's in a step.
    fn scaled(&self) -> Option<(PairRows, usize)> {
        let layout = self.rows.layout()?;
        let (_, bytes) = layout.group_scales()?;
        Some((PairRows { layout, count: ROWS }, self.groups() * bytes))
    }

    /// Groups of a step.
    fn groups(&self) -> usize {
        self.blocks / self.rows.group_blocks().unwrap_or(self.blocks)
    }

    fn scales_step(&self) -> usize {
        self.scaled().map_or(0, |(_, bytes)| bytes)
    }

    fn codes_step(&self) -> usize {
        self.blocks * self.rows.block_bytes()
    }

    fn token_step(&self) -> usize {
        self.blocks * TOKEN_BLOCK
    }

    /// Offsets in a stage of scales and of rows of x, behind the codes.
    fn places(&self) -> (usize, usize) {
        let scales = TILE_PANELS * self.codes_step();
        (scales, scales + TILE_PANELS * self.scales_step())
    }

    /// The place of piece `piece` (i64) of a panel's codes, so that a warp's reads fall into different banks: the two k of
    /// a thread are exchanged in every second panel, or in every second half of a quarter.
    fn code_place(&self, env: &mut Env, panel: Val, piece: Val) -> Val {
        let one = env.b.index(1);
        let flip = match self.rows.format {
            WeightFormat::Quant(Scheme::Fp8) => env.b.and(panel, one),
            WeightFormat::F16 => {
                let (upper, by) = (env.b.index(8), env.b.index(2));
                let upper = env.b.and(piece, upper);
                env.b.lshr(upper, by)
            }
            _ => return piece,
        };
        env.b.bin(BinOp::Xor, piece, flip)
    }

    /// The places of this thread's two k in a quarter: see [`Self::code_place`].
    fn code_places(&self, env: &mut Env) -> [Val; 2] {
        let (at, one) = (thread_place(env), env.b.index(1));
        let [first, second] = self.rows.places(env, at);
        let odd = match self.rows.format {
            WeightFormat::Quant(Scheme::Fp8) => thread_rows(env).0,
            WeightFormat::F16 => env.b.lshr(at.part, one),
            _ => return [first, second],
        };
        let exchanged = env.b.cmp(Cond::Eq, odd, one);
        [env.b.select(exchanged, second, first), env.b.select(exchanged, first, second)]
    }

    fn at(&self, env: &mut Env, stage: Val, reads: &[Val], block: Val) -> At {
        let [first, second, scales, line, turn, table] = *reads else { unreachable!("reads are six") };
        let of_block = env.b.mul_const(block, self.rows.block_bytes() as i64);
        let base = env.b.ptr_add(stage, of_block);
        let codes = [first, second].map(|offset| env.b.ptr_add(base, offset));
        let [scales, line] = [scales, line].map(|offset| env.b.ptr_add(stage, offset));
        let place = env.b.bin(BinOp::Xor, turn, block);
        let own = env.at(line, place, TOKEN_BLOCK);
        let load = |c: usize| env.b.load_with(WORDS, own, (8 * c * self.token_step()) as i32, 16, Hint::None);
        let x = (0..COLUMNS).map(load).collect();
        let size = env.b.index(self.rows.group_blocks().unwrap_or(1));
        At { codes, scales, group: env.b.div(block, size), x, table }
    }

    /// The words of half a block of a pair of panels as sums of words: of its first and its second quarter.
    fn half(&self, env: &mut Env, at: &At, (pair, half): (usize, usize)) -> Vec<(Val, Val)> {
        let place = thread_place(env);
        let [low, high] = [0, 1].map(|quarter| {
            let quarter = QUARTERS / 2 * half + quarter;
            let offset = 2 * pair * self.codes_step() + quarter * self.rows.quarter_bytes();
            let loaded = at.codes.map(|codes| self.rows.load(env, codes, offset));
            self.rows.pairs(env, place, loaded, Some(at.table))
        });
        low.into_iter().zip(high).collect()
    }

    /// Scales of the group of a pair of panels, where groups have some: f32 of the thread's rows.
    fn scales(&self, env: &mut Env, at: &At, pair: usize) -> Option<Val> {
        let (rows, step) = self.scaled()?;
        let (place, base) = (thread_place(env), env.b.ptr_add_const(at.scales, 2 * pair * step));
        let beside = rows.copied_beside(base, self.groups());
        let stored = rows.scales_at(env, place, beside, (at.group, 0))?.load(env, Hint::None);
        Some(rows.scales(env, stored))
    }

    /// Adds the products of a block.
    fn block(&self, env: &mut Env, at: &At, sums: &mut [Val]) {
        for (pair, sums) in sums.chunks_mut(2 * COLUMNS).enumerate() {
            let scales = self.scales(env, at, pair);
            for half in 0..2 {
                let words = self.half(env, at, (pair, half));
                let lanes = vec![2 * half as u16, 2 * half as u16 + 1];
                let x: Vec<Val> = at.x.iter().map(|x| env.b.shuffle(*x, *x, lanes.clone())).collect();
                for (rows, sums) in sums.chunks_mut(COLUMNS).enumerate() {
                    let a: Vec<Val> = words.iter().map(|(low, high)| operand(env, *low, *high, rows as u16)).collect();
                    let scale = scales.map(|scales| of_pair(env, scales, rows as u16));
                    sums.iter_mut().zip(&x).for_each(|(sum, x)| *sum = self.add(env, (&a, *x), scale, *sum));
                }
            }
        }
    }

    /// Adds the products of a sum of words with words of x.
    fn add(&self, env: &mut Env, (a, x): (&[Val], Val), scale: Option<Val>, sum: Val) -> Val {
        let begin = if scale.is_some() { env.b.float(FLOATS, 0.0) } else { sum };
        let dot = a.iter().fold(begin, |dot, a| env.b.mma(Mma::Bf16, dot, *a, x));
        scale.map_or(dot, |scale| env.b.fma(dot, scale, sum))
    }
}

impl Form for Coded {
    fn step(&self) -> usize {
        self.blocks * BLOCK
    }

    fn stage(&self) -> usize {
        self.places().1 + TILE_TOKENS * self.token_step()
    }

    fn copies(&self, env: &mut Env, s: &Segment, tile: Tile, x: Val) -> Vec<Pieces> {
        let (scales, rows) = self.places();
        let place = |env: &mut Env, panel: Val, piece: Val| self.code_place(env, panel, piece);
        let codes = PanelPart { offset: self.rows.first(), step: self.codes_step(), to: (0, self.codes_step()) };
        let mut all = vec![Lines::of_panels(env, (s, tile), codes, (&place, 2)).pieces(env)];
        if let Some((of, step)) = self.scaled() {
            let offset = of.layout.group_scales().map_or(0, |(offset, _)| offset);
            let part = PanelPart { offset, step, to: (scales, step) };
            all.push(Lines::of_panels(env, (s, tile), part, (&in_order, 1)).pieces(env));
        }
        let (x, to) = ((x, self.x_stride), (self.token_step(), rows));
        all.push(Lines::of_tokens(tile, x, to, (&token_swizzled, 2)).pieces(env));
        all
    }

    fn zeros(&self, env: &mut Env) -> Vec<Val> {
        vec![env.b.float(FLOATS, 0.0); PANELS * COLUMNS]
    }

    /// The first panel's two k, its scales, the words of a token and which of each two blocks comes first there, and the
    /// table.
    fn reads(&self, env: &mut Env, _s: &Segment, tile: Tile) -> Vec<Val> {
        let ((half, quarter), (row, t), (panel, _)) = (ALONE.place(env), thread_of(env), thread_rows(env));
        let (scales, rows) = self.places();
        let panels = env.b.mul_const(half, PANELS as i64);
        let panel = env.b.add(panels, panel);
        let run = env.b.mul_const(panel, self.codes_step() as i64);
        let codes = self.code_places(env).map(|place| env.b.add(run, place));
        let own = env.b.mul_const(panel, self.scales_step() as i64);
        let scales = env.b.add_const(own, scales as i64);
        let token = env.b.mul_const(quarter, ALONE.tokens() as i64);
        let token = env.b.add(token, row);
        let line = env.b.mul_const(token, self.token_step() as i64);
        let piece = env.b.mul_const(t, COPY as i64);
        let line = env.b.add(line, piece);
        let line = env.b.add_const(line, rows as i64);
        let one = env.b.index(1);
        vec![codes[0], codes[1], scales, line, env.b.and(token, one), tile.table]
    }

    /// A block after another, so that fewer registers are needed at once.
    fn multiply(&self, env: &mut Env, (stage, _): (Val, Val), reads: &[Val], sums: &[Val]) -> Vec<Val> {
        let (lo, hi, one) = (env.b.index(0), env.b.index(self.blocks), env.b.index(1));
        env.for_carried((lo, hi, one), sums, |env, block, sums| {
            let at = self.at(env, stage, reads, block);
            let mut sums = sums.to_vec();
            self.block(env, &at, &mut sums);
            sums
        })
    }

    fn finish(&self, env: &mut Env, s: &Segment, tile: Tile, _x: Val, sums: Vec<Val>) -> Vec<Val> {
        times_scales(env, (s, tile, ALONE), &self.rows, sums)
    }

    fn table_bytes(&self) -> usize {
        if self.rows.has_levels() { TABLE_BYTES } else { 0 }
    }

    fn store_table(&self, env: &mut Env, to: Val, from: Val) {
        float_rows::store_table(env, to, from);
    }
}

/// Sums times the scales of their rows, where rows have one, and what weights were smaller by.
pub(super) fn times_scales(
    env: &mut Env,
    of: (&Segment, Tile, Shares),
    rows: &FloatRows,
    mut sums: Vec<Val>,
) -> Vec<Val> {
    let (columns, Some(layout)) = (of.2.columns(), rows.layout()) else { return sums };
    for (pair, sums) in sums.chunks_mut(2 * columns).enumerate() {
        let Some(scales) = panel_scales(env, of, &layout, pair) else { continue };
        for (half, sums) in sums.chunks_mut(columns).enumerate() {
            let scales = of_pair(env, scales, half as u16);
            for sum in sums {
                let raised = raised(env, rows, *sum);
                *sum = env.b.mul(raised, scales);
            }
        }
    }
    sums
}
