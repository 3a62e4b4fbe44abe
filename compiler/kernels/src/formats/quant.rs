//! Layout of quantized panels, and what kernels need to decode them.
//!
//! A panel is first its side region (scales, zero points, table rows), then its codes in blocks; see
//! [`super::codes`]. Both are multiples of 64 bytes. K is padded to whole blocks with codes that
//! rows padded with zeros never see.

use super::codes::{self, BLOCK};
use super::float_codes;
use crate::kir::{Builder, Cast, Elem, Hint, Ty, Val};
use crate::layout::{ALIGN, LANES, PANEL};
use llmc_ir::quant::{Encoded, Scheme, TABLE};

/// k elements that share a row of the table of [`Scheme::W4`], in a tile of four rows.
pub const TILE: usize = 8;
/// Rows of such a tile.
pub const TILE_ROWS: usize = 4;
/// Tiles whose table rows are packed together: two steps of all rows of a panel.
const TILES_PACKED: usize = 2 * PANEL / TILE_ROWS;
/// Bytes of that: eight numbers of five bits.
const PACKED_BYTES: usize = 5;
/// Bytes that a load of a packed word reads beyond it.
const SLACK: usize = 8 - PACKED_BYTES;

/// How scales are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScale {
    /// One scale for the whole row, beside the codes.
    None,
    /// binary16.
    F16,
    /// Signed byte, times the row's scale.
    Byte,
}

/// A quantized weight with rows of `k` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantLayout {
    /// The scheme.
    pub scheme: Scheme,
    /// Elements per row.
    pub k: usize,
}

impl QuantLayout {
    /// What is taken from the byte that a product reads to get the integer it stands for. Bytes looked up
    /// in the value table have 128 added.
    pub fn offset(&self) -> i32 {
        match self.scheme {
            Scheme::W4 => 128,
            scheme => {
                let (mul, offset) = scheme.grid_params();
                assert_eq!(mul, 1, "{scheme}: codes are consecutive integers");
                offset
            }
        }
    }

    /// Bytes of the table that values are looked up in, of a scheme that has one.
    pub fn table_bytes(scheme: Scheme) -> Option<usize> {
        match scheme {
            Scheme::W4 => Some(size_of_val(&TABLE)),
            Scheme::Nf4 { .. } => Some(float_codes::TABLE_BYTES),
            _ => None,
        }
    }

    /// That table as products read it. Integers of W4 are unsigned, 128 added.
    pub fn table(scheme: Scheme) -> Vec<u8> {
        match scheme {
            Scheme::W4 => TABLE.iter().flatten().map(|v| (i16::from(*v) + 128) as u8).collect(),
            Scheme::Nf4 { .. } => float_codes::table(),
            _ => vec![],
        }
    }

    /// Steps whose products with integers of -127..=127, two in each 16-bit half, can be added there; none where
    /// one step may already be too much.
    pub fn steps_in_halves(&self) -> Option<usize> {
        let largest = match self.scheme {
            Scheme::W4 => 255,
            scheme => (1 << scheme.code_bits()) - 1,
        };
        let steps = i16::MAX as usize / (2 * 127 * largest);
        (steps > 0).then(|| steps.min(codes::STEPS))
    }

    /// Blocks of codes in a row.
    pub fn blocks(&self) -> usize {
        self.k.div_ceil(BLOCK)
    }

    /// Blocks that share a scale; all of the row where there is one scale.
    pub fn group_blocks(&self) -> usize {
        self.scheme.group().map_or(self.blocks(), |g| g / BLOCK)
    }

    /// Blocks whose products are summed before a scale meets the sum: those of a group, or any one where only rows have
    /// scales.
    pub fn scaled_blocks(&self) -> usize {
        if self.is_row_scaled() { 1 } else { self.group_blocks() }
    }

    /// Groups in a row; the last may be shorter.
    pub fn groups(&self) -> usize {
        self.blocks().div_ceil(self.group_blocks().max(1))
    }

