//! A warp's part of a product of quantized weights with rows of 8-bit integers, by the matrix unit.
//!
//! Products of a group of k are summed in integers, which begin with what takes the codes' offset out of them;
//! groups with scales of their own are added up in f32 in ascending order. Where a whole row has one scale
//! sums stay integers over all warps and become f32 once, at the end.

mod spread;

use super::byte_rows::ByteSums;
use super::division::{Division, existing};
use super::fragments::{self, Ahead, Columns, Panels, Round, first_row, of_pair, operand, thread_of};
use super::ring::Runs;
use super::rows::{Staged, each};
use crate::env::{Env, WARP};
use crate::formats::at::Side;
use crate::formats::codes::BLOCK;
use crate::formats::pairs::{PairAt, PairRows};
use crate::formats::quant::QuantLayout;
use crate::kir::{Cast, Elem, Hint, Mma, Ty, Val};
use crate::ops::product::CodedWeights;

/// Bytes of weights that a thread takes in a round, if groups are not larger.
const ROUND: usize = 64;

/// Bytes that are copied at once.
const PIECE: usize = 16;

/// A warp's part of the product.
#[derive(Clone, Copy, Debug)]
pub struct Integers {
    /// The weights.
    pub layout: QuantLayout,
    /// Table of values in the call's weights, where the scheme has one.
    pub table: Option<usize>,
    /// Panels of a tile: 1 or 2.
    pub panels: usize,
    /// Groups of k. What has one scale for the row has groups of a block.
    share: Division,
    /// Whether each group of a round has a column of the product for itself.
    spread: bool,
}

const FLOATS: Ty = Ty::vector(Elem::F32, 4);
const INTS: Ty = Ty::vector(Elem::I32, 4);

impl Integers {
    /// The division of k among `warps` warps for tiles of `panels` panels.
    ///
    /// With `single` there is one column of x: groups with scales of their own then take a column each.
    pub fn new(
        layout: QuantLayout,
        weights: Option<CodedWeights>,
        panels: usize,
        (warps, single): (usize, bool),
    ) -> Integers {
        let table = weights.and_then(|w| w.table);
        let size = layout.scaled_blocks();
        let group_bytes = size * layout.block_bytes() * panels / WARP;
        let wide = single && (!layout.is_row_scaled() || table.is_some());
        let bytes = if wide { 2 * ROUND } else { ROUND };
        let share = Division::new((layout.blocks(), size), warps, bytes / group_bytes);
        let spread = single && !layout.is_row_scaled() && !share.is_ragged(warps);
        Integers { layout, table, panels, share, spread }
    }

    /// Whether sums stay integers to the end of a row.
    fn is_row_scaled(&self) -> bool {
        self.layout.is_row_scaled()
    }

    /// Blocks of a group.
    fn size(&self) -> usize {
        self.share.size
    }

    /// Elements of k of a group.
    fn group_k(&self) -> usize {
        self.share.group_k()
    }

    /// What is stored beside the integers of x.
    pub fn sums(&self) -> ByteSums {
        let group = (!self.is_row_scaled()).then(|| self.group_k());
        // A zero point is a factor of its own.
        let offset = if self.layout.has_zeros() { 1 } else { self.layout.offset() };
        ByteSums { group, factor: -offset }
    }

    /// What sums are.
    pub fn sum_elem(&self) -> Elem {
        if self.is_row_scaled() { Elem::I32 } else { Elem::F32 }
    }

    fn rows(&self) -> PairRows {
        PairRows { layout: self.layout, count: 2 * self.panels as u16 }
    }

    /// This thread's place in a panel.
    fn at(&self, env: &mut Env) -> PairAt {
        let part = thread_of(env).1;
        PairAt { row: first_row(env, self.panels), part }
    }

    /// Vectors of a group's codes.
    fn vectors_of_group(&self) -> usize {
        self.size() * self.rows().loads()
    }

