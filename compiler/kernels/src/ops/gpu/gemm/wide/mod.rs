//! Tiles whose tokens the matrix units of four warps read in shared memory: a warp takes its rows of two panels to
//! registers and multiplies them with all tokens.
//!
//! A token's part of a step is a line of 128 bytes, of which a product takes 32 as they stand there: see
//! [`crate::kir::Op::Wgmma`].

mod floats;
mod integers;
mod weights;

pub(super) use floats::WideFloats;
pub(super) use integers::WideIntegers;

use super::TOGETHER;
use crate::env::Env;
use crate::kir::{BinOp, Val};

/// Bytes of a token's line.
const LINE: usize = 128;
/// Alignment of lines whose pieces are exchanged.
const ALIGN: usize = 1024;
/// Sums of a pair of rows and all columns.
const LANES: u16 = 4 * TOGETHER.columns() as u16;

/// Sums of pairs of rows as those of each column of eight tokens.
fn columns_of(env: &mut Env, sums: &[Val]) -> Vec<Val> {
    let lanes = |column: u16| (4 * column..4 * column + 4).collect::<Vec<u16>>();
    let columns = |sum: &Val| (0..LANES / 4).map(|c| (*sum, c)).collect::<Vec<_>>();
    sums.iter().flat_map(columns).map(|(sum, c)| env.b.shuffle(sum, sum, lanes(c))).collect()
}

/// The place of a piece of a token's line where matrix units look for it.
fn token_place(env: &mut Env, token: Val, piece: Val) -> Val {
    let seven = env.b.index(7);
    let within = env.b.and(token, seven);
    env.b.bin(BinOp::Xor, piece, within)
}