    /// Whether sums of products stay integers to the end of a row: no group has a scale.
    pub fn is_row_scaled(&self) -> bool {
        self.group_scale() == GroupScale::None
    }

    /// How the scales of groups are stored.
    pub fn group_scale(&self) -> GroupScale {
        match self.scheme {
            Scheme::W8 { .. } | Scheme::Int4 { .. } | Scheme::Int4Asym { .. } | Scheme::Nf4 { .. } => GroupScale::F16,
            Scheme::W6 | Scheme::W5 | Scheme::W3 | Scheme::W2 => GroupScale::Byte,
            Scheme::W8A8 | Scheme::W4 | Scheme::Fp8 => GroupScale::None,
        }
    }

    /// Bytes of the scales of a panel's rows, at its beginning.
    fn row_scale_bytes(&self) -> usize {
        match self.scheme {
            Scheme::W8A8 | Scheme::Fp8 => 4 * PANEL,
            Scheme::W6 | Scheme::W5 | Scheme::W4 | Scheme::W3 | Scheme::W2 => 2 * PANEL,
            _ => 0,
        }
    }

    fn group_scale_bytes(&self) -> usize {
        match self.group_scale() {
            GroupScale::None => 0,
            GroupScale::F16 => 2 * PANEL,
            GroupScale::Byte => PANEL,
        }
    }

    /// Offset of the zero points.
    fn zeros(&self) -> usize {
        self.row_scale_bytes() + self.groups() * self.group_scale_bytes()
    }

    fn zero_bytes(&self) -> usize {
        if matches!(self.scheme, Scheme::Int4Asym { .. }) { PANEL } else { 0 }
    }

    /// Where the scales of groups begin, and bytes of a group's, where there are any.
    pub fn group_scales(&self) -> Option<(usize, usize)> {
        let bytes = self.group_scale_bytes();
        (bytes > 0).then(|| (self.row_scale_bytes(), bytes))
    }

    /// Where the zero points of groups begin, and bytes of a group's, where there are any.
    pub fn group_zeros(&self) -> Option<(usize, usize)> {
        let bytes = self.zero_bytes();
        (bytes > 0).then(|| (self.zeros(), bytes))
    }

    /// Where in a panel what belongs to groups of codes begins, and bytes of each for `blocks` blocks, which
    /// are whole groups.
    pub fn side_regions(&self, blocks: usize) -> Vec<(usize, usize)> {
        let groups = blocks / self.group_blocks().max(1);
        let of_groups = self.group_scales().into_iter().chain(self.group_zeros());
        let tables = self.table_numbers().map(|(first, bytes)| (first, blocks * bytes));
        of_groups.map(|(first, bytes)| (first, groups * bytes)).chain(tables).collect()
    }

    /// Whether groups have zero points.
    pub fn has_zeros(&self) -> bool {
        self.zero_bytes() > 0
    }

    /// Where the numbers of tables begin and bytes of a block's, in schemes with tables.
    pub fn table_numbers(&self) -> Option<(usize, usize)> {
        (self.scheme == Scheme::W4).then(|| (self.zeros(), 2 * PACKED_BYTES))
    }

    /// Bits of a table's number: those of a block are one after another in the order of k, then of rows.
    pub(super) fn table_bits() -> usize {
        PACKED_BYTES * 8 / TILES_PACKED
    }

    /// Bytes of the side region, which is where the codes begin.
    pub fn codes(&self) -> usize {
        let tables = match self.scheme {
            Scheme::W4 => self.blocks() * 2 * PACKED_BYTES + SLACK,
            _ => 0,
        };
        (self.zeros() + self.groups() * self.zero_bytes() + tables).next_multiple_of(ALIGN)
    }

    /// Bytes of a block of codes.
    pub fn block_bytes(&self) -> usize {
        codes::block_bytes(self.scheme.code_bits())
    }

    /// Bytes of a panel.
    pub fn panel_bytes(&self) -> usize {
        self.codes() + self.blocks() * self.block_bytes()
    }

