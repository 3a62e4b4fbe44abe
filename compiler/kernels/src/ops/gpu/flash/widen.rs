//! A page of bytes as binary16: times the scale of their position.

use super::{COPY, Flash, Item, STAGES, halves_bytes, swizzle};
use crate::env::Env;
use crate::kir::{Cast, Elem, Hint, Ty, Val};
use crate::layout::PAGE;

/// Elements of a piece of binary16.
const ELEMENTS: usize = COPY / 2;

impl Flash<'_> {
    /// The page at `page` in binary16, keys before values; all threads of the group come here together, and read none of
    /// the page before.
    pub(super) fn widen(&self, env: &mut Env, item: Item, page: Val) -> Val {
        let layout = self.kernel.cache.layout;
        let wide = env.b.ptr_add_const(item.shared, STAGES * 2 * layout.head_bytes());
        for part in 0..2 {
            let from = env.b.ptr_add_const(page, part * layout.head_bytes());
            let to = env.b.ptr_add_const(wide, part * halves_bytes(self.kernel));
            let (end, step) = (env.b.index(halves_bytes(self.kernel) / COPY), env.b.index(env.group.threads));
            env.for_step(env.group.thread, end, step, |env, piece| self.widen_piece(env, part == 0, (from, to), piece));
        }
        env.b.group_barrier();
        wide
    }

    /// Piece `piece` (i64) of keys or of values.
    fn widen_piece(&self, env: &mut Env, keys: bool, (from, to): (Val, Val), piece: Val) {
        let floats = Ty::vector(Elem::F32, ELEMENTS as u16);
        let of_row = if keys { PAGE / ELEMENTS } else { self.head_dim() / ELEMENTS };
        let at = env.at(from, piece, ELEMENTS);
        let bytes = env.b.load_with(floats.with_elem(Elem::I8), at, 0, ELEMENTS as u32, Hint::None);
        let wide = self.kernel.cache.layout.wide(&mut env.b, bytes);
        let scales = self.scales_of_piece(env, keys, from, (piece, of_row));
        let values = env.b.mul(wide, scales);
        let half = env.b.cast(Cast::F32ToF16, values, floats.with_elem(Elem::I16));
        let words = env.b.cast(Cast::Bitcast, half, Ty::vector(Elem::I32, 4));
        let place = swizzle(env, piece, of_row);
        let to = env.b.ptr_add(to, place);
        env.b.store_with(words, to, 0, COPY as u32);
    }

    /// The scales of the elements of a piece, of `of_row` in a row: positions follow each other in a row of keys, and are
    /// rows of values.
    fn scales_of_piece(&self, env: &mut Env, keys: bool, head: Val, (piece, of_row): (Val, usize)) -> Val {
        let (offset, count) = (self.kernel.cache.layout.scale_offset() as i32, env.b.index(of_row));
        if keys {
            let first = env.b.rem(piece, count);
            let at = env.at(head, first, 4 * ELEMENTS);
            return env.b.load_with(Ty::vector(Elem::F32, ELEMENTS as u16), at, offset, COPY as u32, Hint::None);
        }
        let position = env.b.div(piece, count);
        let at = env.at(head, position, 4);
        let scale = env.b.load(Ty::F32, at, offset);
        env.b.splat(scale, ELEMENTS as u16)
    }
}
