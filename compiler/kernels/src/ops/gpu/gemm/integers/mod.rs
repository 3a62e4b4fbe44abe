//! Tiles of quantized weights and rows of 8-bit integers: a word is four elements of k.
//!
//! Products are summed in integers: of a whole row where it has one scale, else of a group of k, whose sums begin with
//! what takes the codes' offset out of them and are then added up in f32 in ascending order.

mod finish;
mod stage;

use super::copies::Pieces;
use super::rows::{ROWS, panel_of, panel_scales, thread_place};
use super::{ALONE, COLUMNS, Form, PANELS, STAGES, Tile, thread_rows};
use crate::env::{Env, Place};
use crate::formats::at::VectorAt;
use crate::formats::codes::BLOCK;
use crate::formats::pairs::{PairAt, PairRows};
use crate::formats::quant::QuantLayout;
use crate::kir::{BinOp, Cast, Elem, Hint, Mma, Ty, Val};
use crate::ops::gpu::SHARED_BYTES;
use crate::ops::gpu::fragments::{of_pair, operand, thread_of};
use crate::ops::linear::Segment;
use crate::ops::product::CodedWeights;
use llmc_ir::quant::Scheme;

/// Most blocks of k of a step.
const BLOCKS: usize = 4;

const INTS: Ty = Ty::vector(Elem::I32, 4);
/// The thread's part of a block of a token.
const WORDS: Ty = Ty::vector(Elem::I32, 2);
const FLOATS: Ty = Ty::vector(Elem::F32, 4);

/// Products of quantized weights.
#[derive(Clone, Copy)]
pub(super) struct Integers {
    layout: QuantLayout,
    /// Blocks of k of a step.
    blocks: usize,
    /// Bytes from one row of x to the next.
    x_stride: usize,
    /// Table of values in the call's weights, where the scheme has one.
    table: Option<usize>,
}

impl Integers {
    /// Steps of as many blocks as fit; none where none do.
    pub(super) fn new(scheme: Scheme, k: usize, weights: Option<CodedWeights>, x_stride: usize) -> Option<Integers> {
        let layout = QuantLayout { scheme, k };
        if scheme.is_float() {
            return None;
        }
        let table = weights?.table;
        let fits = |form: &Integers| {
            let whole = form.blocks.is_multiple_of(form.size()) && k.is_multiple_of(form.step());
            whole && STAGES * form.stage() <= SHARED_BYTES
        };
        [BLOCKS, BLOCKS / 2].map(|blocks| Integers { layout, blocks, x_stride, table }).into_iter().find(fits)
    }

    /// Blocks of a group; what has one scale for the row has groups of one.
    fn size(&self) -> usize {
        self.layout.scaled_blocks()
    }

    /// Groups of a step.
    fn groups(&self) -> usize {
        self.blocks / self.size()
    }

    fn rows(&self) -> PairRows {
        PairRows { layout: self.layout, count: ROWS }
    }

    /// The codes of a block of a pair of panels, or what they stand for in the table: four bytes of each of the
    /// thread's rows, twice.
    fn codes(&self, env: &mut Env, at: &At, (pair, block): (usize, usize)) -> [Val; 2] {
        let (rows, vectors) = (self.rows(), &at.vectors);
        let more = 2 * pair * self.codes_step() + block * self.layout.block_bytes();
        let load = |v: &VectorAt| env.b.load_with(INTS, v.base, (v.offset + more) as i32, 16, Hint::None);
        let loaded: Vec<Val> = vectors.iter().map(load).collect();
        let codes = rows.steps(env, &loaded, at.place);
        let Some(table) = self.table else { return codes };
        let beside = rows.beside(at.panels[pair]);
        let number = rows.table_number(env, at.place, beside, (at.first, block));
        let number = number.load(env, Hint::Constant);
        let tables = env.ptr(Place::Weights(table));
        rows.look_up(env, at.place, (tables, Hint::Constant), number, codes)
    }

    /// The codes of a group of a pair of panels, block by block.
    fn group_codes(&self, env: &mut Env, at: &At, pair: usize) -> Vec<[Val; 2]> {
        (0..self.size()).map(|block| self.codes(env, at, (pair, block))).collect()
    }

