//! Weights that are no bf16, of some rows of a panel, as a thread of a warp takes them: as words of two bf16, which
//! is what matrix products want.
//!
//! A number that does not fit a bf16 is the sum of two: a binary16 exactly, a level of NF4 to 2^-17 of it. Of a block
//! of 32 k a thread has those that [`crate::group::pair_place`] puts together: in each quarter of it two that follow
//! each other.

use super::WeightFormat;
use super::codes::BLOCK;
use super::float_codes::{QUAD, STEP, level_at};
use super::pairs::PairAt;
use super::quant::QuantLayout;
use crate::env::Env;
use crate::kir::{BinOp, Cast, Cond, Elem, Hint, Ty, Val};
use crate::layout::PANEL;
use crate::math;
use llmc_ir::quant::{NF4_LEVELS, Scheme};

/// Steps of a block.
pub const QUARTERS: usize = BLOCK / STEP;
/// Bytes of a table of levels, each a word of two bf16 whose sum it is.
pub const TABLE_BYTES: usize = 4 * NF4_LEVELS.len();

/// The rows of a thread.
#[derive(Clone, Copy, Debug)]
pub struct FloatRows {
    /// What the weights are.
    pub format: WeightFormat,
    /// Elements of a row.
    pub k: usize,
    /// How many there are: 2 or 4.
    pub count: u16,
}

impl FloatRows {
    /// Whether weights of this format are taken this way.
    pub fn takes(format: WeightFormat) -> bool {
        match format {
            WeightFormat::F16 => true,
            WeightFormat::Quant(scheme) => scheme.is_float(),
            WeightFormat::F32 | WeightFormat::Bf16 => false,
        }
    }

    /// Their layout, if they are quantized.
    pub fn layout(&self) -> Option<QuantLayout> {
        match self.format {
            WeightFormat::Quant(scheme) => Some(QuantLayout { scheme, k: self.k }),
            _ => None,
        }
    }

    /// Blocks of a row.
    pub fn blocks(&self) -> usize {
        self.k.div_ceil(BLOCK)
    }

    /// Blocks that share a scale, where groups have scales.
    pub fn group_blocks(&self) -> Option<usize> {
        let layout = self.layout().filter(|layout| !layout.is_row_scaled())?;
        Some(layout.group_blocks())
    }

    /// Where in a panel the blocks begin.
    pub fn first(&self) -> usize {
        self.layout().map_or(0, |layout| layout.codes())
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        match self.layout() {
            Some(layout) => layout.block_bytes(),
            None => BLOCK * self.format.step_bytes(),
        }
    }

    /// Bytes of a quarter.
    pub fn quarter_bytes(&self) -> usize {
        self.block_bytes() / QUARTERS
    }

    /// Whether weights are numbers of levels.
    pub fn has_levels(&self) -> bool {
        matches!(self.format, WeightFormat::Quant(Scheme::Nf4 { .. }))
    }

    fn words(&self) -> Ty {
        Ty::vector(Elem::I32, self.count)
    }

    /// Offsets (i64) in a quarter of what the thread has of its two k.
    pub fn places(&self, env: &mut Env, at: PairAt) -> [Val; 2] {
        let first = env.b.mul_const(at.part, 2);
        let (base, apart) = match self.format {
            WeightFormat::Quant(Scheme::Nf4 { .. }) => {
                // Of the second half of the threads in the upper halves of the same bytes.
                let (two, four) = (env.b.index(2), env.b.index(QUAD));
                let within = env.b.rem(at.part, two);
                let within = env.b.mul_const(within, 2 * QUAD as i64);
                let (part, row) = (env.b.div(at.row, four), env.b.rem(at.row, four));
                let part = env.b.mul_const(part, (QUAD * QUAD) as i64);
                let offset = env.b.add(part, row);
                (env.b.add(offset, within), QUAD)
            }
            _ => {
                let bytes = self.quarter_bytes() / STEP;
                let row = env.b.mul_const(at.row, (bytes / PANEL) as i64);
                let first = env.b.mul_const(first, bytes as i64);
                (env.b.add(first, row), bytes)
            }
        };
        [base, env.b.add_const(base, apart as i64)]
    }

    /// Loads what the thread has of a k at `at + offset`: binary16, or bytes in a word.
    pub fn load(&self, env: &mut Env, at: Val, offset: usize) -> Val {
        let ty = match (self.format, self.count) {
            (WeightFormat::F16, count) => Ty::vector(Elem::I16, count),
            (_, 4) => Ty::I32,
            _ => Ty::I16,
        };
        let loaded = env.b.load_with(ty, at, offset as i32, ty.bytes(), Hint::None);
        if ty == Ty::I16 { env.b.cast(Cast::ZExt, loaded, Ty::I32) } else { loaded }
    }

    /// What sums of products with [`Self::pairs`] are multiplied with, where that is not 1.
    pub fn raise(&self) -> Option<f64> {
        (self.format == WeightFormat::Quant(Scheme::Fp8)).then_some(E4M3_RAISE)
    }

    /// The words of a quarter whose two k are `pair`, as sums of words; `table` is the address of what [`store_table`] made.
    pub fn pairs(&self, env: &mut Env, at: PairAt, pair: [Val; 2], table: Option<Val>) -> Vec<Val> {
        match self.format {
            WeightFormat::F16 => self.halves(env, pair),
            WeightFormat::Quant(Scheme::Fp8) => vec![self.e4m3(env, pair)],
            _ => self.levels(env, at, pair, table.expect("levels have a table")),
        }
    }

