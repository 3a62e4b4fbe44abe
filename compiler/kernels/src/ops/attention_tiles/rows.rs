//! Rows of tokens' heads into lanes and back.

use super::{BYTES, SUM, Tile, TileFrame, WIDTH};
use crate::env::{Env, Rows};
use crate::kir::Val;
use crate::ops::attention::{AttentionKernel, VECTOR};

impl AttentionKernel {
    /// The token of each slot of a tile: slots behind the last token repeat it.
    pub(super) fn tile_token(&self, env: &mut Env, (first, count): (Val, Val), slot: usize) -> Val {
        let most = env.b.add_const(count, -1);
        let slot = env.b.index(slot);
        let slot = env.b.min(slot, most);
        env.b.add(first, slot)
    }

    /// Lanes of the token in a slot; the last one has those that are left over, too.
    pub(super) fn lanes_of(&self, slot: usize) -> std::ops::Range<usize> {
        let end = if slot + 1 == self.tile_tokens() { WIDTH } else { (slot + 1) * self.group() };
        slot * self.group()..end
    }

    /// Address in rows of each lane's head; lanes that are left over have the last head.
    fn lane_heads(&self, env: &mut Env, rows: &Rows, tile: &Tile) -> Vec<Val> {
        let mut heads = Vec::with_capacity(WIDTH);
        for slot in 0..self.tile_tokens() {
            let t = self.tile_token(env, tile.tokens, slot);
            let row = env.row(rows, t);
            let row = env.at(row, tile.kv_head, self.group() * self.head_dim() * 4);
            for lane in self.lanes_of(slot) {
                let head = (lane - slot * self.group()).min(self.group() - 1);
                heads.push(env.b.ptr_add_const(row, head * self.head_dim() * 4));
            }
        }
        heads
    }

    /// Queries by element: a piece of [`LANES`] elements of all heads is a square that is transposed.
    pub(super) fn load_queries(&self, env: &mut Env, frame: &TileFrame, tile: &Tile) {
        let heads = self.lane_heads(env, &self.q, tile);
        env.for_const(self.head_dim(), WIDTH, |env, e| {
            let rows: Vec<Val> = heads
                .iter()
                .map(|head| {
                    let at = env.at(*head, e, 4);
                    env.b.load(VECTOR, at, 0)
                })
                .collect();
            let to = env.at(frame.queries, e, BYTES);
            for (i, v) in transpose(env, rows).into_iter().enumerate() {
                env.b.store(v, to, (i * BYTES) as i32);
            }
        });
    }

    /// Divides by the sums of the weights and writes the result of each token that the tile has.
    pub(super) fn store_tile(&self, env: &mut Env, frame: &TileFrame, tile: &Tile) {
        let sum = env.b.load(VECTOR, frame.stats, (SUM * BYTES) as i32);
        let heads = self.lane_heads(env, &self.out, tile);
        env.for_const(self.head_dim(), WIDTH, |env, e| {
            let from = env.at(frame.values, e, BYTES);
            let columns: Vec<Val> = (0..WIDTH)
                .map(|i| {
                    let v = env.b.load(VECTOR, from, (i * BYTES) as i32);
                    env.b.div(v, sum)
                })
                .collect();
            // Lanes left over have what the lane of the same token and head has.
            for (head, row) in heads.iter().zip(transpose(env, columns)) {
                let to = env.at(*head, e, 4);
                env.b.store(row, to, 0);
            }
        });
    }
}

/// Columns of a square of [`LANES`] rows.
fn transpose(env: &mut Env, mut rows: Vec<Val>) -> Vec<Val> {
    let mut size = 1;
    while size < WIDTH {
        let pick = |odd: usize| {
            let lane = move |i: usize| if i & size == 0 { i + odd * size } else { i - size + odd * size + WIDTH };
            (0..WIDTH).map(|i| lane(i) as u16).collect::<Vec<u16>>()
        };
        for i in (0..WIDTH).filter(|i| i & size == 0) {
            let (a, b) = (rows[i], rows[i + size]);
            rows[i] = env.b.shuffle(a, b, pick(0));
            rows[i + size] = env.b.shuffle(a, b, pick(1));
        }
        size *= 2;
    }
    rows
}
