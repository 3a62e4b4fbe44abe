//! Quantized weights as signed bytes in registers, whatever their codes count from. Thread t of a row has steps t and t + 4
//! of each block of 32 k.

use super::super::copies::COPY;
use super::super::rows::ROWS;
use super::super::thread_rows;
use super::LINE;
use crate::env::Env;
use crate::formats::codes::BLOCK;
use crate::formats::pairs::{PairAt, PairRows, found};
use crate::formats::quant::QuantLayout;
use crate::kir::{BinOp, Cond, Elem, Hint, Ty, Val};
use crate::ops::gpu::fragments::thread_of;

/// Blocks of a step.
pub(super) const BLOCKS: usize = LINE / BLOCK;
/// Steps of four k that a thread has of a block: its own and one four after it.
pub(super) const STEPS: usize = 2;
/// Four codes of each of a thread's rows.
const WORDS: Ty = Ty::vector(Elem::I32, ROWS);
/// The upper bits of four bytes.
const SIGNS: i64 = 0x8080_8080_u32 as i32 as i64;

/// The weights of a tile.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    pub layout: QuantLayout,
}

/// Where a thread reads a group of a stage.
pub(super) struct At {
    /// Codes of its first block: of each step for each plane.
    pub codes: Vec<Val>,
    /// The columns of its first block.
    pub columns: Val,
    /// Scales and zero points of the panel's groups, or numbers of tables of its blocks.
    pub sides: Val,
    pub table: Val,
    /// Its number in the stage: i64.
    pub group: Val,
}

impl Weights {
    fn rows(self) -> PairRows {
        PairRows { layout: self.layout, count: ROWS }
    }

    /// Blocks of a group; of rows that have one scale those of a step.
    pub fn size(self) -> usize {
        if self.layout.is_row_scaled() { BLOCKS } else { self.layout.group_blocks() }
    }

    /// Groups of a step.
    pub fn groups(self) -> usize {
        BLOCKS / self.size()
    }

    /// The place of piece `piece` (i64) of a panel's codes: where a vector is a step, those of every second two are
    /// exchanged by twos, so that the threads of a row read different banks.
    pub fn place(self, env: &mut Env, piece: Val) -> Val {
        if self.layout.scheme.code_bits() < 8 {
            return piece;
        }
        let (bit, by) = (env.b.index(8), env.b.int(Ty::I64, 2));
        let odd = env.b.and(piece, bit);
        let flip = env.b.lshr(odd, by);
        env.b.bin(BinOp::Xor, piece, flip)
    }

    /// Where in a panel's first block this thread's codes are: of each of its steps for each plane.
    pub fn offsets(self, env: &mut Env) -> Vec<Val> {
        let mut offsets = Vec::new();
        for number in 0..STEPS {
            let step = step_of(env, number);
            let row = self.placed_row(env, step);
            offsets.extend(self.rows().step_offsets(env, (row, step)));
        }
        offsets
    }

    /// Where the rows of a step are: see [`Self::place`].
    fn placed_row(self, env: &mut Env, step: Val) -> Val {
        let row = row(env);
        if self.layout.scheme.code_bits() < 8 {
            return row;
        }
        let (two, by) = (env.b.index(2), env.b.int(Ty::I64, 2));
        let odd = env.b.and(step, two);
        let flip = env.b.shl(odd, by);
        env.b.bin(BinOp::Xor, row, flip)
    }

    /// What is added to codes so that they are their weights with 128 added: four bytes of each row.
    pub fn bias(self, env: &mut Env, at: &At) -> Val {
        let most = env.b.int(WORDS, SIGNS);
        let less = match self.layout.has_zeros() {
            false => env.b.int(WORDS, i64::from(self.layout.offset().wrapping_mul(0x0101_0101))),
            true => {
                let (rows, place) = (self.rows(), pair_at(env, 0));
                let beside = rows.copied_beside(at.sides, self.groups());
                let zeros = rows.zeros_at(env, place, beside, (at.group, 0)).expect("the scheme has zero points");
                let zeros = zeros.load(env, Hint::None);
                let zeros = rows.zeros(env, zeros);
                env.b.mul_const(zeros, 0x0101_0101)
            }
        };
        env.b.sub(most, less)
    }

    /// A block: of each of the thread's steps four signed bytes of each row.
    pub fn bytes(self, env: &mut Env, at: &At, block: usize, bias: Val) -> [Val; STEPS] {
        [0, 1].map(|number| {
            let codes = self.codes(env, at, (block, number));
            let raised = env.b.add(codes, bias);
            let signs = env.b.int(WORDS, SIGNS);
            env.b.bin(BinOp::Xor, raised, signs)
        })
    }

    /// The codes of a step of a block, or what they stand for in the table.
    fn codes(self, env: &mut Env, at: &At, (block, number): (usize, usize)) -> Val {
        let (rows, planes) = (self.rows(), at.codes.len() / STEPS);
        let offset = (block * self.layout.block_bytes()) as i32;
        let load = |place: &Val| env.b.load_with(WORDS, *place, offset, 16, Hint::None);
        let loaded: Vec<Val> = at.codes[number * planes..][..planes].iter().map(load).collect();
        let step = step_of(env, number);
        let codes = rows.step_codes(env, &loaded, step);
        if self.table_bytes() == 0 {
            return codes;
        }
        let (place, zero) = (pair_at(env, number), env.b.index(0));
        let beside = rows.copied_beside(at.sides, self.groups());
        let stored = rows.table_number(env, place, beside, (zero, block)).load(env, Hint::None);
        let table = rows.table(env, place, (at.table, Hint::None), stored);
        found(env, table, codes)
    }

    /// The scales of a group for the thread's rows: f32.
    pub fn scales(self, env: &mut Env, at: &At) -> Val {
        let (rows, place) = (self.rows(), pair_at(env, 0));
        let beside = rows.copied_beside(at.sides, self.groups());
        let scales = rows.scales_at(env, place, beside, (at.group, 0)).expect("groups have scales");
        let scales = scales.load(env, Hint::None);
        rows.scales(env, scales)
    }

    /// Bytes of the table that codes are looked up in.
    pub fn table_bytes(self) -> usize {
        QuantLayout::table_bytes(self.layout.scheme).unwrap_or(0)
    }

    /// Stores the table at `from` in shared memory at `to`: each of the first threads copies 16 bytes.
    pub fn store_table(self, env: &mut Env, to: Val, from: Val) {
        let end = env.b.index(self.table_bytes() / COPY);
        let mine = env.b.cmp(Cond::Lt, env.group.thread, end);
        env.if_then(mine, |env| {
            let [from, to] = [from, to].map(|base| env.at(base, env.group.thread, COPY));
            let table = env.b.load_with(WORDS, from, 0, COPY as u32, Hint::Constant);
            env.b.store_with(table, to, 0, COPY as u32);
        });
    }
}

/// This thread's step number `number` of each block: i64.
fn step_of(env: &mut Env, number: usize) -> Val {
    let (_, t) = thread_of(env);
    env.b.add_const(t, 4 * number as i64)
}

/// The first of its rows.
fn row(env: &mut Env) -> Val {
    let (_, quad) = thread_rows(env);
    env.b.mul_const(quad, ROWS.into())
}

/// Its rows, and the part of a block that a step is in.
fn pair_at(env: &mut Env, number: usize) -> PairAt {
    let (step, two) = (step_of(env, number), env.b.index(2));
    PairAt { row: row(env), part: env.b.div(step, two) }
}