    /// binary16 as two bf16, the first cut off; both are exact.
    fn halves(&self, env: &mut Env, pair: [Val; 2]) -> Vec<Val> {
        let floats = self.words().with_elem(Elem::F32);
        let values = pair.map(|halves| env.b.cast(Cast::F16ToF32, halves, floats));
        let rest = values.map(|v| {
            let bits = env.b.cast(Cast::Bitcast, v, self.words());
            let mask = env.b.int(self.words(), UPPER);
            let kept = env.b.and(bits, mask);
            let kept = env.b.cast(Cast::Bitcast, kept, floats);
            env.b.sub(v, kept)
        });
        vec![self.upper(env, values), self.upper(env, rest)]
    }

    /// Two e4m3fn of each row as bf16 smaller by [`E4M3_RAISE`]: sign and bits, in place, are those of such numbers.
    fn e4m3(&self, env: &mut Env, pair: [Val; 2]) -> Val {
        let [first, second] = pair.map(|codes| bytes_of(env, codes));
        let mut twice = env.b.int(self.words(), 0);
        for row in 0..self.count {
            let word = env.b.shuffle(first, second, vec![row, row, 4 + row, 4 + row]);
            let word = env.b.cast(Cast::Bitcast, word, Ty::I32);
            twice = env.b.insert(twice, row, word);
        }
        let (four, bits, signs) =
            (env.b.int(self.words(), 4), env.b.int(self.words(), E4M3_BITS), env.b.int(self.words(), E4M3_SIGNS));
        let moved = env.b.lshr(twice, four);
        let (moved, signs) = (env.b.and(moved, bits), env.b.and(twice, signs));
        env.b.or(moved, signs)
    }

    /// The upper halves of two f32 in a word, that of the first in its lower half.
    fn upper(&self, env: &mut Env, values: [Val; 2]) -> Val {
        let [low, high] = values.map(|v| env.b.cast(Cast::Bitcast, v, self.words()));
        self.join(env, low, high)
    }

    fn join(&self, env: &mut Env, low: Val, high: Val) -> Val {
        let (by, mask) = (env.b.int(self.words(), 16), env.b.int(self.words(), UPPER));
        let (low, high) = (env.b.lshr(low, by), env.b.and(high, mask));
        env.b.or(low, high)
    }

    fn levels(&self, env: &mut Env, at: PairAt, pair: [Val; 2], table: Val) -> Vec<Val> {
        let two = env.b.index(2);
        let half = env.b.div(at.part, two);
        let by = env.b.mul_const(half, 4);
        let by = env.b.cast(Cast::Trunc, by, Ty::I32);
        let [first, second] = pair.map(|codes| self.found(env, codes, by, table));
        let sixteen = env.b.int(self.words(), 16);
        let [low, high] = [first, second].map(|v| env.b.shl(v, sixteen));
        vec![self.join(env, first, second), self.join(env, low, high)]
    }

    /// The words of a table whose numbers stand in bytes, `by` bits (i32) up.
    fn found(&self, env: &mut Env, codes: Val, by: Val, table: Val) -> Val {
        let (two, keep) = (env.b.int(Ty::I32, 2), env.b.int(Ty::I32, 0x3C3C_3C3C));
        let moved = env.b.lshr(codes, by);
        let moved = env.b.shl(moved, two);
        let offsets = env.b.and(moved, keep);
        let offsets = bytes_of(env, offsets);
        let mut out = env.b.int(self.words(), 0);
        for lane in 0..self.count {
            let offset = env.b.extract(offsets, lane);
            let offset = env.b.cast(Cast::ZExt, offset, Ty::I64);
            let at = env.b.ptr_add(table, offset);
            let found = env.b.load(Ty::I32, at, 0);
            out = env.b.insert(out, lane, found);
        }
        out
    }
}

/// The bytes of a word.
fn bytes_of(env: &mut Env, word: Val) -> Val {
    env.b.cast(Cast::Bitcast, word, Ty::vector(Elem::I8, 4))
}

/// The upper half of a word.
const UPPER: i64 = -65536;
/// Where the bits of two e4m3fn and their signs stand in bf16, and what the numbers are smaller by. Sums of products of
/// them are far from the least f32 still; the least codes are bf16 below the least normal number.
const E4M3_BITS: i64 = 0x07F0_07F0;
const E4M3_SIGNS: i64 = 0x8000_8000_u32 as i32 as i64;
const E4M3_RAISE: f64 = (1u128 << 120) as f64;

/// Stores the table that levels are taken from at `to`, each of the first threads a word: its upper half is the level as
/// bf16, its lower one what that leaves. `levels` is the address of [`super::float_codes::table`].
pub fn store_table(env: &mut Env, to: Val, levels: Val) {
    let end = env.b.index(NF4_LEVELS.len());
    let mine = env.b.cmp(Cond::Lt, env.group.thread, end);
    env.if_then(mine, |env| {
        let level = level_at(&mut env.b, levels, env.group.thread);
        let whole = math::to_bf16(&mut env.b, level);
        let kept = math::from_bf16(&mut env.b, whole);
        let rest = env.b.sub(level, kept);
        let rest = math::to_bf16(&mut env.b, rest);
        let [whole, rest] = [whole, rest].map(|v| env.b.cast(Cast::ZExt, v, Ty::I32));
        let by = env.b.int(Ty::I32, 16);
        let whole = env.b.bin(BinOp::Shl, whole, by);
        let word = env.b.or(whole, rest);
        let at = env.at(to, env.group.thread, 4);
        env.b.store(word, at, 0);
    });
}
