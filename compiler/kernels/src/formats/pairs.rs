//! Codes of some rows of a panel as a thread of a warp takes them: four threads share a block of k, each
//! has two steps that follow each other.
//!
//! A matrix product of bytes takes a word from each half of a block of its own; which steps these are does
//! not matter as long as the other operand's are the same. Two steps of codes of four bits stand in one
//! vector.

use super::at::{Side, VectorAt};
use super::codes::{STEPS, piece, planes};
use super::quant::{QuantLayout, TILE_ROWS};
use crate::env::Env;
use crate::kir::{Cast, Elem, Hint, Ty, Val};
use crate::layout::PANEL;

/// Bytes of a vector of a block.
const VECTOR: usize = 4 * PANEL;

/// The rows of a thread.
#[derive(Clone, Copy, Debug)]
pub struct PairRows {
    /// The weight.
    pub layout: QuantLayout,
    /// How many there are: 2 or 4.
    pub count: u16,
}

/// Which rows of a panel and which part of a block a thread has.
#[derive(Clone, Copy)]
pub struct PairAt {
    /// The first of the rows: i64.
    pub row: Val,
    /// 0 to 3: i64.
    pub part: Val,
}

/// Where the scales and zero points of groups and the numbers of tables are.
#[derive(Clone, Copy)]
pub struct Beside {
    base: Val,
    /// Offsets of the first group's.
    scales: usize,
    zeros: usize,
    /// Offset of the first block's.
    tables: usize,
}

impl PairRows {
    fn bits(&self) -> u32 {
        self.layout.scheme.code_bits()
    }

    /// A word of each row.
    pub fn words(&self) -> Ty {
        Ty::vector(Elem::I32, self.count)
    }

    /// Vectors of a block's codes.
    pub fn loads(&self) -> usize {
        planes(self.bits()).iter().map(|width| if *width == 8 { 2 } else { 1 }).sum()
    }

    /// Where the packed codes of a block are that begins at `block`.
    pub fn vectors(&self, env: &mut Env, at: PairAt, block: Val) -> Vec<VectorAt> {
        let base = env.at(block, at.row, 4);
        let mut offset = 0;
        let mut out = Vec::with_capacity(self.loads());
        for width in planes(self.bits()) {
            let from = match width {
                8 => env.at(base, at.part, 2 * VECTOR),
                4 => env.at(base, at.part, VECTOR),
                2 => {
                    let one = env.b.index(1);
                    let vector = env.b.lshr(at.part, one);
                    env.at(base, vector, VECTOR)
                }
                _ => base,
            };
            for second in 0..if *width == 8 { 2 } else { 1 } {
                out.push(VectorAt { base: from, offset: offset + second * VECTOR });
            }
            offset += VECTOR * *width as usize;
        }
        out
    }

    /// The codes of the two steps, four unsigned bytes for each row, from the vectors at [`PairRows::vectors`].
    pub fn steps(&self, env: &mut Env, loaded: &[Val], at: PairAt) -> [Val; 2] {
        if let [first, second] = *loaded
            && self.bits() == 8
        {
            return [first, second];
        }
        let mut out: [Option<Val>; 2] = [None; 2];
        let mut raised = 0;
        for (width, v) in planes(self.bits()).iter().zip(loaded) {
            let own = self.own_bits(env, *v, *width, at.part);
            for (step, codes) in out.iter_mut().enumerate() {
                let part = piece(&mut env.b, own, *width, step as u32 * width, raised);
                *codes = Some(codes.map_or(part, |codes| env.b.or(codes, part)));
            }
            raised += width;
        }
        out.map(|codes| codes.expect("codes have at least one plane"))
    }

    /// Where in a block the packed codes of step `step` (i64) of rows from `row` (i64) on are: i64 for each plane.
    pub fn step_offsets(&self, env: &mut Env, (row, step): (Val, Val)) -> Vec<Val> {
        let first = env.b.mul_const(row, 4);
        let mut before = 0;
        let mut offsets = Vec::new();
        for width in planes(self.bits()) {
            let steps = env.b.index(STEPS / *width as usize);
            let vector = env.b.div(step, steps);
            let vector = env.b.mul_const(vector, VECTOR as i64);
            let own = env.b.add(first, vector);
            offsets.push(env.b.add_const(own, before));
            before += VECTOR as i64 * i64::from(*width);
        }
        offsets
    }

