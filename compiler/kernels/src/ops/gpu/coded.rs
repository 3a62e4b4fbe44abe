//! A warp's part of a product of weights that become words of bf16 when they are multiplied, by the matrix unit: of
//! binary16, and of codes that stand for floats.
//!
//! Scales of groups multiply the groups' sums, which are then added up in ascending order; scales of rows multiply what
//! the warps have added up.

use super::division::{Division, existing};
use super::fragments::{Ahead, Columns, Panels, Round, first_row, of_pair, operand, thread_of};
use super::ring::Runs;
use super::rows::Staged;
use crate::env::{Env, WARP};
use crate::formats::WeightFormat;
use crate::formats::at::Side;
use crate::formats::codes::BLOCK;
use crate::formats::float_rows::{FloatRows, QUARTERS, TABLE_BYTES};
use crate::formats::pairs::{PairAt, PairRows};
use crate::kir::{Elem, Hint, Mma, Ty, Val};

/// Bytes of weights that a thread takes in a round, if groups are not larger.
const ROUND: usize = 64;
/// bf16 of a block that a thread has.
const WORDS: Ty = Ty::vector(Elem::I32, 4);
const FLOATS: Ty = Ty::vector(Elem::F32, 4);

/// A warp's part of the product.
#[derive(Clone, Copy, Debug)]
pub struct Coded {
    /// Its rows of a panel.
    rows: FloatRows,
    /// Panels of a tile: 1 or 2.
    panels: usize,
    /// Groups of k. What has no scales for them has groups of a block.
    share: Division,
}

impl Coded {
    /// The division of `k` among `warps` warps for tiles of `panels` panels.
    pub fn new(format: WeightFormat, k: usize, panels: usize, warps: usize) -> Coded {
        let rows = FloatRows { format, k, count: 2 * panels as u16 };
        let size = rows.group_blocks().unwrap_or(1);
        let group_bytes = size * rows.block_bytes() * panels / WARP;
        Coded { rows, panels, share: Division::new((rows.blocks(), size), warps, ROUND / group_bytes) }
    }

    /// Bytes of a table before the staged rows.
    pub fn table_bytes(&self) -> usize {
        if self.rows.has_levels() { TABLE_BYTES } else { 0 }
    }

    /// This thread's place in a panel.
    fn at(&self, env: &mut Env) -> PairAt {
        let part = thread_of(env).1;
        PairAt { row: first_row(env, self.panels), part }
    }

    /// What its rows' scales are, where groups have some.
    fn scaled(&self) -> Option<PairRows> {
        self.rows.group_blocks()?;
        self.rows.layout().map(|layout| PairRows { layout, count: self.rows.count })
    }

    fn run_bytes(&self) -> usize {
        self.share.round_blocks() * self.rows.block_bytes()
    }

    /// Whether some of what the warps go over does not exist.
    fn is_ragged(&self, warps: usize) -> bool {
        self.share.is_ragged(warps) || self.rows.layout().is_none() && !self.rows.k.is_multiple_of(BLOCK)
    }

    fn panel_bytes(&self) -> usize {
        self.rows.format.panel_bytes(self.rows.k)
    }

    /// Adds the products of a block, of which `codes` are the thread's and `words` its part of x.
    fn block(&self, env: &mut Env, at: PairAt, codes: &[Val], (words, table): (Val, Option<Val>), sums: &mut [Val]) {
        for half in 0..2 {
            let b = env.b.shuffle(words, words, vec![2 * half, 2 * half + 1]);
            let of_half = &codes[usize::from(half) * QUARTERS..][..QUARTERS];
            let [low, high] =
                [0, 2].map(|quarter| self.rows.pairs(env, at, [of_half[quarter], of_half[quarter + 1]], table));
            for (low, high) in low.into_iter().zip(high) {
                for (pair, sum) in sums.iter_mut().enumerate() {
                    let a = operand(env, low, high, pair as u16);
                    *sum = env.b.mma(Mma::Bf16, *sum, a, b);
                }
            }
        }
    }

    /// Adds the products of a group of a round.
    fn group(&self, env: &mut Env, group: usize, round: &Round<'_>, words: Val, sums: &[Val]) -> Vec<Val> {
        let (at, loads) = (self.at(env), 2 * QUARTERS);
        let mut dots = if self.scaled().is_some() { self.zero(env) } else { sums.to_vec() };
        for block in 0..self.share.size {
            let block = group * self.share.size + block;
            let words = env.b.load_with(WORDS, words, (block * BLOCK * 2) as i32, 16, Hint::None);
            self.block(env, at, &round.codes[block * loads..][..loads], (words, round.x.table), &mut dots);
        }
        let Some(rows) = self.scaled() else { return dots };
        let scales = rows.scales(env, round.side[group]);
        let add = |(pair, (dot, sum)): (usize, (&Val, &Val))| {
            let scale = of_pair(env, scales, pair as u16);
            env.b.fma(*dot, scale, *sum)
        };
        dots.iter().zip(sums).enumerate().map(add).collect()
    }