    /// The other values of a group: a table's number for each block, scales, zero points.
    fn sides_of_group(&self) -> usize {
        let tables = if self.table.is_some() { self.size() } else { 0 };
        tables + usize::from(!self.is_row_scaled()) + usize::from(self.layout.has_zeros())
    }

    /// Bytes of a panel's codes in a round.
    fn run_bytes(&self) -> usize {
        self.share.round_blocks() * self.layout.block_bytes()
    }

    /// Adds the products of a group, whose number in the warp's part is `k`.
    fn group(
        &self,
        env: &mut Env,
        at: PairAt,
        (codes, side): (&[Val], &[Val]),
        (x, k): (&Columns, (Val, usize)),
        sums: &[Val],
    ) -> Vec<Val> {
        let (tables, side) = side.split_at(if self.table.is_some() { self.size() } else { 0 });
        let mut dots = if self.is_row_scaled() { sums.to_vec() } else { self.begin(env, x, k, side) };
        let words = env.at(x.words, k.0, self.group_k());
        for (block, codes) in codes.chunks(self.rows().loads()).enumerate() {
            let offset = (k.1 * self.group_k() + block * BLOCK) as i32;
            let b = env.b.load_with(Ty::vector(Elem::I32, 2), words, offset, 8, Hint::None);
            let number = tables.get(block).copied();
            let [low, high] = self.codes(env, at, codes, number.zip(x.table));
            for (pair, dot) in dots.iter_mut().enumerate() {
                let a = operand(env, low, high, pair as u16);
                *dot = env.b.mma(Mma::U8S8, *dot, a, b);
            }
        }
        if self.is_row_scaled() { dots } else { self.scaled(env, side[0], &dots, sums) }
    }

    /// The codes of the thread's two steps of a block, or what the table of a number, of those at an address, has for
    /// them.
    fn codes(&self, env: &mut Env, at: PairAt, loaded: &[Val], table: Option<(Val, Val)>) -> [Val; 2] {
        let codes = self.rows().steps(env, loaded, at);
        let Some((number, tables)) = table else { return codes };
        self.rows().look_up(env, at, (tables, Hint::None), number, codes)
    }

    /// Bytes of the tables that values are looked up in, which stand before the staged rows.
    pub fn table_bytes(&self) -> usize {
        self.table.and_then(|_| QuantLayout::table_bytes(self.layout.scheme)).unwrap_or(0)
    }

    /// Stores the tables, which are at `from` in the weights, at `to`.
    pub fn store_table(&self, env: &mut Env, to: Val, from: Val) {
        each(env, 0..self.table_bytes() / PIECE, |env, i| {
            let (from, to) = (env.at(from, i, PIECE), env.at(to, i, PIECE));
            let v = env.b.load_with(INTS, from, 0, PIECE as u32, Hint::Constant);
            env.b.store_with(v, to, 0, PIECE as u32);
        });
    }

    /// What the sums of a group begin with: the sum of its integers times the offset or zero point, negative.
    fn begin(&self, env: &mut Env, x: &Columns, (first, more): (Val, usize), side: &[Val]) -> Vec<Val> {
        let columns: Vec<Val> = x
            .sums
            .iter()
            .map(|sums| {
                let at = env.at(*sums, first, 4);
                env.b.load(Ty::I32, at, 4 * more as i32)
            })
            .collect();
        let none = env.b.int(INTS, 0);
        let both = (0..4).fold(none, |v, lane| env.b.insert(v, lane, columns[usize::from(lane) % 2]));
        let Some(zeros) = side.get(1) else { return vec![both; self.panels] };
        let zeros = self.rows().zeros(env, *zeros);
        (0..self.panels as u16)
            .map(|pair| {
                let zeros = of_pair(env, zeros, pair);
                env.b.mul(both, zeros)
            })
            .collect()
    }

