//! Weights that become words of bf16 in registers.
//!
//! Elements of k of a token come in the order of [`crate::group::pair_place`]: thread t of a row, whose words meet words t
//! and t + 4 of a product, so has words 4t and the three after it of each 32 elements of k of the weights, two of them in
//! each product.

use super::super::coded::times_scales;
use super::super::copies::{COPY, Lines, PanelPart, Pieces};
use super::super::{Form, TILE_PANELS, TILE_TOKENS, TOGETHER, Tile, thread_rows};
use super::{LANES, LINE, columns_of, token_place};
use crate::env::Env;
use crate::formats::WeightFormat;
use crate::formats::codes::BLOCK;
use crate::formats::float_rows::FloatRows;
use crate::formats::pairs::PairAt;
use crate::kir::{BinOp, Elem, Hint, Mma, Ty, Val};
use crate::layout::PANEL;
use crate::ops::gpu::fragments::{operand, thread_of};
use crate::ops::linear::Segment;

/// Elements of k of a step.
const STEP: usize = LINE / 2;
/// Elements of k of a product, and products of 32 elements.
const PRODUCT: usize = 16;
const HALVES: usize = 2;
/// Pieces whose places are exchanged among them.
const EXCHANGED: usize = 8;

const WORDS: Ty = Ty::vector(Elem::I32, 4);

/// Products of weights that become bf16, with one scale for a row or none.
pub(in super::super) struct WideFloats {
    rows: FloatRows,
    /// Bytes from one row of x to the next.
    x_stride: usize,
}

impl WideFloats {
    /// If weights of this format are taken this way.
    pub(in super::super) fn new(format: WeightFormat, k: usize, x_stride: usize) -> Option<WideFloats> {
        let rows = FloatRows { format, k, count: 4 };
        let takes = format == WeightFormat::Bf16 || FloatRows::takes(format) && rows.group_blocks().is_none();
        takes.then_some(WideFloats { rows, x_stride })
    }

    /// Where in a panel elements begin.
    fn first(&self) -> usize {
        if self.rows.format == WeightFormat::Bf16 { 0 } else { self.rows.first() }
    }

    /// Bytes of an element of a row.
    fn elem(&self) -> usize {
        if self.rows.format == WeightFormat::Bf16 { 2 } else { self.rows.block_bytes() / (PANEL * BLOCK) }
    }

    /// Bytes of a step of a panel, of all panels, and of what a thread has of 32 elements of k in all rows.
    fn panel_step(&self) -> usize {
        STEP * PANEL * self.elem()
    }

    fn all_panels(&self) -> usize {
        TILE_PANELS * self.panel_step()
    }

    fn quarter(&self) -> usize {
        8 * PANEL * self.elem()
    }

    /// What the number of a piece of thread `t`, or of panel `panel`, is flipped by, so that the threads of a warp read
    /// different banks: bits 1 and 2 by `t`, bit 0 by the panel where a quarter has no more pieces than that.
    fn flip(&self, env: &mut Env, t: Val, panel: Val) -> Val {
        let one = env.b.int(Ty::I64, 1);
        let by_thread = env.b.shl(t, one);
        if self.quarter() / COPY > EXCHANGED {
            return by_thread;
        }
        let odd = env.b.and(panel, one);
        env.b.or(by_thread, odd)
    }

    /// The place of piece `piece` (i64) of a panel's step.
    fn place(&self, env: &mut Env, panel: Val, piece: Val) -> Val {
        let (quarter, four) = (env.b.index(self.quarter() / COPY), env.b.index(4));
        let t = env.b.div(piece, quarter);
        let t = env.b.rem(t, four);
        let flip = self.flip(env, t, panel);
        env.b.bin(BinOp::Xor, piece, flip)
    }

    /// Where index `index` of a quarter is: its first piece among those that are exchanged, and bytes of all such before
    /// them.
    fn piece_of(&self, index: usize) -> (usize, usize) {
        let pieces = self.per_index();
        (index * pieces % EXCHANGED, index * pieces / EXCHANGED * EXCHANGED * COPY)
    }

    /// Pieces of an index, which is a word of bf16 or an element of k.
    fn per_index(&self) -> usize {
        if self.rows.format == WeightFormat::Bf16 { 4 } else { PANEL * self.elem() / COPY }
    }

