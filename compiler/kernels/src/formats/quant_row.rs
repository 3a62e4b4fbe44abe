//! Decoding of one row of a quantized weight, element by element.

use super::codes::{BLOCK, Block, STEP};
use super::float_codes::FloatCodes;
use super::quant::{QuantLayout, TILE_ROWS};
use crate::env::{Env, WARP};
use crate::kir::{Cast, Cond, Ty, Val};
use crate::layout::PANEL;

/// A row of a panel.
pub struct QuantRow {
    /// The weight.
    pub layout: QuantLayout,
    /// Address of the panel.
    pub panel: Val,
    /// The row's number in it, i64.
    pub lane: Val,
    /// Address of the value table, where the scheme has one.
    pub values: Option<Val>,
}

impl QuantRow {
    /// Writes the row as f32 to `to`.
    pub fn emit(&self, env: &mut Env, to: Val) {
        let (whole, rest) = (self.layout.k / BLOCK, self.layout.k % BLOCK);
        if env.group.threads > 1 {
            let (hi, step) = (env.b.index(whole), env.b.index(WARP));
            env.for_step(env.group.lane, hi, step, |env, block| self.block(env, block, BLOCK, to));
            return self.tail(env, whole, rest, to);
        }
        env.for_const(whole, 1, |env, block| self.block(env, block, BLOCK, to));
        self.tail(env, whole, rest, to);
    }

    /// The last block, if it is not whole. In a group all threads would write it: the first one does.
    fn tail(&self, env: &mut Env, whole: usize, rest: usize, to: Val) {
        if rest == 0 {
            return;
        }
        let block = env.b.index(whole);
        if env.group.threads == 1 {
            return self.block(env, block, rest, to);
        }
        let zero = env.b.index(0);
        let first = env.b.cmp(Cond::Eq, env.group.lane, zero);
        env.if_then(first, |env| self.block(env, block, rest, to));
    }

    /// The first `len` elements of a block (i64).
    fn block(&self, env: &mut Env, block: Val, len: usize, to: Val) {
        let to = env.at(to, block, 4 * BLOCK);
        if self.layout.scheme.is_float() {
            return self.floats(env, block, len, to);
        }
        let codes = env.b.ptr_add_const(self.panel, self.layout.codes());
        let codes = env.at(codes, block, self.layout.block_bytes());
        let codes = env.at(codes, self.lane, STEP);
        let packed = Block { bits: self.layout.scheme.code_bits(), at: codes, lanes: 1 };
        let (scale, zero) = self.scale(env, block);
        for k in 0..len {
            let codes = packed.step(&mut env.b, k / STEP);
            let code = byte(env, codes, k % STEP);
            let code = match self.values {
                Some(values) => self.table_value(env, values, (block, k), code),
                None => code,
            };
            let value = self.integer(env, code, zero);
            let value = env.b.cast(Cast::IntToFloat, value, Ty::F32);
            let value = env.b.mul(value, scale);
            env.b.store(value, to, 4 * k as i32);
        }
    }

    /// The first `len` elements of a block whose codes stand for floating-point numbers.
    fn floats(&self, env: &mut Env, block: Val, len: usize, to: Val) {
        let codes = FloatCodes { layout: self.layout, table: self.values, levels: None };
        let (scale, _) = self.scale(env, block);
        for k in 0..len {
            let value = codes.element(&mut env.b, (self.panel, self.lane), (block, k), scale);
            env.b.store(value, to, 4 * k as i32);
        }
    }

    /// The scale of a block's elements, and the zero point where there is one.
    fn scale(&self, env: &mut Env, block: Val) -> (Val, Option<Val>) {
        let group = self.layout.group_of(&mut env.b, block);
        let scale = self.layout.scale_of(&mut env.b, (self.panel, self.lane), block);
        (scale, self.layout.zero_at(&mut env.b, self.panel, group, Some(self.lane)))
    }

    /// The integer that a code (i32) stands for.
    fn integer(&self, env: &mut Env, code: Val, zero: Option<Val>) -> Val {
        if let Some(zero) = zero {
            return env.b.sub(code, zero);
        }
        env.b.add_const(code, -i64::from(self.layout.offset()))
    }

    /// The entry of the value table for a code of element `k` of a block.
    fn table_value(&self, env: &mut Env, values: Val, (block, k): (Val, usize), code: Val) -> Val {
        let word = self.layout.table_word(&mut env.b, self.panel, block, k / (BLOCK / 2));
        let tile_rows = env.b.index(TILE_ROWS);
        let tile = env.b.div(self.lane, tile_rows);
        let tile = env.b.add_const(tile, (k / (BLOCK / 4) % 2 * (PANEL / TILE_ROWS)) as i64);
        let shift = env.b.mul_const(tile, 5);
        let moved = env.b.lshr(word, shift);
        let keep = env.b.index(31);
        let table = env.b.and(moved, keep);
        let table = env.at(values, table, 16);
        let code = env.b.cast(Cast::ZExt, code, Ty::I64);
        let at = env.b.ptr_add(table, code);
        let value = env.b.load(Ty::I8, at, 0);
        env.b.cast(Cast::ZExt, value, Ty::I32)
    }
}

/// Byte `i` of a word.
fn byte(env: &mut Env, word: Val, i: usize) -> Val {
    let (by, keep) = (env.b.int(Ty::I32, 8 * i as i64), env.b.int(Ty::I32, 255));
    let moved = env.b.lshr(word, by);
    env.b.and(moved, keep)
}
