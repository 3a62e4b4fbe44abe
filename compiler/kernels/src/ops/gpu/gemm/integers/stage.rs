//! Where things lie in a stage of bytes, and what is copied there.

use super::super::copies::{COPY, Lines, PanelPart, Pieces, in_order};
use super::super::rows::{ROWS, thread_place};
use super::super::{TILE_PANELS, TILE_TOKENS, Tile};
use super::{BLOCKS, Integers};
use crate::env::Env;
use crate::formats::at::VectorAt;
use crate::formats::codes::{BLOCK, planes};
use crate::formats::pairs::PairAt;
use crate::kir::{BinOp, Cond, Ty, Val};
use crate::ops::byte_rows::ByteRow;
use crate::ops::linear::Segment;

/// Offsets in a stage: of codes of a panel after another, of scales and zero points likewise, of rows of x, and of
/// the sums of their blocks.
pub(super) struct Places {
    pub sides: usize,
    pub rows: usize,
    pub sums: usize,
    pub end: usize,
}

impl Integers {
    /// Bytes of a panel's codes in a step.
    pub(super) fn codes_step(&self) -> usize {
        self.blocks * self.layout.block_bytes()
    }

    /// Bytes of a panel's scales, and of its zero points.
    fn side_steps(&self) -> [usize; 2] {
        [self.layout.group_scales(), self.layout.group_zeros()].map(|r| r.map_or(0, |(_, bytes)| self.groups() * bytes))
    }

    pub(super) fn side_step(&self) -> usize {
        self.side_steps().iter().sum()
    }

    pub(super) fn token_step(&self) -> usize {
        self.blocks * BLOCK
    }

    pub(super) fn places(&self) -> Places {
        let sides = TILE_PANELS * self.codes_step();
        let rows = sides + TILE_PANELS * self.side_step();
        let sums = rows + TILE_TOKENS * self.token_step();
        let sum_bytes = if self.layout.is_row_scaled() { 0 } else { TILE_TOKENS * self.sums_step() };
        Places { sides, rows, sums, end: sums + sum_bytes }
    }

    /// Bytes of the sums of a token's blocks.
    pub(super) fn sums_step(&self) -> usize {
        4 * BLOCKS
    }

    /// The place of piece `piece` (i64) of a panel's codes: exchanged within a block so that a warp's reads fall into
    /// different banks. See [`Self::vectors`].
    fn code_place(&self, env: &mut Env, piece: Val) -> Val {
        let (keep, bits) = match self.layout.scheme.code_bits() {
            8 => (6, 8),
            bits @ 4..=6 => (2, bits),
            _ => return piece,
        };
        let size = env.b.index(4 * bits as usize);
        let within = env.b.rem(piece, size);
        let (by, keep) = (env.b.int(Ty::I64, 2), env.b.index(keep));
        let flip = env.b.lshr(within, by);
        let flip = env.b.and(flip, keep);
        let moved = env.b.bin(BinOp::Xor, piece, flip);
        if bits == 4 || bits == 8 {
            return moved;
        }
        // Only the plane of four bits, which is the first.
        let first = env.b.index(16);
        let inside = env.b.cmp(Cond::Lt, within, first);
        env.b.select(inside, moved, piece)
    }

    /// Where the vectors of this thread's codes of a panel's first block are, whose codes have been copied to `run`.
    pub(super) fn vectors(&self, env: &mut Env, run: Val) -> Vec<VectorAt> {
        let (plain, one) = (thread_place(env), env.b.index(1));
        let high = env.b.lshr(plain.part, one);
        let flipped = |env: &mut Env, bit: Val| {
            let flip = env.b.mul_const(bit, 2 * i64::from(ROWS));
            PairAt { row: env.b.bin(BinOp::Xor, plain.row, flip), ..plain }
        };
        if self.layout.scheme.code_bits() == 8 {
            // Of part t the vectors are exchanged where its bit 1 is set, rows by twos where its bit 0 is.
            let low = env.b.and(plain.part, one);
            let at = flipped(env, low);
            let base = self.rows().vectors(env, at, run)[0].base;
            let away = env.b.mul_const(high, 64);
            let back = env.b.mul_const(high, -64);
            let [first, second] = [away, back].map(|more| env.b.ptr_add(base, more));
            return vec![VectorAt { base: first, offset: 0 }, VectorAt { base: second, offset: 64 }];
        }
        let at = flipped(env, high);
        let moved = self.rows().vectors(env, at, run);
        let plain = self.rows().vectors(env, plain, run);
        let of_plane = |(width, (moved, plain)): (&u32, (VectorAt, VectorAt))| if *width == 4 { moved } else { plain };
        planes(self.layout.scheme.code_bits()).iter().zip(moved.into_iter().zip(plain)).map(of_plane).collect()
    }

    /// Which block of a token's step stands in the place of block 0: of tokens whose blocks would fall into the same
    /// banks another one.
    pub(super) fn turn(&self, env: &mut Env, token: Val) -> Val {
        let (alike, blocks) = (env.b.index(BLOCKS / self.blocks), env.b.index(self.blocks));
        let line = env.b.div(token, alike);
        env.b.rem(line, blocks)
    }

    fn row_place(&self, env: &mut Env, token: Val, piece: Val) -> Val {
        // Two pieces are a block.
        let turn = self.turn(env, token);
        let flip = env.b.mul_const(turn, 2);
        env.b.bin(BinOp::Xor, piece, flip)
    }

    /// The copies of a thread for one step.
    pub(super) fn stage_copies(&self, env: &mut Env, s: &Segment, tile: Tile, x: Val) -> Vec<Pieces> {
        let places = self.places();
        let place = |env: &mut Env, _: Val, piece: Val| self.code_place(env, piece);
        let codes = PanelPart { offset: self.layout.codes(), step: self.codes_step(), to: (0, self.codes_step()) };
        let mut all = vec![Lines::of_panels(env, (s, tile), codes, (&place, 1)).pieces(env)];
        let [scales, zeros] = self.side_steps();
        let regions = [(self.layout.group_scales(), scales, 0), (self.layout.group_zeros(), zeros, scales)];
        for (region, step, before) in regions {
            if let Some((offset, _)) = region {
                let part = PanelPart { offset, step, to: (places.sides + before, self.side_step()) };
                all.push(Lines::of_panels(env, (s, tile), part, (&in_order, 1)).pieces(env));
            }
        }
        let place = |env: &mut Env, token: Val, piece: Val| self.row_place(env, token, piece);
        let rows = Lines::of_tokens(tile, (x, self.x_stride), (self.token_step(), places.rows), (&place, BLOCKS));
        all.push(rows.pieces(env));
        if !self.layout.is_row_scaled() {
            let base = env.b.ptr_add_const(x, ByteRow { k: self.layout.k }.sums());
            let to = (places.sums, self.sums_step());
            let step = 4 * self.blocks;
            let sums = Lines { base, step, piece: step.min(COPY), to, place: &in_order, ..rows };
            all.push(sums.pieces(env));
        }
        all
    }
}
