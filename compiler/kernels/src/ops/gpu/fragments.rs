//! What one warp multiplies: some rows of weights with columns of x, over its part of k.
//!
//! A warp's tile is one panel, of which a thread loads two rows at a time, or two panels, of which it
//! loads four. Panels lie as matrix products want them: a 32-bit word is two bf16 of one row, rows are next
//! to each other. Words of k are numbered so that the sums run in ascending order of k.

use super::ring::Runs;
use super::rows::Staged;
use crate::env::Env;
use crate::formats::at::Side;
use crate::kir::{Cond, Elem, Hint, Mma, Ty, Val};
use crate::layout::PANEL;

/// Elements of k in a step.
pub const STEP: usize = 32;
/// Columns of a matrix product.
pub const COLUMNS: usize = 8;
/// Words of bf16 in a step.
const WORDS: usize = STEP / 2;

/// A warp's part of a product by the matrix unit, with weights in bf16.
#[derive(Clone, Copy, Debug)]
pub struct Fragments {
    /// Panels of a tile: 1 or 2.
    pub panels: usize,
    /// Elements of k in the weights.
    pub k: usize,
    /// Steps of k for each warp, those past the end counted.
    pub steps: usize,
    /// Steps of a round.
    pub unroll: usize,
}

/// The panels of a tile.
#[derive(Clone, Copy)]
pub struct Panels {
    /// The first.
    pub first: Val,
    /// The other one, if a tile has two.
    pub second: Option<Val>,
}

impl Panels {
    /// Their addresses.
    pub fn all(self) -> Vec<Val> {
        std::iter::once(self.first).chain(self.second).collect()
    }

    /// The number of the one in which this thread has rows: i64.
    pub fn own(env: &mut Env, panels: usize) -> Val {
        if panels == 1 {
            return env.b.index(0);
        }
        let (row, _) = thread_of(env);
        let two = env.b.index(2);
        env.b.lshr(row, two)
    }

    /// The address of the one in which this thread has rows.
    pub fn pick(self, env: &mut Env) -> Val {
        let Some(second) = self.second else { return self.first };
        let (own, zero) = (Panels::own(env, 2), env.b.index(0));
        let lower = env.b.cmp(Cond::Eq, own, zero);
        env.b.select(lower, self.first, second)
    }
}

/// Where a thread's columns of x are.
pub struct Columns {
    /// Address of its words in the warp's part of k.
    pub words: Val,
    /// Addresses of the sums of the columns that its results are in, where products want them.
    pub sums: Vec<Val>,
    /// Address of the table that weights are looked up in, where they are.
    pub table: Option<Val>,
}

/// A round of weights and what they are multiplied with.
#[derive(Clone, Copy)]
pub struct Round<'l> {
    /// What [`Ahead::take`] gave.
    pub codes: &'l [Val],
    /// What was loaded from [`Ahead::sides`].
    pub side: &'l [Val],
    /// The columns of x.
    pub x: &'l Columns,
    /// Its number in the tile: i64.
    pub number: Val,
}

/// A product whose weights are asked for rounds ahead. All threads of a warp call each function together.
pub trait Ahead {
    /// Elements of k that all `warps` warps go over: x is padded to as many.
    fn padded(&self, warps: usize) -> usize;

    /// Rounds of a tile.
    fn rounds(&self) -> usize;

    /// What a warp takes in a round, of `warps`.
    fn runs(&self, warps: usize) -> Runs;

    /// Offset of a panel's first run.
    fn first(&self) -> usize;

    /// Offset in a panel of this warp's part of round `round` (i64).
    fn start(&self, env: &mut Env, round: Val) -> Val;

    /// Loads this thread's vectors of a round whose part of its panel has been copied to `run`.
    fn take(&self, env: &mut Env, run: Val) -> Vec<Val>;

    /// Loads what stands beside them, where it has been copied with them.
    fn take_sides(&self, _env: &mut Env, _run: Val) -> Vec<Val> {
        vec![]
    }

    /// Whether anything else belongs to a round.
    fn has_sides(&self) -> bool {
        false
    }

    /// Where in a panel what else belongs to a round is, and how many bytes.
    fn side_runs(&self, _env: &mut Env, _round: Val) -> Vec<(Val, usize)> {
        vec![]
    }

    /// What else belongs to a round of this warp's part of the tile.
    fn sides(&self, _env: &mut Env, _tile: Panels, _round: Val) -> Vec<Side> {
        vec![]
    }

    /// This thread's columns of the staged rows at `x`, the last of `columns` (i64) in place of those that
    /// do not exist.
    fn columns(&self, env: &mut Env, x: Val, staged: Staged, columns: Val) -> Columns;

    /// Sums at the beginning: one value for each two rows that a thread holds.
    fn zero(&self, env: &mut Env) -> Vec<Val>;

    /// Adds the products of a round.
    fn multiply(&self, env: &mut Env, round: Round<'_>, sums: &[Val]) -> Vec<Val>;

    /// Stores the sums of the columns that exist as `[column][row]` at `to`.
    fn store(&self, env: &mut Env, sums: &[Val], to: Val, columns: Val) {
        store(env, sums, to, columns);
    }
}

impl Fragments {
    /// The division of `k` among `warps` warps for tiles of `panels` panels.
    pub fn new(k: usize, panels: usize, warps: usize) -> Fragments {
        let steps = k.div_ceil(STEP).div_ceil(warps);
        let most = 2 / panels;
        let unroll = (1..=most).rev().find(|u| steps.is_multiple_of(*u)).unwrap_or(1);
        Fragments { panels, k, steps, unroll }
    }

