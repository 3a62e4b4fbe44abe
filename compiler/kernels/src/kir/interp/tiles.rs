//! Products in tiles, in memory. See [`Tiles`] for what is multiplied.

use super::access::Access;
use super::error::{Addr, Fault};
use super::memory::{Memory, Place};
use super::scalar::{dot4_i8, fma};
use crate::kir::Elem;
use crate::kir::{TileKind, Tiles};

/// Words of a block, and columns of a panel.
const WORDS: usize = 16;
/// Bytes of a block, of a vector of a panel and of a row of its sums.
const VECTOR: usize = 4 * WORDS;

/// The product, with the places of its operands in the frame.
pub(super) struct TileStep {
    pub tiles: Tiles,
    pub x: usize,
    pub panels: usize,
    pub sums: usize,
    pub rows: usize,
}

type Words = [u32; WORDS];

impl TileStep {
    /// Multiplies.
    pub fn run(&self, regs: &[u64], memory: &mut Memory, access: &Access) -> Result<(), Fault> {
        let t = &self.tiles;
        let (rows, least) = (regs[self.rows], u64::from(t.most_rows) - 15);
        if !(least..=u64::from(t.most_rows)).contains(&rows) {
            return Err(Fault::Operand("the number of rows does not fit the tiles"));
        }
        for row in 0..rows {
            for panel in 0..u64::from(t.panels) {
                let x = regs[self.x] + row * u64::from(t.x_stride);
                let weights = regs[self.panels] + panel * u64::from(t.panel_stride);
                let at = place(regs[self.sums] + row * u64::from(t.sum_stride) + panel * VECTOR as u64, 4);
                let mut sums = words(memory.load(at, access)?);
                for block in 0..u64::from(t.blocks) {
                    let xs = words(memory.load(place(x + block * VECTOR as u64, 4), access)?);
                    let first = weights + block * (WORDS * VECTOR) as u64;
                    let vectors =
                        (0..WORDS).map(|i| memory.load(place(first + (i * VECTOR) as u64, 4), access).map(words));
                    add(t.kind, &mut sums, &xs, &vectors.collect::<Result<Vec<_>, _>>()?)?;
                }
                let out = memory.store(at, access)?;
                out.chunks_exact_mut(4).zip(sums).for_each(|(out, sum)| out.copy_from_slice(&sum.to_le_bytes()));
            }
        }
        Ok(())
    }
}

/// Adds a block.
fn add(kind: TileKind, sums: &mut Words, xs: &Words, vectors: &[Words]) -> Result<(), Fault> {
    for (column, sum) in sums.iter_mut().enumerate() {
        let pairs = vectors.iter().map(|v| u64::from(v[column])).zip(xs.iter().map(|x| u64::from(*x)));
        *sum = match kind {
            TileKind::I8 => pairs.clone().try_fold(u64::from(*sum), |sum, (w, x)| dot4_i8(sum, w, x))? as u32,
            TileKind::Bf16 => {
                let half = |shift: u32| {
                    let upper = move |v: u64| (v << shift) & 0xffff_0000;
                    pairs.clone().try_fold(0, |sum, (w, x)| fma(Elem::F32)(upper(w), upper(x), sum))
                };
                let (low, high) = (half(16)? as u32, half(0)? as u32);
                let both = f32::from_bits(low) + f32::from_bits(high);
                (f32::from_bits(*sum) + both).to_bits()
            }
        };
    }
    Ok(())
}

fn place(addr: u64, align: u32) -> Place {
    Place { addr: Addr(addr), len: VECTOR, align }
}

fn words(bytes: &[u8]) -> Words {
    std::array::from_fn(|i| u32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().expect("four bytes")))
}