    /// The words of a product as sums of words: of its first and its last eight elements.
    fn words(&self, env: &mut Env, stage: Val, reads: &[Val], product: usize) -> Vec<[Val; 2]> {
        let block = product / HALVES * 4 * self.quarter();
        let at = |index: usize| {
            let (piece, more) = self.piece_of(index);
            (reads[piece / self.per_index()], block + more)
        };
        if self.rows.format == WeightFormat::Bf16 {
            return vec![[0, 1].map(|second| {
                let (offset, more) = at(HALVES * (product % HALVES) + second);
                let at = env.b.ptr_add(stage, offset);
                env.b.load_with(WORDS, at, more as i32, 16, Hint::None)
            })];
        }
        let zero = env.b.index(0);
        let none = PairAt { row: zero, part: zero };
        let [low, high] = [0, 2].map(|first| {
            let loaded = [0, 1].map(|second| {
                let (offset, more) = at(4 * (product % HALVES) + first + second);
                let at = env.b.ptr_add(stage, offset);
                self.rows.load(env, at, more)
            });
            self.rows.pairs(env, none, loaded, None)
        });
        low.into_iter().zip(high).map(|(low, high)| [low, high]).collect()
    }
}

impl Form for WideFloats {
    fn step(&self) -> usize {
        STEP
    }

    fn stage(&self) -> usize {
        self.all_panels() + TILE_TOKENS * LINE
    }

    fn is_wide(&self) -> bool {
        true
    }

    fn copies(&self, env: &mut Env, s: &Segment, tile: Tile, x: Val) -> Vec<Pieces> {
        let step = self.panel_step();
        let part = PanelPart { offset: self.first(), step, to: (0, step) };
        let place = |env: &mut Env, panel: Val, piece: Val| self.place(env, panel, piece);
        let weights = Lines::of_panels(env, (s, tile), part, (&place, 2));
        let to = (LINE, self.all_panels());
        let rows = Lines::of_tokens(tile, (x, self.x_stride), to, (&token_place, 8));
        vec![weights.pieces(env), rows.pieces(env)]
    }

    /// A pair of rows and all columns in each.
    fn zeros(&self, env: &mut Env) -> Vec<Val> {
        vec![env.b.float(Ty::vector(Elem::F32, LANES), 0.0); 2]
    }

    /// Where the thread's rows of each of its pieces are that are exchanged.
    fn reads(&self, env: &mut Env, _s: &Segment, _tile: Tile) -> Vec<Val> {
        let ((own, _), (_, t), (odd, quad)) = (TOGETHER.place(env), thread_of(env), thread_rows(env));
        let panels = env.b.mul_const(own, TOGETHER.panels() as i64);
        let panel = env.b.add(panels, odd);
        let line = env.b.mul_const(panel, self.panel_step() as i64);
        let quarter = env.b.mul_const(t, self.quarter() as i64);
        let line = env.b.add(line, quarter);
        // Four rows of an index, whose pieces come one after the other.
        let bytes = self.per_index() * COPY / 4;
        let rows = env.b.mul_const(quad, bytes as i64);
        let (size, flip) = (env.b.index(COPY), self.flip(env, t, panel));
        let (piece, within) = (env.b.div(rows, size), env.b.rem(rows, size));
        let line = env.b.add(line, within);
        let first = env.b.bin(BinOp::Xor, piece, flip);
        let of_piece = |number: usize| {
            let number = env.b.index(number);
            let place = env.b.bin(BinOp::Xor, first, number);
            let place = env.b.mul_const(place, COPY as i64);
            env.b.add(line, place)
        };
        (0..EXCHANGED).step_by(self.per_index()).map(of_piece).collect()
    }

    fn multiply(&self, env: &mut Env, (stage, _): (Val, Val), reads: &[Val], sums: &[Val]) -> Vec<Val> {
        let (mut sums, mut kept) = (sums.to_vec(), Vec::new());
        for product in 0..STEP / PRODUCT {
            let columns = env.b.ptr_add_const(stage, self.all_panels() + 2 * PRODUCT * product);
            let words = self.words(env, stage, reads, product);
            for [low, high] in &words {
                for (rows, sum) in sums.iter_mut().enumerate() {
                    let a = operand(env, *low, *high, rows as u16);
                    *sum = env.b.wgmma(Mma::Bf16, *sum, a, columns);
                    kept.push(a);
                }
            }
            // Factors stay in registers up to the wait: of weights that are sums of two words there are twice as many.
            if words.len() > 1 && product % HALVES == 1 || product + 1 == STEP / PRODUCT {
                sums = sums.into_iter().map(|sum| env.b.wgmma_wait(sum, kept.clone())).collect();
                kept.clear();
            }
        }
        sums
    }

    fn finish(&self, env: &mut Env, s: &Segment, tile: Tile, _x: Val, sums: Vec<Val>) -> Vec<Val> {
        let sums = columns_of(env, &sums);
        times_scales(env, (s, tile, TOGETHER), &self.rows, sums)
    }
}
