//! Codes that stand for floating-point numbers: their order in a block, and their decoding to f32.
//!
//! A block of [`BLOCK`] k is cut into steps of [`STEP`]. A step of e4m3fn has 16 bytes for each k, a row's
//! in its lane. A step of NF4 is one vector of 64 bytes: the codes of four k in the low halves of the
//! bytes and of the next four in the high ones. Of every 16 bytes the first four belong to the first k
//! and four consecutive rows, the next four to the second k: that is where interleaving bytes, then
//! pairs of bytes, leaves the rows in the order of their lanes.

use super::codes::BLOCK;
use super::e4m3;
use super::quant::QuantLayout;
use crate::kir::{Builder, Cast, Elem, Ty, Val};
use crate::layout::{LANES, PANEL};
use llmc_ir::quant::{NF4_LEVELS, Scheme};

/// Elements of k that are decoded together.
pub const STEP: usize = 8;
/// Elements of k that fill the bytes of a vector: half a step.
pub const QUAD: usize = 4;
/// Steps of a block.
pub const STEPS: usize = BLOCK / STEP;
/// Bytes of a vector of codes.
const VECTOR: usize = 64;
/// Bytes of the part of such a vector in which looking up and interleaving work.
const PART: usize = 16;
/// Bytes of an f32, each looked up by itself.
const PLANES: usize = 4;
/// Where the levels stand as f32, behind their planes.
const LEVELS: usize = PLANES * VECTOR;

/// The table that codes of NF4 are looked up in: the levels' first bytes, four times so that they fill a
/// vector, their second, third and fourth bytes likewise, and then the levels.
pub fn table() -> Vec<u8> {
    let plane = |i: usize| NF4_LEVELS.iter().map(move |v| v.to_le_bytes()[i]).cycle().take(VECTOR);
    (0..PLANES).flat_map(plane).chain(NF4_LEVELS.iter().flat_map(|v| v.to_le_bytes())).collect()
}

/// Bytes of [`table`].
pub const TABLE_BYTES: usize = LEVELS + 4 * NF4_LEVELS.len();

/// Byte in the block, and shift in it, of the code of element `k` in lane `row`.
fn place(bits: u32, row: usize, k: usize) -> (usize, u32) {
    match bits {
        8 => (k * PANEL + row, 0),
        _ => {
            let (step, half, k) = (k / STEP, k % STEP / QUAD, k % QUAD);
            (step * VECTOR + row / 4 * PART + 4 * k + row % 4, 4 * half as u32)
        }
    }
}

/// Writes the code of element `k` of a block, in lane `row`.
pub fn store(bits: u32, block: &mut [u8], row: usize, k: usize, code: u8) {
    let (byte, shift) = place(bits, row, k);
    block[byte] |= code << shift;
}

/// How a weight of such codes is decoded.
#[derive(Clone, Copy)]
pub struct FloatCodes {
    /// The weight.
    pub layout: QuantLayout,
    /// Address of [`table`], where codes are looked up.
    pub table: Option<Val>,
    /// The levels of that table in a vector, where the target looks numbers up in one.
    pub levels: Option<Val>,
}

/// The levels of the table at `table`, as [`FloatCodes::levels`].
pub fn levels(b: &mut Builder, table: Val) -> Val {
    b.load(Ty::vector(Elem::F32, LANES), table, LEVELS as i32)
}

impl FloatCodes {
    /// Bytes of a step of a panel.
    pub fn step_bytes(&self) -> usize {
        self.layout.block_bytes() / STEPS
    }

    /// What the values of step `step` (i64) of the panel at `panel` are multiplied with, f32: the scales of
    /// its rows, and what [`Self::emit`] leaves out.
    pub fn scales(&self, b: &mut Builder, panel: Val, step: Val) -> Val {
        let Some(scale) = self.layout.row_scale(b, panel, None) else {
            let steps = b.index(self.layout.group_blocks() * STEPS);
            let group = b.div(step, steps);
            return self
                .layout
                .group_scale_at(b, panel, group, None)
                .expect("groups have a scale where rows have none");
        };
        self.raised(b, scale)
    }

    /// A scale times what a value is smaller by; exact, as [`Scheme::encode`] bounds scales of e4m3fn.
    fn raised(&self, b: &mut Builder, scale: Val) -> Val {
        match self.layout.scheme {
            Scheme::Fp8 => {
                let raise = b.float(b.ty(scale), e4m3::RAISE);
                b.mul(scale, raise)
            }
            _ => scale,
        }
    }

    /// The values of half of the step at `at`, its first or second four k: a vector of the panel's rows for
    /// each k.
    pub fn emit(&self, b: &mut Builder, at: Val, half: usize, scales: Val) -> Vec<Val> {
        let values = match self.layout.scheme {
            Scheme::Fp8 => (0..QUAD).map(|k| e4m3_at(b, at, LANES, ((half * QUAD + k) * PANEL) as i32)).collect(),
            _ => match self.levels {
                Some(levels) => in_register(b, at, half, levels),
                None => self.in_memory(b, at, half),
            },
        };
        values.into_iter().map(|v| b.mul(v, scales)).collect()
    }

