//! A warp's part of a product of quantized weights with rows of 8-bit integers, by the matrix unit.
//!
//! Products of a group of k are summed in integers, which begin with what takes the codes' offset out of them;
//! groups with scales of their own are added up in f32 in ascending order. Where a whole row has one scale
//! sums stay integers over all warps and become f32 once, at the end.

use super::byte_rows::ByteSums;
use super::fragments::{Ahead, Columns, Loaded, Weights, first_row, operand, panel_of, thread_of};
use super::rows::Staged;
use crate::env::{Env, Place};
use crate::formats::codes::BLOCK;
use crate::formats::pairs::{PairAt, PairRows};
use crate::formats::quant::{GroupScale, QuantLayout};
use crate::kir::{Cast, Elem, Hint, Mma, Ty, Val};
use crate::ops::int_product::IntWeights;

/// Most registers for weights that are loaded together where that is all of a warp's part of a tile.
const WHOLE: usize = 48;
/// The same where its part has several rounds.
const ROUND: usize = 36;

/// A warp's part of the product.
#[derive(Clone, Copy, Debug)]
pub struct Integers {
    /// The weights.
    pub layout: QuantLayout,
    /// Table of values in the call's weights, where the scheme has one.
    pub table: Option<usize>,
    /// Panels of a tile: 1 or 2.
    pub panels: usize,
    /// Groups of k for each warp, those past the end counted. What has one scale for the row has groups of
    /// a block.
    groups: usize,
    /// Groups whose weights are loaded together.
    unroll: usize,
}

const FLOATS: Ty = Ty::vector(Elem::F32, 4);
const INTS: Ty = Ty::vector(Elem::I32, 4);

impl Integers {
    /// The division of k among `warps` warps for tiles of `panels` panels.
    pub fn new(layout: QuantLayout, weights: Option<IntWeights>, panels: usize, warps: usize) -> Integers {
        let table = weights.and_then(|w| w.table);
        let mut integers = Integers { layout, table, panels, groups: 0, unroll: 1 };
        let groups = integers.all_groups().div_ceil(warps);
        integers.unroll = unroll(groups, integers.registers());
        integers.groups = groups.next_multiple_of(integers.unroll);
        integers
    }

    /// Whether sums stay integers to the end of a row.
    fn is_row_scaled(&self) -> bool {
        self.layout.group_scale() == GroupScale::None
    }

    /// Blocks of a group.
    fn size(&self) -> usize {
        if self.is_row_scaled() { 1 } else { self.layout.group_blocks() }
    }

    /// Groups of a row.
    fn all_groups(&self) -> usize {
        self.layout.blocks().div_ceil(self.size())
    }