    /// Writes the panel of [`PANEL`] encoded rows into zeroed memory.
    pub fn store(&self, rows: &Encoded, out: &mut [u8]) {
        let groups = self.groups();
        for row in 0..PANEL {
            if let Some(scale) = rows.row_scales.get(row) {
                match self.row_scale_bytes() / PANEL {
                    4 => put(out, 4 * row, &scale.to_le_bytes()),
                    _ => put(out, 2 * row, &half::f16::from_f32(*scale).to_le_bytes()),
                }
            }
            for g in 0..groups {
                if let Some(scale) = rows.group_scales.get(row * groups + g) {
                    let bytes = self.group_scale_bytes() / PANEL;
                    put(out, self.row_scale_bytes() + (g * PANEL + row) * bytes, &scale.to_le_bytes()[..bytes]);
                }
                if let Some(zero) = rows.zeros.get(row * groups + g) {
                    put(out, self.zeros() + g * PANEL + row, &[*zero]);
                }
            }
            self.store_codes(row, &rows.codes[row * self.k..(row + 1) * self.k], out);
        }
        self.store_tables(rows, out);
    }

    fn store_codes(&self, row: usize, codes: &[u8], out: &mut [u8]) {
        let bits = self.scheme.code_bits();
        let store = if self.scheme.is_float() { float_codes::store } else { codes::store };
        let blocks = out[self.codes()..].chunks_exact_mut(self.block_bytes());
        for (block, codes) in blocks.zip(codes.chunks(BLOCK)) {
            for (k, code) in codes.iter().enumerate() {
                store(bits, block, row, k, *code);
            }
        }
    }

    fn store_tables(&self, rows: &Encoded, out: &mut [u8]) {
        let tiles = self.k.div_ceil(TILE);
        for (i, table) in rows.tables.iter().enumerate() {
            let (row, tile) = (i / tiles, i % tiles);
            let bit = (tile % 2 * (PANEL / TILE_ROWS) + row) * PACKED_BYTES * 8 / TILES_PACKED;
            let at = self.zeros() + tile / 2 * PACKED_BYTES;
            let bits = (u16::from(*table) << (bit % 8)).to_le_bytes();
            out[at + bit / 8] |= bits[0];
            out[at + bit / 8 + 1] |= bits[1];
        }
    }

    /// The scales of rows of the panel at `panel`, f32; with one lane that of the row in `lane` (i64).
    pub fn row_scale(&self, b: &mut Builder, panel: Val, lane: Option<Val>) -> Option<Val> {
        match self.row_scale_bytes() / PANEL {
            0 => None,
            bytes => Some(load_scale(b, panel, lane, bytes)),
        }
    }

    /// The scales of group `group` (i64), f32.
    pub fn group_scale_at(&self, b: &mut Builder, panel: Val, group: Val, lane: Option<Val>) -> Option<Val> {
        let bytes = self.group_scale_bytes();
        let at = offset(b, panel, self.row_scale_bytes(), group, bytes);
        match self.group_scale() {
            GroupScale::None => None,
            GroupScale::F16 => Some(load_scale(b, at, lane, 2)),
            GroupScale::Byte => {
                let bytes = load_bytes(b, at, lane, Cast::SExt);
                let ty = b.ty(bytes).with_elem(Elem::F32);
                Some(b.cast(Cast::IntToFloat, bytes, ty))
            }
        }
    }

    /// The group (i64) of block `block` (i64).
    pub(super) fn group_of(&self, b: &mut Builder, block: Val) -> Val {
        let size = b.index(self.group_blocks());
        b.div(block, size)
    }

    /// The scale of the elements of block `block` (i64) of the row in lane `lane` (i64) of the panel at `panel`, f32.
    pub fn scale_of(&self, b: &mut Builder, (panel, lane): (Val, Val), block: Val) -> Val {
        let group = self.group_of(b, block);
        let row = self.row_scale(b, panel, Some(lane));
        let own = self.group_scale_at(b, panel, group, Some(lane));
        match (row, own) {
            (Some(row), Some(own)) => b.mul(row, own),
            (Some(scale), None) | (None, Some(scale)) => scale,
            (None, None) => b.float(Ty::F32, 1.0),
        }
    }