    /// Adds a group's sums, times the rows' scales.
    fn scaled(&self, env: &mut Env, scales: Val, dots: &[Val], sums: &[Val]) -> Vec<Val> {
        let scales = self.rows().scales(env, scales);
        let add = |(pair, (dot, sum)): (usize, (&Val, &Val))| {
            let exact = env.b.cast(Cast::IntToFloat, *dot, FLOATS);
            let scale = of_pair(env, scales, pair as u16);
            env.b.fma(exact, scale, *sum)
        };
        dots.iter().zip(sums).enumerate().map(add).collect()
    }

    /// The product of a whole row of weights and the staged row at `x`, from the sum over all warps: `row` is
    /// its number in the panel at `panel`.
    pub fn finish(&self, env: &mut Env, sum: Val, (panel, row): (Val, Val), x: Val) -> Val {
        let k = self.padded(env.group.warps());
        let sum = match self.is_row_scaled() {
            true => {
                let less = env.b.load(Ty::I32, x, self.sums().sums(k) as i32);
                let exact = env.b.add(sum, less);
                env.b.cast(Cast::IntToFloat, exact, Ty::F32)
            }
            false => sum,
        };
        let sum = match self.layout.row_scale(&mut env.b, panel, Some(row)) {
            Some(scale) => env.b.mul(sum, scale),
            None => sum,
        };
        let scale = env.b.load(Ty::F32, x, self.sums().scale(k) as i32);
        env.b.mul(sum, scale)
    }
}

impl Ahead for Integers {
    fn padded(&self, warps: usize) -> usize {
        self.share.padded(warps)
    }

    fn rounds(&self) -> usize {
        self.share.rounds()
    }

    fn runs(&self, warps: usize) -> Runs {
        let end = self.share.is_ragged(warps).then(|| self.layout.panel_bytes());
        let regions = match self.layout.table_numbers() {
            None => [self.layout.group_scales(), self.layout.group_zeros()],
            numbers => [numbers, None],
        };
        let bytes = |(_, of_group): (usize, usize)| self.share.unroll * of_group;
        let whole = |region: &(usize, usize)| (region.0 | bytes(*region)).is_multiple_of(PIECE);
        let copied = end.is_none() && regions.iter().flatten().all(whole);
        let sides = regions.map(|region| region.filter(|_| copied).map_or(0, bytes));
        Runs { bytes: self.run_bytes(), count: self.panels, sides, end }
    }

    fn first(&self) -> usize {
        self.layout.codes()
    }

    fn start(&self, env: &mut Env, round: Val) -> Val {
        let group = self.share.first_group(env, round);
        let codes = env.b.mul_const(group, (self.size() * self.layout.block_bytes()) as i64);
        env.b.add_const(codes, self.layout.codes() as i64)
    }

    fn take(&self, env: &mut Env, run: Val) -> Vec<Val> {
        let (at, rows) = (self.at(env), self.rows());
        let places = rows.vectors(env, at, run);
        let blocks = 0..self.share.round_blocks();
        let mut out = Vec::new();
        for block in blocks {
            out.extend(places.iter().map(|v| {
                let offset = v.offset + block * self.layout.block_bytes();
                env.b.load_with(rows.words(), v.base, offset as i32, rows.words().bytes(), Hint::None)
            }));
        }
        out
    }

    fn take_sides(&self, env: &mut Env, run: Val) -> Vec<Val> {
        let (at, rows, first) = (self.at(env), self.rows(), env.b.index(0));
        let base = env.b.ptr_add_const(run, self.run_bytes());
        let beside = rows.copied_beside(base, self.share.unroll);
        if self.spread {
            return self.take_spread_sides(env, (at, rows), beside);
        }
        let mut out = Vec::new();
        for more in 0..self.share.unroll {
            for block in 0..if self.table.is_some() { self.size() } else { 0 } {
                out.push(rows.table_number(env, at, beside, (first, more * self.size() + block)));
            }
            out.extend(rows.scales_at(env, at, beside, (first, more)));
            out.extend(rows.zeros_at(env, at, beside, (first, more)));
        }
        out.into_iter().map(|side| side.load(env, Hint::None)).collect()
    }

