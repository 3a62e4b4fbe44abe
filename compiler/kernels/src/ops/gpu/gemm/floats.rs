//! Tiles of bf16: a word is two elements of k.

use super::copies::{COPY, Lines, PanelPart, Pieces};
use super::{ALONE, COLUMNS, Form, PANELS, TILE_PANELS, TILE_TOKENS, Tile, thread_rows, token_swizzled};
use crate::env::Env;
use crate::kir::{BinOp, Elem, Hint, Mma, Ty, Val};
use crate::layout::PANEL;
use crate::ops::gpu::fragments::{STEP as HALF, thread_of};
use crate::ops::linear::Segment;

/// Elements of k of a step: two halves of as many as a thread loads at once.
const STEP: usize = 2 * HALF;
/// Bytes of a step of a panel, of a token, and of all panels.
const PANEL_STEP: usize = STEP / 2 * PANEL * 4;
const TOKEN_STEP: usize = STEP * 2;
const ALL_PANELS: usize = TILE_PANELS * PANEL_STEP;

/// Products of weights in bf16.
pub(super) struct Floats {
    /// Bytes from one row of x to the next.
    pub x_stride: usize,
}

impl Form for Floats {
    fn step(&self) -> usize {
        STEP
    }

    fn stage(&self) -> usize {
        ALL_PANELS + TILE_TOKENS * TOKEN_STEP
    }

    fn copies(&self, env: &mut Env, s: &Segment, tile: Tile, x: Val) -> Vec<Pieces> {
        let part = PanelPart { offset: 0, step: PANEL_STEP, to: (0, PANEL_STEP) };
        let weights = Lines::of_panels(env, (s, tile), part, (&|env, _, piece| swizzled(env, piece), 1));
        let (x, to) = ((x, self.x_stride), (TOKEN_STEP, ALL_PANELS));
        let rows = Lines::of_tokens(tile, x, to, (&token_swizzled, 2));
        vec![weights.pieces(env), rows.pieces(env)]
    }

    fn zeros(&self, env: &mut Env) -> Vec<Val> {
        vec![env.b.float(Ty::vector(Elem::F32, 4), 0.0); PANELS * COLUMNS]
    }

    /// The first words of a pair of panels, and the words of a token in both halves of a step.
    fn reads(&self, env: &mut Env, _s: &Segment, _tile: Tile) -> Vec<Val> {
        let ((half, quarter), (row, t)) = (ALONE.place(env), thread_of(env));
        let (panel, quad) = thread_rows(env);
        let panels = env.b.mul_const(half, PANELS as i64);
        let panel = env.b.add(panels, panel);
        let panel = env.b.mul_const(panel, PANEL_STEP as i64);
        let piece = env.b.mul_const(t, 4);
        let piece = env.b.add(piece, quad);
        let piece = swizzled(env, piece);
        let piece = env.b.mul_const(piece, COPY as i64);
        let token = env.b.mul_const(quarter, ALONE.tokens() as i64);
        let token = env.b.add(token, row);
        let line = env.b.mul_const(token, TOKEN_STEP as i64);
        let line = env.b.add_const(line, ALL_PANELS as i64);
        let mut reads = vec![env.b.add(panel, piece)];
        for first in [0, 4] {
            let piece = env.b.add_const(t, first);
            let piece = token_swizzled(env, token, piece);
            let within = env.b.mul_const(piece, COPY as i64);
            reads.push(env.b.add(line, within));
        }
        reads
    }

    fn multiply(&self, env: &mut Env, (stage, _): (Val, Val), reads: &[Val], sums: &[Val]) -> Vec<Val> {
        let weights = env.b.ptr_add(stage, reads[0]);
        reads[1..].iter().enumerate().fold(sums.to_vec(), |sums, (half, rows)| {
            let rows = env.b.ptr_add(stage, *rows);
            let weights = env.b.ptr_add_const(weights, half * HALF / 2 * PANEL * 4);
            multiply_half(env, weights, rows, sums)
        })
    }

    fn finish(&self, _env: &mut Env, _s: &Segment, _tile: Tile, _x: Val, sums: Vec<Val>) -> Vec<Val> {
        sums
    }
}

/// The place of piece `piece` (i64) of a panel's step: the pieces of every second two words are exchanged by
/// twos, so that a warp's reads fall into different banks.
fn swizzled(env: &mut Env, piece: Val) -> Val {
    // Piece 4 * word + quad; quad bit 1 is flipped where word bit 1 is set.
    let (two, by) = (env.b.index(8), env.b.int(Ty::I64, 2));
    let odd = env.b.and(piece, two);
    let flip = env.b.lshr(odd, by);
    env.b.bin(BinOp::Xor, piece, flip)
}

/// Adds the products of half a step.
fn multiply_half(env: &mut Env, weights: Val, rows: Val, mut sums: Vec<Val>) -> Vec<Val> {
    let quad = Ty::vector(Elem::I32, 4);
    let load = |env: &mut Env, at: Val, offset: usize| env.b.load_with(quad, at, offset as i32, 16, Hint::None);
    let x: Vec<Val> = (0..COLUMNS).map(|c| load(env, rows, 8 * c * TOKEN_STEP)).collect();
    for half in 0..2u16 {
        let b: Vec<Val> = x.iter().map(|x| env.b.shuffle(*x, *x, vec![2 * half, 2 * half + 1])).collect();
        for pair in 0..PANELS / 2 {
            // Words t + 4j of a step lie 16 pieces apart; j = 2 * half, 2 * half + 1.
            let word = |j: usize| pair * 2 * PANEL_STEP + j * 16 * COPY;
            let j = 2 * usize::from(half);
            let (low, high) = (load(env, weights, word(j)), load(env, weights, word(j + 1)));
            for rows in 0..2u16 {
                let a = env.b.shuffle(low, high, vec![2 * rows, 2 * rows + 1, 4 + 2 * rows, 5 + 2 * rows]);
                for (column, b) in b.iter().enumerate() {
                    let sum = &mut sums[(pair * 2 + usize::from(rows)) * COLUMNS + column];
                    *sum = env.b.mma(Mma::Bf16, *sum, a, *b);
                }
            }
        }
    }
    sums
}