    /// The zero points of group `group` (i64) as i32, where the scheme has them.
    pub fn zero_at(&self, b: &mut Builder, panel: Val, group: Val, lane: Option<Val>) -> Option<Val> {
        if self.zero_bytes() == 0 {
            return None;
        }
        let at = offset(b, panel, self.zeros(), group, PANEL);
        Some(load_bytes(b, at, lane, Cast::ZExt))
    }

    /// Table rows of half a block (two steps of tiles) as a word of eight numbers of five bits: block
    /// `block` (i64), its first or second half.
    pub(super) fn table_word(&self, b: &mut Builder, panel: Val, block: Val, half: usize) -> Val {
        let at = offset(b, panel, self.zeros() + half * PACKED_BYTES, block, 2 * PACKED_BYTES);
        b.load_with(Ty::I64, at, 0, 1, Hint::None)
    }

    /// The tables of the tiles of half a block at `tables`, for the table lookup of its two code
    /// vectors: four tiles fill a vector.
    pub fn tables(&self, b: &mut Builder, tables: Val, (panel, block): (Val, Val), half: usize) -> [Val; 2] {
        let word = self.table_word(b, panel, block, half);
        [0, 1].map(|vector| {
            let rows: Vec<Val> = (0..4).map(|tile| table_row(b, tables, word, 4 * vector + tile)).collect();
            let pair = |b: &mut Builder, x: Val, y: Val| {
                let lanes = 2 * b.ty(x).lanes;
                b.shuffle(x, y, (0..lanes).collect())
            };
            let (low, high) = (pair(b, rows[0], rows[1]), pair(b, rows[2], rows[3]));
            pair(b, low, high)
        })
    }
}

/// The 16 bytes of the table whose number is the `i`-th five bits of a word, as four 32-bit lanes.
fn table_row(b: &mut Builder, tables: Val, word: Val, i: usize) -> Val {
    let shift = 5 * i as i64 - 4;
    let by = b.int(Ty::I64, shift.abs());
    let moved = if shift < 0 { b.shl(word, by) } else { b.lshr(word, by) };
    let keep = b.int(Ty::I64, 31 << 4);
    let at = b.and(moved, keep);
    let at = b.ptr_add(tables, at);
    b.load(Ty::vector(Elem::I32, 4), at, 0)
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// `base + constant + index * bytes`.
fn offset(b: &mut Builder, base: Val, constant: usize, index: Val, bytes: usize) -> Val {
    let scaled = b.mul_const(index, bytes as i64);
    let sum = b.add_const(scaled, constant as i64);
    b.ptr_add(base, sum)
}

/// Address and number of lanes of what is loaded for all rows of a panel, or for one.
fn lanes_at(b: &mut Builder, at: Val, lane: Option<Val>, bytes: usize) -> (Val, u16) {
    match lane {
        None => (at, LANES),
        Some(lane) => (offset(b, at, 0, lane, bytes), 1),
    }
}

fn load_scale(b: &mut Builder, at: Val, lane: Option<Val>, bytes: usize) -> Val {
    let (at, lanes) = lanes_at(b, at, lane, bytes);
    let floats = Ty { elem: Elem::F32, lanes };
    if bytes == 4 {
        return b.load(floats, at, 0);
    }
    let half = b.load(floats.with_elem(Elem::I16), at, 0);
    b.cast(Cast::F16ToF32, half, floats)
}

fn load_bytes(b: &mut Builder, at: Val, lane: Option<Val>, widen: Cast) -> Val {
    let (at, lanes) = lanes_at(b, at, lane, 1);
    let bytes = b.load(Ty { elem: Elem::I8, lanes }, at, 0);
    b.cast(widen, bytes, Ty { elem: Elem::I32, lanes })
}
