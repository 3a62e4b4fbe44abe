//! Products of the matrix unit. See [`Mma`] for which thread holds what.
//!
//! An element of the result is the element of the sums, to which the products are added one after the
//! other by ascending k: each by a fused multiply-add that rounds once, those of bytes exactly and
//! wrapping. Hardware adds in another order; compare floats with a tolerance.

use super::meet::WARP;
use super::scalar::dot4_i8;
use super::thread::Thread;
use crate::kir::inst::Mma;

/// Rows of `a`.
const ROWS: usize = 16;
/// Columns of `b`.
const COLUMNS: usize = 8;
/// Words of i32 in a row of `a` and in a column of `b`.
const WORDS: usize = 8;

/// Computes `a * b + acc` of the places given, for the 32 threads of a warp.
pub(super) fn run(kind: Mma, warp: &mut [Thread; WARP], to: usize, (acc, a, b): (usize, usize, usize)) {
    let a: [[u32; WORDS]; ROWS] = gather(warp, a, 4, in_rows);
    let b: [[u32; WORDS]; COLUMNS] = gather(warp, b, 2, in_column);
    let mut sums: [[u32; COLUMNS]; ROWS] = gather(warp, acc, 4, in_sums);
    for (sums, a) in sums.iter_mut().zip(&a) {
        for (sum, b) in sums.iter_mut().zip(&b) {
            *sum = a.iter().zip(b).fold(*sum, |sum, (a, b)| word(kind, sum, *a, *b));
        }
    }
    for (lane, thread) in warp.iter_mut().enumerate() {
        for (i, place) in thread.places()[to..to + 4].iter_mut().enumerate() {
            let (row, column) = in_sums(lane, i);
            *place = u64::from(sums[row][column]);
        }
    }
}

/// Transposes four matrices of 8 x 8 halves, whose rows the threads hold from `to` on: see
/// [`crate::kir::Op::LoadMatrix`].
pub(super) fn transpose(warp: &mut [Thread; WARP], to: usize) {
    let rows = warp.each_mut().map(|thread| <[u64; 4]>::try_from(&thread.places()[to..to + 4]).expect("four words"));
    let half =
        |matrix: usize, row: usize, column: usize| rows[8 * matrix + row][column / 2] >> (16 * (column % 2)) & 0xffff;
    for (lane, thread) in warp.iter_mut().enumerate() {
        let (g, t) = (lane / 4, lane % 4);
        for (matrix, place) in thread.places()[to..to + 4].iter_mut().enumerate() {
            *place = half(matrix, 2 * t, g) | half(matrix, 2 * t + 1, g) << 16;
        }
    }
}

/// The matrix of which each thread holds `count` elements from `place` on.
fn gather<const N: usize>(
    warp: &mut [Thread; WARP],
    place: usize,
    count: usize,
    position: fn(usize, usize) -> (usize, usize),
) -> [[u32; 8]; N] {
    let mut matrix = [[0; 8]; N];
    for (lane, thread) in warp.iter_mut().enumerate() {
        for (i, value) in thread.places()[place..place + count].iter().enumerate() {
            let (row, column) = position(lane, i);
            matrix[row][column] = *value as u32;
        }
    }
    matrix
}

/// Row and word of `a` that a thread holds as its element `i`.
pub(super) fn in_rows(lane: usize, i: usize) -> (usize, usize) {
    (lane / 4 + i % 2 * 8, lane % 4 + i / 2 * 4)
}

/// Column and word of `b`.
fn in_column(lane: usize, i: usize) -> (usize, usize) {
    (lane / 4, lane % 4 + i * 4)
}

/// Row and column of the sums.
pub(super) fn in_sums(lane: usize, i: usize) -> (usize, usize) {
    (lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2)
}

/// Adds the products of the elements of one word.
pub(super) fn word(kind: Mma, sum: u32, a: u32, b: u32) -> u32 {
    match kind {
        Mma::S8S8 => {
            let products =
                a.to_le_bytes().into_iter().zip(b.to_le_bytes()).map(|(a, b)| i32::from(a as i8) * i32::from(b as i8));
            products.fold(sum as i32, i32::wrapping_add) as u32
        }
        Mma::U8S8 => dot4_i8(sum.into(), a.into(), b.into()).map_or(sum, |sum| sum as u32),
        Mma::Bf16 => {
            floats(sum, [a << 16, a & 0xffff_0000].map(f32::from_bits), [b << 16, b & 0xffff_0000].map(f32::from_bits))
        }
        Mma::F16 => floats(sum, halves(a), halves(b)),
    }
}

fn floats(sum: u32, a: [f32; 2], b: [f32; 2]) -> u32 {
    a[1].mul_add(b[1], a[0].mul_add(b[0], f32::from_bits(sum))).to_bits()
}

/// Both numbers of a word of binary16.
fn halves(word: u32) -> [f32; 2] {
    [word as u16, (word >> 16) as u16].map(|bits| half::f16::from_bits(bits).to_f32())
}