    fn has_sides(&self) -> bool {
        self.sides_of_group() > 0
    }

    fn side_runs(&self, env: &mut Env, round: Val) -> Vec<(Val, usize)> {
        let number = self.share.number(env, round);
        let regions = self.layout.side_regions(self.share.round_blocks());
        let run = |(first, bytes): (usize, usize)| {
            let at = env.b.mul_const(number, bytes as i64);
            (env.b.add_const(at, first as i64), bytes)
        };
        regions.into_iter().map(run).collect()
    }

    fn sides(&self, env: &mut Env, tile: Panels, round: Val) -> Vec<Side> {
        if !self.has_sides() {
            return vec![];
        }
        let (at, group, rows) = (self.at(env), self.share.first_group(env, round), self.rows());
        let (panel, ragged) = (tile.pick(env), self.share.is_ragged(env.group.warps()));
        let beside = rows.beside(panel);
        let mut out = Vec::new();
        for more in 0..self.share.unroll {
            let (group, more) =
                if ragged { (existing(env, group, more, self.share.groups()), 0) } else { (group, more) };
            let first = env.b.mul_const(group, self.size() as i64);
            for block in 0..if self.table.is_some() { self.size() } else { 0 } {
                let block = match ragged {
                    true => (existing(env, first, block, self.share.blocks), 0),
                    false => (first, more * self.size() + block),
                };
                out.push(rows.table_number(env, at, beside, block));
            }
            out.extend(rows.scales_at(env, at, beside, (group, more)));
            out.extend(rows.zeros_at(env, at, beside, (group, more)));
        }
        out
    }

    fn columns(&self, env: &mut Env, x: Val, staged: Staged, columns: Val) -> Columns {
        let k = self.padded(env.group.warps());
        let (g, t) = thread_of(env);
        let last = env.b.add_const(columns, -1);
        if self.spread {
            return self.spread_columns(env, x);
        }
        let column = |env: &mut Env, i: Val| {
            let i = env.b.min(i, last);
            env.at(x, i, staged.stride(k))
        };
        let own = column(env, g);
        let own = env.at(own, env.group.warp, self.share.of_warp * self.group_k());
        let words = env.at(own, t, 8);
        let sums = (0..2).map(|odd| {
            let i = env.b.mul_const(t, 2);
            let i = env.b.add_const(i, odd);
            let row = column(env, i);
            let row = env.b.ptr_add_const(row, self.sums().sums(k));
            env.at(row, env.group.warp, 4 * self.share.of_warp)
        });
        let sums = sums.collect();
        let before = env.b.int(Ty::I64, -(self.table_bytes() as i64));
        let table = self.table.map(|_| env.b.ptr_add(x, before));
        Columns { words, sums, table }
    }

    fn zero(&self, env: &mut Env) -> Vec<Val> {
        let zero = if self.is_row_scaled() { env.b.int(INTS, 0) } else { env.b.float(FLOATS, 0.0) };
        vec![zero; self.panels]
    }

    fn store(&self, env: &mut Env, sums: &[Val], to: Val, columns: Val) {
        match self.spread {
            true => spread::store(env, sums, to),
            false => fragments::store(env, sums, to, columns),
        }
    }

    fn multiply(&self, env: &mut Env, round: Round<'_>, sums: &[Val]) -> Vec<Val> {
        if self.spread {
            return self.multiply_spread(env, round, sums);
        }
        let (at, first) = (self.at(env), env.b.mul_const(round.number, self.share.unroll as i64));
        let (codes, side) = (self.vectors_of_group(), self.sides_of_group());
        (0..self.share.unroll).fold(sums.to_vec(), |sums, i| {
            let own = (&round.codes[i * codes..][..codes], &round.side[i * side..][..side]);
            self.group(env, at, own, (round.x, (first, i)), &sums)
        })
    }
}