    /// The product of a whole row of weights from the sum over all warps: `row` is its number in the panel at `panel`.
    pub fn finish(&self, env: &mut Env, sum: Val, (panel, row): (Val, Val)) -> Val {
        let sum = raised(env, &self.rows, sum);
        let scale = self.rows.layout().and_then(|layout| layout.row_scale(&mut env.b, panel, Some(row)));
        scale.map_or(sum, |scale| env.b.mul(sum, scale))
    }
}

/// Sums of products with the words of such rows, without what the words are smaller by.
pub fn raised(env: &mut Env, rows: &FloatRows, sums: Val) -> Val {
    let Some(raise) = rows.raise() else { return sums };
    let raise = env.b.float(env.b.ty(sums), raise);
    env.b.mul(sums, raise)
}

impl Ahead for Coded {
    fn padded(&self, warps: usize) -> usize {
        self.share.padded(warps)
    }

    fn rounds(&self) -> usize {
        self.share.rounds()
    }

    fn runs(&self, warps: usize) -> Runs {
        let end = self.is_ragged(warps).then(|| self.panel_bytes());
        let scales = match (end, self.scaled()) {
            (None, Some(rows)) => rows.layout.group_scales().map_or(0, |(_, bytes)| self.share.unroll * bytes),
            _ => 0,
        };
        Runs { bytes: self.run_bytes(), count: self.panels, sides: [scales, 0], end }
    }

    fn first(&self) -> usize {
        self.rows.first()
    }

    fn start(&self, env: &mut Env, round: Val) -> Val {
        let group = self.share.first_group(env, round);
        let codes = env.b.mul_const(group, (self.share.size * self.rows.block_bytes()) as i64);
        env.b.add_const(codes, self.rows.first() as i64)
    }

    fn take(&self, env: &mut Env, run: Val) -> Vec<Val> {
        let at = self.at(env);
        let own = self.rows.places(env, at).map(|place| env.b.ptr_add(run, place));
        let mut out = Vec::new();
        for quarter in 0..self.share.round_blocks() * QUARTERS {
            out.extend(own.map(|at| self.rows.load(env, at, quarter * self.rows.quarter_bytes())));
        }
        out
    }

    fn take_sides(&self, env: &mut Env, run: Val) -> Vec<Val> {
        let Some(rows) = self.scaled() else { return vec![] };
        let (at, first) = (self.at(env), env.b.index(0));
        let base = env.b.ptr_add_const(run, self.run_bytes());
        let beside = rows.copied_beside(base, self.share.unroll);
        let sides: Vec<Side> =
            (0..self.share.unroll).filter_map(|more| rows.scales_at(env, at, beside, (first, more))).collect();
        sides.into_iter().map(|side| side.load(env, Hint::None)).collect()
    }

    fn has_sides(&self) -> bool {
        self.scaled().is_some()
    }

    fn side_runs(&self, env: &mut Env, round: Val) -> Vec<(Val, usize)> {
        let Some((first, bytes)) = self.scaled().and_then(|rows| rows.layout.group_scales()) else { return vec![] };
        let (number, bytes) = (self.share.number(env, round), self.share.unroll * bytes);
        let at = env.b.mul_const(number, bytes as i64);
        vec![(env.b.add_const(at, first as i64), bytes)]
    }

    fn sides(&self, env: &mut Env, tile: Panels, round: Val) -> Vec<Side> {
        let Some(rows) = self.scaled() else { return vec![] };
        let (at, group) = (self.at(env), self.share.first_group(env, round));
        let (panel, ragged) = (tile.pick(env), self.is_ragged(env.group.warps()));
        let beside = rows.beside(panel);
        let of_group = |more: usize| {
            let place = if ragged { (existing(env, group, more, self.share.groups()), 0) } else { (group, more) };
            rows.scales_at(env, at, beside, place)
        };
        (0..self.share.unroll).filter_map(of_group).collect()
    }

    fn columns(&self, env: &mut Env, x: Val, staged: Staged, columns: Val) -> Columns {
        let (row, t) = thread_of(env);
        let last = env.b.add_const(columns, -1);
        let column = env.b.min(row, last);
        let row = env.at(x, column, staged.stride(self.padded(env.group.warps())));
        let row = env.at(row, env.group.warp, self.share.of_warp * self.share.group_k() * 2);
        let table = self.rows.has_levels().then(|| {
            let before = env.b.int(Ty::I64, -(TABLE_BYTES as i64));
            env.b.ptr_add(x, before)
        });
        Columns { words: env.at(row, t, 16), sums: vec![], table }
    }

    fn zero(&self, env: &mut Env) -> Vec<Val> {
        let zero = env.b.float(FLOATS, 0.0);
        vec![zero; self.panels]
    }

    fn multiply(&self, env: &mut Env, round: Round<'_>, sums: &[Val]) -> Vec<Val> {
        let words = env.at(round.x.words, round.number, self.share.round_blocks() * BLOCK * 2);
        (0..self.share.unroll).fold(sums.to_vec(), |sums, group| self.group(env, group, &round, words, &sums))
    }
}