    /// The codes of step `step` (i64), four unsigned bytes for each row, from what is at [`PairRows::step_offsets`].
    pub fn step_codes(&self, env: &mut Env, loaded: &[Val], step: Val) -> Val {
        let mut codes = None;
        let mut raised = 0;
        for (width, v) in planes(self.bits()).iter().zip(loaded) {
            let steps = STEPS / *width as usize;
            let own = if steps == 1 {
                *v
            } else {
                let keep = env.b.index(steps - 1);
                let place = env.b.and(step, keep);
                let by = env.b.mul_const(place, i64::from(*width));
                let by = env.b.cast(Cast::Trunc, by, Ty::I32);
                let by = env.b.splat(by, self.count);
                env.b.lshr(*v, by)
            };
            let part = piece(&mut env.b, own, *width, 0, raised);
            codes = Some(codes.map_or(part, |codes| env.b.or(codes, part)));
            raised += width;
        }
        codes.expect("codes have at least one plane")
    }

    /// A plane's vector shifted so that the thread's first step begins at bit 0 of each byte.
    fn own_bits(&self, env: &mut Env, v: Val, width: u32, part: Val) -> Val {
        let parts = STEPS / width as usize / 2;
        if parts == 1 {
            return v;
        }
        let keep = env.b.index(parts - 1);
        let place = env.b.and(part, keep);
        let shift = env.b.mul_const(place, i64::from(2 * width));
        let shift = env.b.cast(Cast::Trunc, shift, Ty::I32);
        let shift = env.b.splat(shift, self.count);
        env.b.lshr(v, shift)
    }

    /// Where the side values of a panel are.
    pub fn beside(&self, panel: Val) -> Beside {
        let offset = |region: Option<(usize, usize)>| region.map_or(0, |(offset, _)| offset);
        let (scales, zeros) = (offset(self.layout.group_scales()), offset(self.layout.group_zeros()));
        Beside { base: panel, scales, zeros, tables: offset(self.layout.table_numbers()) }
    }

    /// The same where those of `groups` groups have been copied to `base`, scales first; numbers of tables where a
    /// scheme has neither.
    pub fn copied_beside(&self, base: Val, groups: usize) -> Beside {
        let zeros = self.layout.group_scales().map_or(0, |(_, bytes)| groups * bytes);
        Beside { base, scales: 0, zeros, tables: 0 }
    }

    /// Where the scales of group `group` (i64), `more` groups on, are.
    pub fn scales_at(&self, env: &mut Env, at: PairAt, beside: Beside, (group, more): (Val, usize)) -> Option<Side> {
        let (_, bytes) = self.layout.group_scales()?;
        let elem = if bytes == 2 * PANEL { Elem::I16 } else { Elem::I8 };
        Some(self.side(env, (beside.base, at), (beside.scales + more * bytes, bytes), group, elem))
    }

    /// Their values: f32.
    pub fn scales(&self, env: &mut Env, stored: Val) -> Val {
        let floats = self.words().with_elem(Elem::F32);
        if env.b.ty(stored).elem == Elem::I16 {
            return env.b.cast(Cast::F16ToF32, stored, floats);
        }
        let wide = env.b.cast(Cast::SExt, stored, self.words());
        env.b.cast(Cast::IntToFloat, wide, floats)
    }

    /// Where the zero points of a group are, if the scheme has them.
    pub fn zeros_at(&self, env: &mut Env, at: PairAt, beside: Beside, (group, more): (Val, usize)) -> Option<Side> {
        let (_, bytes) = self.layout.group_zeros()?;
        Some(self.side(env, (beside.base, at), (beside.zeros + more * bytes, bytes), group, Elem::I8))
    }