    /// The levels of half a step of NF4, whose bytes are looked up one by one.
    fn in_memory(&self, b: &mut Builder, at: Val, half: usize) -> Vec<Val> {
        let words = Ty::vector(Elem::I32, LANES);
        let packed = b.load(words, at, 0);
        let (keep, by) = (b.int(words, 0x0F0F_0F0F), b.int(words, 4 * half as i64));
        let codes = if half == 0 { packed } else { b.lshr(packed, by) };
        let codes = b.and(codes, keep);
        self.look_up(b, codes)
    }

    /// The levels of four k, whose codes fill the bytes of a vector.
    fn look_up(&self, b: &mut Builder, codes: Val) -> Vec<Val> {
        let table = self.table.expect("NF4 has a table");
        let bytes = Ty::vector(Elem::I8, VECTOR as u16);
        let codes = b.cast(Cast::Bitcast, codes, bytes);
        let planes: Vec<Val> = (0..PLANES)
            .map(|plane| {
                let values = b.load(bytes, table, (plane * VECTOR) as i32);
                b.table16(values, codes)
            })
            .collect();
        let [low, high] = [0, 2].map(|i| interleave(b, planes[i], planes[i + 1]));
        let mut levels = Vec::new();
        for (low, high) in low.into_iter().zip(high) {
            let pairs = Ty::vector(Elem::I16, VECTOR as u16 / 2);
            let [low, high] = [low, high].map(|v| b.cast(Cast::Bitcast, v, pairs));
            levels.extend(interleave(b, low, high));
        }
        levels.into_iter().map(|v| b.cast(Cast::Bitcast, v, Ty::vector(Elem::F32, LANES))).collect()
    }

    /// The value of element `k` of the block (i64) in lane `lane` (i64) of the panel, with scale `scale`.
    pub fn element(&self, b: &mut Builder, (panel, lane): (Val, Val), (block, k): (Val, usize), scale: Val) -> Val {
        let (first, shift) = place(self.layout.scheme.code_bits(), 0, k);
        let at = b.mul_const(block, self.layout.block_bytes() as i64);
        let row = self.row_offset(b, lane);
        let at = b.add(at, row);
        let at = b.ptr_add(panel, at);
        let at = b.ptr_add_const(at, self.layout.codes() + first);
        let value = match self.table {
            None => e4m3_at(b, at, 1, 0),
            Some(table) => level(b, table, at, shift),
        };
        let scale = self.raised(b, scale);
        b.mul(value, scale)
    }

    /// Bytes from the code in lane 0 to that in lane `lane` (i64).
    fn row_offset(&self, b: &mut Builder, lane: Val) -> Val {
        if self.layout.scheme.code_bits() == 8 {
            return lane;
        }
        // Four rows lie together, the next four a part further.
        let four = b.index(QUAD);
        let (part, row) = (b.div(lane, four), b.rem(lane, four));
        let part = b.mul_const(part, PART as i64);
        b.add(part, row)
    }
}

/// The levels of half a step of NF4. A row's four bytes are brought together in its lane: the codes of one k are then as
/// many bits up in all lanes.
fn in_register(b: &mut Builder, at: Val, half: usize, levels: Val) -> Vec<Val> {
    let words = Ty::vector(Elem::I32, LANES);
    let bytes = b.load(Ty::vector(Elem::I8, VECTOR as u16), at, 0);
    let byte = |row: usize, k: usize| (row / 4 * PART + 4 * k + row % 4) as u16;
    let order = (0..PANEL).flat_map(|row| (0..QUAD).map(move |k| byte(row, k)));
    let rows = b.shuffle(bytes, bytes, order.collect());
    let codes = b.cast(Cast::Bitcast, rows, words);
    (0..QUAD)
        .map(|k| {
            let by = b.int(words, (8 * k + 4 * half) as i64);
            let codes = b.lshr(codes, by);
            b.lookup16(levels, codes)
        })
        .collect()
}

/// The level whose code is in the byte at `at`, `shift` bits up.
fn level(b: &mut Builder, table: Val, at: Val, shift: u32) -> Val {
    let code = b.load(Ty::I8, at, 0);
    let code = b.cast(Cast::ZExt, code, Ty::I64);
    let (by, keep) = (b.index(shift as usize), b.index(15));
    let code = b.lshr(code, by);
    let code = b.and(code, keep);
    level_at(b, table, code)
}

/// Level `number` (i64) of the table at `table`.
pub(super) fn level_at(b: &mut Builder, table: Val, number: Val) -> Val {
    let at = b.mul_const(number, 4);
    let at = b.ptr_add(table, at);
    b.load(Ty::F32, at, LEVELS as i32)
}

/// `lanes` e4m3fn at `at + offset` as f32, divided by [`e4m3::RAISE`].
fn e4m3_at(b: &mut Builder, at: Val, lanes: u16, offset: i32) -> Val {
    let codes = b.load(Ty { elem: Elem::I8, lanes }, at, offset);
    e4m3::emit_decode(b, codes)
}

/// Elements of `x` and `y` in turns, within every [`PART`] bytes: from their first halves, and from their
/// second halves.
fn interleave(b: &mut Builder, x: Val, y: Val) -> [Val; 2] {
    let lanes = b.ty(x).lanes;
    let part = lanes / (VECTOR / PART) as u16;
    [0, part / 2].map(|half| {
        let firsts = (0..lanes).step_by(usize::from(part));
        let of_part = |first: u16| (0..part / 2).flat_map(move |i| [first + half + i, lanes + first + half + i]);
        b.shuffle(x, y, firsts.flat_map(of_part).collect())
    })
}