    /// What a group's sums begin with in each column: the sums of its integers of x, times the offset or once, negative.
    fn begin(&self, env: &mut Env, at: &At) -> Vec<Val> {
        let factor = if self.layout.has_zeros() { 1 } else { self.layout.offset() };
        let of_token = |env: &mut Env, column: usize, odd: usize| {
            let offset = (8 * column + odd) * self.sums_step();
            let load = |b: usize| env.b.load(Ty::I32, at.sums, (offset + 4 * b) as i32);
            let loads: Vec<Val> = (0..self.size()).map(load).collect();
            let sum = loads[1..].iter().fold(loads[0], |sum, v| env.b.add(sum, *v));
            env.b.mul_const(sum, -i64::from(factor))
        };
        (0..COLUMNS)
            .map(|column| {
                let both = [0, 1].map(|odd| of_token(env, column, odd));
                of_columns(env, both)
            })
            .collect()
    }

    /// A group's products with a pair of panels, times scales, added to the sums.
    fn scaled(&self, env: &mut Env, pair: usize, at: &At, begin: &[Val], sums: &mut [Val]) {
        let of = self.rows();
        let base = env.b.ptr_add_const(at.sides, 2 * pair * self.side_step());
        let beside = of.copied_beside(base, self.groups());
        let group = (at.group, 0);
        let side = of.scales_at(env, at.place, beside, group).expect("groups have scales");
        let scales = side.load(env, Hint::None);
        let scales = of.scales(env, scales);
        let zeros = of.zeros_at(env, at.place, beside, group).map(|side| {
            let zeros = side.load(env, Hint::None);
            of.zeros(env, zeros)
        });
        let codes = self.group_codes(env, at, pair);
        for rows in 0..2u16 {
            let zeros = zeros.map(|zeros| of_pair(env, zeros, rows));
            let mut dots: Vec<Val> = begin.iter().map(|v| zeros.map_or(*v, |zeros| env.b.mul(*v, zeros))).collect();
            at.add_dots(env, &codes, rows, &mut dots);
            let scales = of_pair(env, scales, rows);
            let own = &mut sums[usize::from(rows) * COLUMNS..][..COLUMNS];
            for (sum, dot) in own.iter_mut().zip(dots) {
                let exact = env.b.cast(Cast::IntToFloat, dot, FLOATS);
                *sum = env.b.fma(exact, scales, *sum);
            }
        }
    }

    /// The products of a group added to the sums.
    fn group(&self, env: &mut Env, at: &At, sums: &mut [Val]) {
        if self.layout.is_row_scaled() {
            for (pair, sums) in sums.chunks_mut(2 * COLUMNS).enumerate() {
                let codes = self.group_codes(env, at, pair);
                for (rows, sums) in sums.chunks_mut(COLUMNS).enumerate() {
                    at.add_dots(env, &codes, rows as u16, sums);
                }
            }
            return;
        }
        let begin = self.begin(env, at);
        for (pair, sums) in sums.chunks_mut(2 * COLUMNS).enumerate() {
            self.scaled(env, pair, at, &begin, sums);
        }
    }
}

/// Where a thread reads a group of a stage.
struct At {
    /// Its number in the stage: i64.
    group: Val,
    /// Codes of the thread's first panel.
    vectors: Vec<VectorAt>,
    /// Its rows of a panel.
    place: PairAt,
    /// Scales and zero points of its first panel, of all groups.
    sides: Val,
    /// Its words of each block of each column.
    words: Vec<Vec<Val>>,
    /// Sums of the blocks of the first token that it has results of.
    sums: Val,
    /// Its panels in memory and the group's first block there (i64), where numbers of tables are.
    panels: Vec<Val>,
    first: Val,
}

impl At {
    fn new(env: &mut Env, form: &Integers, (stage, step): (Val, Val), reads: &[Val], group: Val) -> At {
        let [codes, sides, line, turn, sums, ref panels @ ..] = *reads else { unreachable!("reads are five and more") };
        let [codes, sides, line, sums] = [codes, sides, line, sums].map(|offset| env.b.ptr_add(stage, offset));
        let first = env.b.mul_const(group, form.size() as i64);
        let codes = env.at(codes, first, form.layout.block_bytes());
        let words = (0..form.size()).map(|block| {
            let block = env.b.add_const(first, block as i64);
            let place = env.b.bin(BinOp::Xor, turn, block);
            let own = env.at(line, place, BLOCK);
            let load = |c: usize| env.b.load_with(WORDS, own, (8 * c * form.token_step()) as i32, 8, Hint::None);
            (0..COLUMNS).map(load).collect()
        });
        let words = words.collect();
        let place = thread_place(env);
        let (sums, vectors) = (env.at(sums, first, 4), form.vectors(env, codes));
        let before = env.b.mul_const(step, form.blocks as i64);
        let first = env.b.add(before, first);
        At { group, vectors, place, sides, words, sums, panels: panels.to_vec(), first }
    }

