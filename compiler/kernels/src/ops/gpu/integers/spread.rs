//! One column of x against groups with scales of their own: each group of a round has a column of the product
//! for itself, in which x has zeros everywhere else. A round's sums are then scaled at once, where they would be
//! group by group.

use super::{FLOATS, INTS, Integers};
use crate::env::Env;
use crate::formats::codes::BLOCK;
use crate::formats::pairs::{Beside, PairAt, PairRows};
use crate::kir::{Cast, Cond, Elem, Hint, Mma, Ty, Val};
use crate::ops::gpu::fragments::{Columns, Round, operand, thread_of};

impl Integers {
    /// This thread's column is a group's.
    pub(super) fn spread_columns(&self, env: &mut Env, x: Val) -> Columns {
        let k = self.padded_k(env);
        let (g, t) = thread_of(env);
        let group = self.group_of(env, g);
        let own = env.at(x, env.group.warp, self.share.of_warp * self.group_k());
        let own = env.at(own, group, self.group_k());
        let words = env.at(own, t, 8);
        let sums = env.b.ptr_add_const(x, self.sums().sums(k));
        let sums = env.at(sums, env.group.warp, 4 * self.share.of_warp);
        let sums = self.own_groups(env).map(|group| env.at(sums, group, 4));
        Columns { words, sums: sums.to_vec(), table: None }
    }

    fn padded_k(&self, env: &Env) -> usize {
        self.share.padded(env.group.warps())
    }

    /// The group of a column, or the last one of a round.
    fn group_of(&self, env: &mut Env, column: Val) -> Val {
        let last = env.b.index(self.share.unroll - 1);
        env.b.min(column, last)
    }

    /// The groups of the two columns that this thread has sums of.
    fn own_groups(&self, env: &mut Env) -> [Val; 2] {
        let (_, t) = thread_of(env);
        [0, 1].map(|odd| {
            let column = env.b.mul_const(t, 2);
            let column = env.b.add_const(column, odd);
            self.group_of(env, column)
        })
    }

    /// Scales of both columns' groups, then zero points.
    pub(super) fn take_spread_sides(&self, env: &mut Env, (at, rows): (PairAt, PairRows), beside: Beside) -> Vec<Val> {
        let groups = self.own_groups(env);
        let mut out = Vec::new();
        out.extend(groups.into_iter().filter_map(|group| rows.scales_at(env, at, beside, (group, 0))));
        out.extend(groups.into_iter().filter_map(|group| rows.zeros_at(env, at, beside, (group, 0))));
        out.into_iter().map(|side| side.load(env, Hint::None)).collect()
    }

    pub(super) fn multiply_spread(&self, env: &mut Env, round: Round<'_>, sums: &[Val]) -> Vec<Val> {
        let at = self.at(env);
        let x = self.own_words(env, &round);
        let mut dots = self.begin_spread(env, &round);
        let (g, none) = (thread_of(env).0, env.b.int(Ty::vector(Elem::I32, 2), 0));
        for (group, codes) in round.codes.chunks(self.vectors_of_group()).enumerate() {
            let number = env.b.index(group);
            let mine = env.b.cmp(Cond::Eq, g, number);
            for (block, codes) in codes.chunks(self.rows().loads()).enumerate() {
                let b = env.b.select(mine, x[block], none);
                let [low, high] = self.codes(env, at, codes, None);
                for (pair, dot) in dots.iter_mut().enumerate() {
                    let a = operand(env, low, high, pair as u16);
                    *dot = env.b.mma(Mma::U8S8, *dot, a, b);
                }
            }
        }
        self.scaled_spread(env, round.side, &dots, sums)
    }

    /// The words of x of this thread's group, block by block.
    fn own_words(&self, env: &mut Env, round: &Round<'_>) -> Vec<Val> {
        let words = env.at(round.x.words, round.number, self.share.unroll * self.group_k());
        let load =
            |block: usize| env.b.load_with(Ty::vector(Elem::I32, 2), words, (block * BLOCK) as i32, 8, Hint::None);
        (0..self.size()).map(load).collect()
    }

    /// What the sums begin with, in the columns that are groups'.
    fn begin_spread(&self, env: &mut Env, round: &Round<'_>) -> Vec<Val> {
        let (_, t) = thread_of(env);
        let none = env.b.int(Ty::I32, 0);
        let columns: Vec<Val> = (0..2)
            .map(|odd| {
                let at = env.at(round.x.sums[odd], round.number, 4 * self.share.unroll);
                let sum = env.b.load(Ty::I32, at, 0);
                let column = env.b.mul_const(t, 2);
                let end = env.b.index(self.share.unroll - odd.min(self.share.unroll));
                let exists = env.b.cmp(Cond::Lt, column, end);
                env.b.select(exists, sum, none)
            })
            .collect();
        let zero = env.b.int(INTS, 0);
        let both = (0..4).fold(zero, |v, lane| env.b.insert(v, lane, columns[usize::from(lane) % 2]));
        if !self.layout.has_zeros() {
            return vec![both; self.panels];
        }
        let zeros = [2, 3].map(|i| self.rows().zeros(env, round.side[i]));
        (0..self.panels as u16)
            .map(|pair| {
                let zeros = of_columns(env, zeros, pair);
                env.b.mul(both, zeros)
            })
            .collect()
    }

    fn scaled_spread(&self, env: &mut Env, side: &[Val], dots: &[Val], sums: &[Val]) -> Vec<Val> {
        let scales = [0, 1].map(|i| self.rows().scales(env, side[i]));
        let add = |(pair, (dot, sum)): (usize, (&Val, &Val))| {
            let exact = env.b.cast(Cast::IntToFloat, *dot, FLOATS);
            let scale = of_columns(env, scales, pair as u16);
            env.b.fma(exact, scale, *sum)
        };
        dots.iter().zip(sums).enumerate().map(add).collect()
    }
}

/// Of values of a thread's rows in its two columns those of a pair of rows, in the order of its sums.
fn of_columns(env: &mut Env, values: [Val; 2], pair: u16) -> Val {
    let (low, high) = (2 * pair, 2 * pair + 1);
    let lanes = env.b.ty(values[0]).lanes;
    env.b.shuffle(values[0], values[1], vec![low, lanes + low, high, lanes + high])
}

/// Adds up the columns of each row and stores the rows' sums at `to`.
pub(super) fn store(env: &mut Env, sums: &[Val], to: Val) {
    let (row, t) = thread_of(env);
    let size = 2 * sums.len() as u16;
    let zero = env.b.index(0);
    let mut out = env.b.float(Ty { elem: Elem::F32, lanes: size }, 0.0);
    for lane in 0..size {
        let (pair, half) = (usize::from(lane / 2), 2 * (lane % 2));
        let [a, b] = [half, half + 1].map(|i| env.b.extract(sums[pair], i));
        let mut sum = env.b.add(a, b);
        for mask in [1, 2] {
            let other = env.b.lane_xor(sum, mask);
            sum = env.b.add(sum, other);
        }
        out = env.b.insert(out, lane, sum);
    }
    let own = env.at(to, row, 4 * usize::from(size));
    let first = env.b.cmp(Cond::Eq, t, zero);
    env.if_then(first, |env| env.b.store_with(out, own, 0, 4 * u32::from(size)));
}