    /// Their values: i32.
    pub fn zeros(&self, env: &mut Env, stored: Val) -> Val {
        env.b.cast(Cast::ZExt, stored, self.words())
    }

    fn side(
        &self,
        env: &mut Env,
        (panel, at): (Val, PairAt),
        (offset, bytes): (usize, usize),
        group: Val,
        elem: Elem,
    ) -> Side {
        let ty = self.words().with_elem(elem);
        let from = env.at(panel, group, bytes);
        let from = env.at(from, at.row, bytes / PANEL);
        Side { at: VectorAt { base: from, offset }, ty, align: ty.bytes() }
    }

    /// Where the bits are in which the number of the thread's value table in block `block` (i64), `more` blocks on,
    /// stands: i16. All its rows and both its steps have the same one.
    pub fn table_number(&self, env: &mut Env, at: PairAt, beside: Beside, (block, more): (Val, usize)) -> Side {
        let (byte, _) = self.table_bits(env, at);
        let of_block = self.number_bytes();
        let first = env.b.mul_const(block, of_block as i64);
        let first = env.b.add(first, byte);
        let base = env.b.ptr_add(beside.base, first);
        Side { at: VectorAt { base, offset: beside.tables + more * of_block }, ty: Ty::I16, align: 1 }
    }

    fn number_bytes(&self) -> usize {
        self.layout.table_numbers().expect("the scheme has tables").1
    }

    /// Of two bytes of a block's numbers in which the thread's stands: the number of the first one, and the bit in them
    /// with which it begins.
    fn table_bits(&self, env: &mut Env, at: PairAt) -> (Val, Val) {
        let (rows, eight) = (env.b.index(TILE_ROWS), env.b.index(8));
        let tile = env.b.div(at.row, rows);
        let first = env.b.mul_const(at.part, (PANEL / TILE_ROWS) as i64);
        let number = env.b.add(first, tile);
        let bit = env.b.mul_const(number, QuantLayout::table_bits() as i64);
        let (byte, last) = (env.b.div(bit, eight), env.b.index(self.number_bytes() - 2));
        let byte = env.b.min(byte, last);
        let before = env.b.mul_const(byte, -8);
        (byte, env.b.add(bit, before))
    }

    /// The bytes of the thread's table at the codes of its two steps; `tables` is the address of all tables,
    /// with what is known of their memory.
    pub fn look_up(
        &self,
        env: &mut Env,
        at: PairAt,
        (tables, hint): (Val, Hint),
        stored: Val,
        codes: [Val; 2],
    ) -> [Val; 2] {
        let table = self.table(env, at, (tables, hint), stored);
        if self.count == 4 {
            return codes.map(|codes| found(env, table, codes));
        }
        let both = env.b.shuffle(codes[0], codes[1], vec![0, 1, 2, 3]);
        let found = found(env, table, both);
        [vec![0, 1], vec![2, 3]].map(|lanes| env.b.shuffle(found, found, lanes))
    }

    /// The thread's table, whose number is among the bits of [`PairRows::table_number`]: 16 bytes in four words.
    pub fn table(&self, env: &mut Env, at: PairAt, (tables, hint): (Val, Hint), stored: Val) -> Val {
        let (_, shift) = self.table_bits(env, at);
        let wide = env.b.cast(Cast::ZExt, stored, Ty::I64);
        let moved = env.b.lshr(wide, shift);
        let keep = env.b.index((1 << QuantLayout::table_bits()) - 1);
        let number = env.b.and(moved, keep);
        let from = env.at(tables, number, 16);
        env.b.load_with(Ty::vector(Elem::I32, 4), from, 0, 16, hint)
    }
}

/// The bytes of a table at the codes of four rows.
pub fn found(env: &mut Env, table: Val, codes: Val) -> Val {
    let bytes = Ty::vector(Elem::I8, 16);
    let [table, index] = [table, codes].map(|v| env.b.cast(Cast::Bitcast, v, bytes));
    let found = env.b.table16(table, index);
    env.b.cast(Cast::Bitcast, found, Ty::vector(Elem::I32, 4))
}
