//! Tiles of bf16 whose tokens the matrix units of four warps read in shared memory: a warp takes its rows of two panels
//! to registers and multiplies them with all tokens.
//!
//! A product takes 16 elements of k of a token's line as they stand there. Those come in the order of
//! [`crate::group::pair_place`]: thread t of a row, whose words meet words t and t + 4 of a product, so has words 4t and
//! the three after it of each 32 elements of k of the weights, two of them in each product.

use super::copies::{COPY, Lines, PanelPart, Pieces};
use super::{Form, Shares, TILE_PANELS, TILE_TOKENS, Tile, WARPS, thread_rows};
use crate::env::Env;
use crate::group::K_GROUP;
use crate::kir::{BinOp, Elem, Hint, Mma, Ty, Val};
use crate::layout::PANEL;
use crate::ops::gpu::fragments::{operand, thread_of};
use crate::ops::linear::Segment;

/// Elements of k of a step: a line of 128 bytes of a token.
const STEP: usize = 64;
/// Elements of k of a product.
const PRODUCT: usize = 16;
/// Bytes of a word of each row of a panel.
const WORD: usize = 4 * PANEL;
/// Bytes of a step of a panel, of a token, and of all panels.
const PANEL_STEP: usize = STEP / 2 * WORD;
const TOKEN_STEP: usize = STEP * 2;
const ALL_PANELS: usize = TILE_PANELS * PANEL_STEP;
/// Steps in shared memory.
const STAGES: usize = 4;
const SHARES: Shares = Shares { panels: WARPS, tokens: 1 };

/// Products of weights in bf16.
pub(super) struct Wide {
    /// Bytes from one row of x to the next.
    pub x_stride: usize,
}

impl Form for Wide {
    fn step(&self) -> usize {
        STEP
    }

    fn stage(&self) -> usize {
        ALL_PANELS + TILE_TOKENS * TOKEN_STEP
    }

    fn shares(&self) -> Shares {
        SHARES
    }

    fn stages(&self) -> usize {
        STAGES
    }

    fn is_fenced(&self) -> bool {
        true
    }

    fn copies(&self, env: &mut Env, s: &Segment, tile: Tile, x: Val) -> Vec<Pieces> {
        let part = PanelPart { offset: 0, step: PANEL_STEP, to: (0, PANEL_STEP) };
        let weights = Lines::of_panels(env, (s, tile), part, (&|env, _, piece| weight_place(env, piece), 1));
        let to = (TOKEN_STEP, ALL_PANELS);
        let rows = Lines::of_tokens(tile, (x, self.x_stride), to, (&token_place, 8));
        vec![weights.pieces(env), rows.pieces(env)]
    }

    /// A pair of rows and all columns in each.
    fn zeros(&self, env: &mut Env) -> Vec<Val> {
        vec![env.b.float(Ty::vector(Elem::F32, 4 * SHARES.columns() as u16), 0.0); 2]
    }

    /// Where the thread's words of even and of odd number are.
    fn reads(&self, env: &mut Env, _s: &Segment, _tile: Tile) -> Vec<Val> {
        let ((own, _), (_, t), (panel, quad)) = (SHARES.place(env), thread_of(env), thread_rows(env));
        let panels = env.b.mul_const(own, SHARES.panels() as i64);
        let panel = env.b.add(panels, panel);
        let panel = env.b.mul_const(panel, PANEL_STEP as i64);
        let first = env.b.mul_const(t, 4 * (WORD / COPY) as i64);
        let first = env.b.add(first, quad);
        [0, 1]
            .map(|odd| {
                let piece = env.b.add_const(first, odd * (WORD / COPY) as i64);
                let place = weight_place(env, piece);
                let within = env.b.mul_const(place, COPY as i64);
                env.b.add(panel, within)
            })
            .to_vec()
    }

    fn multiply(&self, env: &mut Env, (stage, _): (Val, Val), reads: &[Val], sums: &[Val]) -> Vec<Val> {
        let words: Vec<Val> = reads.iter().map(|offset| env.b.ptr_add(stage, *offset)).collect();
        let (mut sums, mut kept) = (sums.to_vec(), Vec::new());
        for product in 0..STEP / PRODUCT {
            let k = product * PRODUCT;
            // Of 32 elements of k a thread has four words, two for each product.
            let offset = k / K_GROUP * (K_GROUP / 2 * WORD) + k % K_GROUP / PRODUCT * 2 * WORD;
            let load = |env: &mut Env, at: Val| env.b.load_with(WORDS, at, offset as i32, 16, Hint::None);
            let (low, high) = (load(env, words[0]), load(env, words[1]));
            let columns = env.b.ptr_add_const(stage, ALL_PANELS + 2 * k);
            for (rows, sum) in sums.iter_mut().enumerate() {
                let a = operand(env, low, high, rows as u16);
                *sum = env.b.wgmma(Mma::Bf16, *sum, a, columns);
                kept.push(a);
            }
        }
        sums.into_iter().map(|sum| env.b.wgmma_wait(sum, kept.clone())).collect()
    }

    fn finish(&self, env: &mut Env, _s: &Segment, _tile: Tile, _x: Val, sums: Vec<Val>) -> Vec<Val> {
        let of_column = |first: u16| (first..first + 4).collect::<Vec<u16>>();
        let columns = |sum: Val| (0..SHARES.columns() as u16).map(move |c| (sum, of_column(4 * c)));
        sums.into_iter().flat_map(columns).map(|(sum, lanes)| env.b.shuffle(sum, sum, lanes)).collect()
    }
}

const WORDS: Ty = Ty::vector(Elem::I32, 4);

/// The place of piece `piece` (i64) of a panel's step, so that the threads of a row read different banks: of each four
/// words pieces are exchanged by the number of these.
fn weight_place(env: &mut Env, piece: Val) -> Val {
    let [one, two] = [(16, 2), (32, 4)].map(|(bit, by)| {
        let (bit, by) = (env.b.index(bit), env.b.int(Ty::I64, by));
        let kept = env.b.and(piece, bit);
        env.b.lshr(kept, by)
    });
    let flip = env.b.or(one, two);
    env.b.bin(BinOp::Xor, piece, flip)
}

/// The place of a piece of a token's line where matrix units look for it.
fn token_place(env: &mut Env, token: Val, piece: Val) -> Val {
    let seven = env.b.index(7);
    let within = env.b.and(token, seven);
    env.b.bin(BinOp::Xor, piece, within)
}
