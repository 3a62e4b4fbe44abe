//! Codes of a quantized weight as planes of bits.
//!
//! Codes stand in blocks of [`BLOCK`] k. A block has eight steps of four k; a step fills a vector of
//! [`PANEL`] 32-bit lanes, each with a row's four codes in bytes, which is what dot products of bytes
//! read. Codes of fewer bits are cut into planes of 8, 4, 2 or 1 bits, the least significant first; a
//! vector of a plane of w bits holds 8 / w steps, each shifted by w from the one before.

use crate::kir::{Builder, Elem, Ty, Val};
use crate::layout::PANEL;

/// Elements of k in a block.
pub const BLOCK: usize = 32;
/// Steps of a block.
pub const STEPS: usize = 8;
/// Elements of k in a step.
pub const STEP: usize = 4;
/// Bytes of a vector.
const VECTOR: usize = 4 * PANEL;

/// Widths of the planes of codes of so many bits.
pub fn planes(bits: u32) -> &'static [u32] {
    match bits {
        8 => &[8],
        6 => &[4, 2],
        5 => &[4, 1],
        4 => &[4],
        3 => &[2, 1],
        _ => &[2],
    }
}

/// Bytes of a block of a panel.
pub fn block_bytes(bits: u32) -> usize {
    VECTOR * bits as usize
}

/// Where a plane's part of a step lies: byte of the vector in the block, and shift in each byte.
fn place(bits: u32, plane: usize, step: usize) -> (usize, u32) {
    let widths = planes(bits);
    let (width, before) = (widths[plane], widths[..plane].iter().sum::<u32>());
    let steps = STEPS / width as usize;
    ((before as usize + step / steps) * VECTOR, width * (step % steps) as u32)
}

/// Writes the code of element `k` of a block, in lane `row`.
pub fn store(bits: u32, block: &mut [u8], row: usize, k: usize, code: u8) {
    let mut rest = u32::from(code);
    for (plane, width) in planes(bits).iter().enumerate() {
        let (vector, shift) = place(bits, plane, k / STEP);
        block[vector + row * STEP + k % STEP] |= ((rest & mask(*width)) << shift) as u8;
        rest >>= width;
    }
}

fn mask(width: u32) -> u32 {
    (1 << width) - 1
}

/// A block in memory: all rows of a panel with `lanes` of [`PANEL`], or the row whose lane `at` points to with one.
#[derive(Clone, Copy)]
pub struct Block {
    /// Bits of a code.
    pub bits: u32,
    /// Its address.
    pub at: Val,
    /// Rows.
    pub lanes: u16,
}

impl Block {
    /// The codes of a step, four unsigned bytes in each lane.
    pub fn step(&self, b: &mut Builder, step: usize) -> Val {
        let ty = Ty { elem: Elem::I32, lanes: self.lanes };
        let mut codes = None;
        let mut raised = 0;
        for (plane, width) in planes(self.bits).iter().enumerate() {
            let (vector, shift) = place(self.bits, plane, step);
            let stored = b.load(ty, self.at, vector as i32);
            let part = piece(b, stored, *width, shift, raised);
            codes = Some(codes.map_or(part, |codes| b.or(codes, part)));
            raised += width;
        }
        codes.expect("codes have at least one plane")
    }
}

/// The `width` bits from `shift` on of every byte, moved to begin at bit `to`.
pub(super) fn piece(b: &mut Builder, v: Val, width: u32, shift: u32, to: u32) -> Val {
    let ty = b.ty(v);
    if width == 8 {
        return v;
    }
    let moved = match shift.cmp(&to) {
        std::cmp::Ordering::Equal => v,
        std::cmp::Ordering::Greater => {
            let by = b.int(ty, i64::from(shift - to));
            b.lshr(v, by)
        }
        std::cmp::Ordering::Less => {
            let by = b.int(ty, i64::from(to - shift));
            b.shl(v, by)
        }
    };
    let bytes = (mask(width) << to) * 0x0101_0101;
    let keep = b.int(ty, i64::from(bytes as i32));
    b.and(moved, keep)
}