    /// Whether some words of k do not exist.
    fn is_ragged(&self, warps: usize) -> bool {
        self.padded(warps) != self.k
    }
}

impl Ahead for Fragments {
    fn padded(&self, warps: usize) -> usize {
        self.steps * warps * STEP
    }

    fn rounds(&self) -> usize {
        self.steps / self.unroll
    }

    fn runs(&self, warps: usize) -> Runs {
        let end = self.is_ragged(warps).then(|| self.k.div_ceil(2) * PANEL * 4);
        Runs { bytes: self.unroll * WORDS * PANEL * 4, count: self.panels, sides: [0; 2], end }
    }

    fn first(&self) -> usize {
        0
    }

    fn start(&self, env: &mut Env, round: Val) -> Val {
        let first = env.b.mul_const(env.group.warp, self.steps as i64);
        let done = env.b.mul_const(round, self.unroll as i64);
        let step = env.b.add(first, done);
        env.b.mul_const(step, (WORDS * PANEL * 4) as i64)
    }

    fn take(&self, env: &mut Env, run: Val) -> Vec<Val> {
        let ((_, t), row) = (thread_of(env), first_row(env, self.panels));
        let word = env.at(run, t, PANEL * 4);
        let base = env.at(word, row, 4);
        let ty = Ty::vector(Elem::I32, 2 * self.panels as u16);
        let load = |i: usize| env.b.load_with(ty, base, (i * 4 * PANEL * 4) as i32, ty.bytes(), Hint::None);
        (0..self.unroll * WORDS / 4).map(load).collect()
    }

    fn columns(&self, env: &mut Env, x: Val, staged: Staged, columns: Val) -> Columns {
        let (row, t) = thread_of(env);
        let last = env.b.add_const(columns, -1);
        let column = env.b.min(row, last);
        let row = env.at(x, column, staged.stride(self.padded(env.group.warps())));
        let first = env.b.mul_const(env.group.warp, (self.steps * STEP * 2) as i64);
        let row = env.b.ptr_add(row, first);
        Columns { words: env.at(row, t, 16), sums: vec![], table: None }
    }

    fn zero(&self, env: &mut Env) -> Vec<Val> {
        let zero = env.b.float(Ty::vector(Elem::F32, 4), 0.0);
        vec![zero; self.panels]
    }

    fn multiply(&self, env: &mut Env, round: Round<'_>, sums: &[Val]) -> Vec<Val> {
        let base = env.at(round.x.words, round.number, self.unroll * STEP * 2);
        let mut sums = sums.to_vec();
        for step in 0..self.unroll {
            let words = Ty::vector(Elem::I32, 4);
            let words = env.b.load_with(words, base, (step * STEP * 2) as i32, 16, Hint::None);
            for half in 0..2 {
                let b = env.b.shuffle(words, words, vec![2 * half, 2 * half + 1]);
                let first = step * WORDS / 4 + 2 * usize::from(half);
                let (low, high) = (round.codes[first], round.codes[first + 1]);
                for (pair, sum) in sums.iter_mut().enumerate() {
                    let a = operand(env, low, high, pair as u16);
                    *sum = env.b.mma(Mma::Bf16, *sum, a, b);
                }
            }
        }
        sums
    }
}

/// The first of this thread's rows in its panel: of two, or of four where a tile has two panels.
pub fn first_row(env: &mut Env, panels: usize) -> Val {
    let (row, _) = thread_of(env);
    let others = env.b.index(PANEL / (2 * panels) - 1);
    let place = env.b.and(row, others);
    env.b.mul_const(place, 2 * panels as i64)
}

/// Rows `2 * pair` and `2 * pair + 1` of what two loads gave.
pub fn operand(env: &mut Env, low: Val, high: Val, pair: u16) -> Val {
    let lanes = env.b.ty(low).lanes;
    env.b.shuffle(low, high, vec![2 * pair, 2 * pair + 1, lanes + 2 * pair, lanes + 2 * pair + 1])
}

/// Of values of a thread's rows those of the two rows of a pair, in the order of its sums.
pub fn of_pair(env: &mut Env, values: Val, pair: u16) -> Val {
    let (low, high) = (2 * pair, 2 * pair + 1);
    env.b.shuffle(values, values, vec![low, low, high, high])
}

/// Stores the sums of the columns that exist as `[column][row]` at `to`; sums are those of [`Ahead::zero`].
pub fn store(env: &mut Env, sums: &[Val], to: Val, columns: Val) {
    let (row, t) = thread_of(env);
    let rows = sums.len() * PANEL;
    let size = 2 * sums.len() as u16;
    let two = env.b.mul_const(t, 2);
    let own = env.at(to, two, rows * 4);
    let own = env.at(own, row, 4 * usize::from(size));
    for odd in 0..2u16 {
        let column = env.b.add_const(two, i64::from(odd));
        let exists = env.b.cmp(Cond::Lt, column, columns);
        let v = column_of(env, sums, odd, size);
        env.if_then(exists, |env| {
            env.b.store_with(v, own, (usize::from(odd) * rows * 4) as i32, 4 * u32::from(size));
        });
    }
}

/// Of the thread's sums those of its even or odd column, in the order of rows.
fn column_of(env: &mut Env, sums: &[Val], odd: u16, size: u16) -> Val {
    let (a, b) = (sums[0], *sums.last().expect("a tile has sums"));
    let picks = [odd, odd + 2, 4 + odd, 4 + odd + 2];
    env.b.shuffle(a, b, picks[..usize::from(size)].to_vec())
}

/// Of this thread in its warp: row of `a` (or column of `b`), and word of k.
pub fn thread_of(env: &mut Env) -> (Val, Val) {
    let (two, three) = (env.b.int(Ty::I64, 2), env.b.index(3));
    (env.b.lshr(env.group.lane, two), env.b.and(env.group.lane, three))
}