    /// Adds the products of a group's codes in integers: of the first or second two of the thread's rows.
    fn add_dots(&self, env: &mut Env, codes: &[[Val; 2]], rows: u16, dots: &mut [Val]) {
        for ([low, high], words) in codes.iter().zip(&self.words) {
            let a = operand(env, *low, *high, rows);
            for (dot, b) in dots.iter_mut().zip(words) {
                *dot = env.b.mma(Mma::U8S8, *dot, a, *b);
            }
        }
    }
}

impl Form for Integers {
    fn step(&self) -> usize {
        self.blocks * BLOCK
    }

    fn stage(&self) -> usize {
        self.places().end.next_multiple_of(128)
    }

    fn copies(&self, env: &mut Env, s: &Segment, tile: Tile, x: Val) -> Vec<Pieces> {
        self.stage_copies(env, s, tile, x)
    }

    fn zeros(&self, env: &mut Env) -> Vec<Val> {
        let zero = if self.layout.is_row_scaled() { env.b.int(INTS, 0) } else { env.b.float(FLOATS, 0.0) };
        vec![zero; PANELS * COLUMNS]
    }

    /// The first panel's codes, its sides, the thread's part of the first token and the turn of its blocks, and the
    /// sums of blocks; its panels, where numbers of tables are read there.
    fn reads(&self, env: &mut Env, s: &Segment, tile: Tile) -> Vec<Val> {
        let places = self.places();
        let ((half, quarter), (row, t), (panel, _)) = (ALONE.place(env), thread_of(env), thread_rows(env));
        let panels = env.b.mul_const(half, PANELS as i64);
        let panel = env.b.add(panels, panel);
        let codes = env.b.mul_const(panel, self.codes_step() as i64);
        let sides = env.b.mul_const(panel, self.side_step() as i64);
        let sides = env.b.add_const(sides, places.sides as i64);
        let token = env.b.mul_const(quarter, ALONE.tokens() as i64);
        let own = env.b.add(token, row);
        let line = env.b.mul_const(own, self.token_step() as i64);
        let part = env.b.mul_const(t, 8);
        let line = env.b.add(line, part);
        let line = env.b.add_const(line, places.rows as i64);
        let two = env.b.mul_const(t, 2);
        let first = env.b.add(token, two);
        let sums = env.b.mul_const(first, self.sums_step() as i64);
        let sums = env.b.add_const(sums, places.sums as i64);
        let mut reads = vec![codes, sides, line, self.turn(env, row), sums];
        if self.table.is_some() {
            reads.extend((0..PANELS / 2).map(|pair| panel_of(env, (s, tile, ALONE), pair)));
        }
        reads
    }

    /// A group after another: they are many instructions, and more of them at once would take more registers than
    /// there are.
    fn multiply(&self, env: &mut Env, at: (Val, Val), reads: &[Val], sums: &[Val]) -> Vec<Val> {
        let (lo, hi, one) = (env.b.index(0), env.b.index(self.groups()), env.b.index(1));
        env.for_carried((lo, hi, one), sums, |env, group, sums| {
            let at = At::new(env, self, at, reads, group);
            let mut sums = sums.to_vec();
            self.group(env, &at, &mut sums);
            sums
        })
    }

    fn finish(&self, env: &mut Env, s: &Segment, tile: Tile, x: Val, sums: Vec<Val>) -> Vec<Val> {
        let columns = self.column_factors(env, tile, x);
        let mut out = Vec::with_capacity(sums.len());
        for (pair, sums) in sums.chunks(2 * COLUMNS).enumerate() {
            let scales = panel_scales(env, (s, tile, ALONE), &self.layout, pair);
            for (i, sum) in sums.iter().enumerate() {
                let scales = scales.map(|scales| of_pair(env, scales, (i / COLUMNS) as u16));
                out.push(columns[i % COLUMNS].times(env, *sum, scales));
            }
        }
        out
    }
}

/// Values of a thread's two columns in the order of its sums.
pub(super) fn of_columns(env: &mut Env, values: [Val; 2]) -> Val {
    let first = env.b.splat(values[0], 4);
    let one = env.b.insert(first, 1, values[1]);
    env.b.insert(one, 3, values[1])
}
