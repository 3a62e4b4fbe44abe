//! Products in tiles as loops over rows, blocks and words, for targets without tiles.

use crate::kir::func::Val;
use crate::kir::{Builder, Elem, Hint, Ty};
use crate::kir::{TileKind, Tiles};

/// Words of a block, and columns of a panel.
const WORDS: u16 = 16;
/// Bytes of a block, of a vector of a panel and of a row of its sums.
const VECTOR: usize = 4 * WORDS as usize;

/// Emits the product.
pub(super) fn expand(b: &mut Builder, t: Tiles, (x, panels, sums): (Val, Val, Val), rows: Val) {
    let (first, one) = (b.index(0), b.index(1));
    b.for_carried((first, rows, one), &[], |b, row, _| {
        let x = at(b, x, row, t.x_stride as usize);
        let sums = at(b, sums, row, t.sum_stride as usize);
        for panel in 0..t.panels as usize {
            let panels = b.ptr_add_const(panels, panel * t.panel_stride as usize);
            one_row(b, t, (x, panels), (sums, (panel * VECTOR) as i32));
        }
        vec![]
    });
}

/// A row with a panel.
fn one_row(b: &mut Builder, t: Tiles, (x, panel): (Val, Val), (sums, offset): (Val, i32)) {
    let elem = if t.kind == TileKind::I8 { Elem::I32 } else { Elem::F32 };
    let sum = b.load(Ty::vector(elem, WORDS), sums, offset);
    let range = (b.index(0), b.index(t.blocks as usize), b.index(1));
    let sum = b.for_carried(range, &[sum], |b, block, sum| {
        let x = at(b, x, block, VECTOR);
        let panel = at(b, panel, block, usize::from(WORDS) * VECTOR);
        let open = match t.kind {
            TileKind::I8 => sum.to_vec(),
            TileKind::Bf16 => vec![b.float(Ty::vector(elem, WORDS), 0.0); 2],
        };
        let range = (b.index(0), b.index(WORDS.into()), b.index(1));
        let sums = b.for_carried(range, &open, |b, i, sums| word(b, sums, (x, panel), i));
        match sums[..] {
            [low, high] => {
                let both = b.add(low, high);
                vec![b.add(sum[0], both)]
            }
            _ => sums,
        }
    });
    b.store(sum[0], sums, offset);
}

/// The products of word `i` of a block: added to one sum, or to one of each half.
fn word(b: &mut Builder, sums: &[Val], (x, panel): (Val, Val), i: Val) -> Vec<Val> {
    let (x, w) = (at(b, x, i, 4), at(b, panel, i, VECTOR));
    let w = b.load(Ty::vector(Elem::I32, WORDS), w, 0);
    let x = b.load_with(Ty::I32, x, 0, 4, Hint::None);
    if let [sum] = sums {
        let x = b.splat(x, WORDS);
        return vec![b.dot4_i8(*sum, w, x)];
    }
    let halves = [0xffff, -0x1_0000].map(|mask| {
        let mask = b.int(Ty::I32, mask);
        let half = b.and(x, mask);
        b.splat(half, WORDS)
    });
    sums.iter().zip(halves).map(|(sum, x)| b.dot2_bf16(*sum, w, x)).collect()
}

/// `base + index * bytes`.
fn at(b: &mut Builder, base: Val, index: Val, bytes: usize) -> Val {
    let offset = b.mul_const(index, bytes as i64);
    b.ptr_add(base, offset)
}