    /// Elements of k of a group.
    fn group_k(&self) -> usize {
        self.size() * BLOCK
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

    /// Values that are loaded for a group.
    fn loads(&self) -> usize {
        let side = usize::from(!self.is_row_scaled()) + usize::from(self.layout.has_zeros());
        self.size() * self.block_loads() + side
    }

    /// Registers that they take.
    fn registers(&self) -> usize {
        let count = 2 * self.panels;
        let scales = match self.layout.group_scale() {
            GroupScale::None => 0,
            GroupScale::F16 => count / 2,
            GroupScale::Byte => 1,
        };
        let of_block = self.rows().loads() * count + usize::from(self.table.is_some());
        self.size() * of_block + scales + usize::from(self.layout.has_zeros())
    }

    /// Loads group `group` (i64), `more` groups on: codes (and the table's number) of each block, scales,
    /// zero points.
    fn load_group(&self, env: &mut Env, at: PairAt, panel: Val, (group, more): (Val, usize)) -> Vec<Val> {
        let ragged = self.padded(env.group.warps()) != self.layout.blocks() * BLOCK;
        let rows = self.rows();
        let (group, more) =
            if ragged { (self.existing(env, group, more, self.all_groups()), 0) } else { (group, more) };
        let first = env.b.mul_const(group, self.size() as i64);
        let mut out = Vec::with_capacity(self.loads());
        for block in 0..self.size() {
            let (block, more) = match ragged {
                true => (self.existing(env, first, block, self.layout.blocks()), 0),
                false => (first, more * self.size() + block),
            };
            out.extend(rows.load(env, at, panel, (block, more)));
            if self.table.is_some() {
                out.push(rows.load_table(env, at, panel, (block, more)));
            }
        }
        out.extend(rows.load_scales(env, at, panel, (group, more)));
        out.extend(rows.load_zeros(env, at, panel, (group, more)));
        out
    }

    /// The first group of a round in this warp's part.
    fn first_group(&self, env: &mut Env, round: Val) -> Val {
        let first = env.b.mul_const(env.group.warp, self.groups as i64);
        let done = env.b.mul_const(round, self.unroll as i64);
        env.b.add(first, done)
    }

    /// `first + more`, or the last of `count`.
    fn existing(&self, env: &mut Env, first: Val, more: usize, count: usize) -> Val {
        let (wanted, last) = (env.b.add_const(first, more as i64), env.b.index(count - 1));
        env.b.min(wanted, last)
    }

    /// Adds the products of a group; `x` is the address of its words, `sums` those of its sums.
    fn group(
        &self,
        env: &mut Env,
        at: PairAt,
        loaded: &[Val],
        (x, k): (&Columns, (Val, usize)),
        sums: &[Val],
    ) -> Vec<Val> {
        let (codes, side) = loaded.split_at(self.size() * self.block_loads());
        let mut dots = if self.is_row_scaled() { sums.to_vec() } else { self.begin(env, x, k, side) };
        let words = env.at(x.words, k.0, self.group_k());
        for (block, codes) in codes.chunks(self.block_loads()).enumerate() {
            let offset = (k.1 * self.group_k() + block * BLOCK) as i32;
            let b = env.b.load_with(Ty::vector(Elem::I32, 2), words, offset, 8, Hint::None);
            let [low, high] = self.codes(env, at, codes);
            for (pair, dot) in dots.iter_mut().enumerate() {
                let a = operand(env, low, high, pair as u16);
                *dot = env.b.mma(Mma::U8S8, *dot, a, b);
            }
        }
        if self.is_row_scaled() { dots } else { self.scaled(env, side[0], &dots, sums) }
    }

    fn block_loads(&self) -> usize {
        self.rows().loads() + usize::from(self.table.is_some())
    }

    /// The codes of the thread's two steps of a block, or what the table has for them.
    fn codes(&self, env: &mut Env, at: PairAt, loaded: &[Val]) -> [Val; 2] {
        let rows = self.rows();
        let codes = rows.steps(env, &loaded[..rows.loads()], at);
        let Some(table) = self.table else { return codes };
        let tables = env.ptr(Place::Weights(table));
        rows.look_up(env, at, tables, loaded[rows.loads()], codes)
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

/// Groups that are loaded together, of `groups` that take `each` registers: as many as leave the fewest past
/// the end.
fn unroll(groups: usize, each: usize) -> usize {
    if groups * each <= WHOLE {
        return groups.max(1);
    }
    let most = (ROUND / each).max(1);
    (most.div_ceil(2)..=most).rev().min_by_key(|u| groups.next_multiple_of(*u)).unwrap_or(1)
}

/// Of values of a thread's rows those of the two rows of a pair, in the order of its sums.
fn of_pair(env: &mut Env, values: Val, pair: u16) -> Val {
    let (low, high) = (2 * pair, 2 * pair + 1);
    env.b.shuffle(values, values, vec![low, low, high, high])
}

impl Ahead for Integers {
    fn padded(&self, warps: usize) -> usize {
        self.groups * warps * self.group_k()
    }

    fn rounds(&self) -> usize {
        self.groups / self.unroll
    }

    fn weights(&self, env: &mut Env, first: Val, second: Option<Val>) -> Weights {
        Weights { at: panel_of(env, first, second) }
    }

    fn load(&self, env: &mut Env, w: Weights, round: Val) -> Vec<Val> {
        let at = self.at(env);
        let group = self.first_group(env, round);
        (0..self.unroll).flat_map(|more| self.load_group(env, at, w.at, (group, more))).collect()
    }

    fn columns(&self, env: &mut Env, x: Val, staged: Staged, columns: Val) -> Columns {
        let k = self.padded(env.group.warps());
        let (g, t) = thread_of(env);
        let last = env.b.add_const(columns, -1);
        let column = |env: &mut Env, i: Val| {
            let i = env.b.min(i, last);
            env.at(x, i, staged.stride(k))
        };
        let own = column(env, g);
        let own = env.at(own, env.group.warp, self.groups * self.group_k());
        let words = env.at(own, t, 8);
        let sums = (0..2).map(|odd| {
            let i = env.b.mul_const(t, 2);
            let i = env.b.add_const(i, odd);
            let row = column(env, i);
            let row = env.b.ptr_add_const(row, self.sums().sums(k));
            env.at(row, env.group.warp, 4 * self.groups)
        });
        Columns { words, sums: sums.collect() }
    }

    fn zero(&self, env: &mut Env) -> Vec<Val> {
        let zero = if self.is_row_scaled() { env.b.int(INTS, 0) } else { env.b.float(FLOATS, 0.0) };
        vec![zero; self.panels]
    }

    fn multiply(&self, env: &mut Env, loaded: &[Val], x: &Columns, round: Val, sums: &[Val]) -> Vec<Val> {
        let (at, first) = (self.at(env), env.b.mul_const(round, self.unroll as i64));
        let groups = loaded.chunks(self.loads()).enumerate();
        groups.fold(sums.to_vec(), |sums, (more, loaded)| self.group(env, at, loaded, (x, (first, more)), &sums))
    }

    /// Loads a group when its place's last values have been asked for: registers hold little more than a round.
    fn advance(&self, env: &mut Env, (w, next): (Weights, Val), now: Loaded<'_>, sums: &[Val]) -> (Vec<Val>, Vec<Val>) {
        let (at, coming) = (self.at(env), self.first_group(env, next));
        let first = env.b.mul_const(now.round, self.unroll as i64);
        let (mut fresh, mut sums) = (Vec::new(), sums.to_vec());
        for (more, loaded) in now.values.chunks(self.loads()).enumerate() {
            fresh.extend(self.load_group(env, at, w.at, (coming, more)));
            sums = self.group(env, at, loaded, (now.x, (first, more)), &sums);
        }
        (fresh, sums)
    }
}
