//! How a row's groups of k are shared out among the warps of a group of threads, and into rounds.

use super::fragments::COLUMNS;
use crate::env::Env;
use crate::formats::codes::BLOCK;
use crate::kir::Val;

/// Groups of k, of which each warp has consecutive ones.
#[derive(Clone, Copy, Debug)]
pub struct Division {
    /// Blocks of k of a group.
    pub size: usize,
    /// Blocks of a row.
    pub blocks: usize,
    /// Groups for each warp, those past the end counted.
    pub of_warp: usize,
    /// Groups of a round.
    pub unroll: usize,
}

impl Division {
    /// Groups of `size` blocks, of which a round has about as many as `wanted`.
    pub fn new((blocks, size): (usize, usize), warps: usize, wanted: usize) -> Division {
        let groups = blocks.div_ceil(size).div_ceil(warps);
        let unroll = unroll(groups, wanted.clamp(1, COLUMNS));
        Division { size, blocks, of_warp: groups.next_multiple_of(unroll), unroll }
    }

    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.blocks.div_ceil(self.size)
    }

    /// Elements of k of a group.
    pub fn group_k(&self) -> usize {
        self.size * BLOCK
    }

    /// Elements of k that all warps go over.
    pub fn padded(&self, warps: usize) -> usize {
        self.of_warp * warps * self.group_k()
    }

    /// Whether some blocks that the warps go over do not exist.
    pub fn is_ragged(&self, warps: usize) -> bool {
        self.padded(warps) != self.blocks * BLOCK
    }

    /// Rounds of a warp.
    pub fn rounds(&self) -> usize {
        self.of_warp / self.unroll
    }

    /// Blocks of a round.
    pub fn round_blocks(&self) -> usize {
        self.unroll * self.size
    }

    /// The number of round `round` (i64) of this warp among those of all warps.
    pub fn number(&self, env: &mut Env, round: Val) -> Val {
        let first = env.b.mul_const(env.group.warp, self.rounds() as i64);
        env.b.add(first, round)
    }

    /// The first group of round `round` (i64) of this warp.
    pub fn first_group(&self, env: &mut Env, round: Val) -> Val {
        let first = env.b.mul_const(env.group.warp, self.of_warp as i64);
        let done = env.b.mul_const(round, self.unroll as i64);
        env.b.add(first, done)
    }
}

/// `first + more`, or the last of `count`.
pub fn existing(env: &mut Env, first: Val, more: usize, count: usize) -> Val {
    let (wanted, last) = (env.b.add_const(first, more as i64), env.b.index(count - 1));
    env.b.min(wanted, last)
}

/// Groups of a round, of `groups` and at most `most`: as many as leave the fewest past the end.
fn unroll(groups: usize, most: usize) -> usize {
    (most.div_ceil(2)..=most).rev().min_by_key(|u| groups.next_multiple_of(*u)).unwrap_or(1)
}
