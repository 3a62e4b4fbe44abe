//! The state of AMX tiles and what instructions do to it, after the operations in the Intel SDM (volume 2).

use super::instruction::Product;

/// Most rows of a tile.
const ROWS: usize = 16;
/// Most bytes of a row.
const ROW_BYTES: usize = 64;

/// One tile: its shape, and its rows, which are zero beyond the shape.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    row_bytes: usize,
    bytes: [[u8; ROW_BYTES]; ROWS],
}

impl Tile {
    const EMPTY: Tile = Tile { rows: 0, row_bytes: 0, bytes: [[0; ROW_BYTES]; ROWS] };

    fn word(&self, row: usize, word: usize) -> [u8; 4] {
        self.bytes[row][4 * word..][..4].try_into().expect("four bytes")
    }
}

/// All tiles of a thread.
pub(super) struct Tiles([Tile; 8]);

impl Tiles {
    pub(super) const RELEASED: Tiles = Tiles([Tile::EMPTY; 8]);

    /// Takes shapes from a configuration.
    ///
    /// # Errors
    /// What the processor would refuse.
    pub(super) fn configure(&mut self, config: &[u8; 64]) -> Result<(), String> {
        let reserved = config[1..16].iter().chain(&config[32..48]).chain(&config[56..]);
        if config[0] != 1 || reserved.into_iter().any(|b| *b != 0) {
            return Err(format!("a configuration of tiles that is none: {config:?}"));
        }
        *self = Tiles::RELEASED;
        for (i, tile) in self.0.iter_mut().enumerate() {
            tile.row_bytes = usize::from(u16::from_le_bytes([config[16 + 2 * i], config[17 + 2 * i]]));
            tile.rows = usize::from(config[48 + i]);
            if tile.rows > ROWS || tile.row_bytes > ROW_BYTES || (tile.rows == 0) != (tile.row_bytes == 0) {
                return Err(format!("tile {i} with {} rows of {} bytes", tile.rows, tile.row_bytes));
            }
        }
        Ok(())
    }

    fn tile(&mut self, tile: u8) -> Result<&mut Tile, String> {
        let found = &mut self.0[usize::from(tile)];
        if found.rows == 0 { Err(format!("tile {tile} has no shape")) } else { Ok(found) }
    }

    pub(super) fn zero(&mut self, tile: u8) -> Result<(), String> {
        self.tile(tile)?.bytes = Tile::EMPTY.bytes;
        Ok(())
    }

    /// The rows of a tile, in order, all else of it zero: to be written from memory.
    pub(super) fn cleared(&mut self, tile: u8) -> Result<impl Iterator<Item = &mut [u8]>, String> {
        self.zero(tile)?;
        let tile = self.tile(tile)?;
        Ok(tile.bytes[..tile.rows].iter_mut().map(|row| &mut row[..tile.row_bytes]))
    }

    /// The rows of a tile, in order.
    pub(super) fn rows(&mut self, tile: u8) -> Result<impl Iterator<Item = &[u8]>, String> {
        let tile = self.tile(tile)?;
        Ok(tile.bytes[..tile.rows].iter().map(|row| &row[..tile.row_bytes]))
    }

    /// Adds a product of two tiles to a third.
    pub(super) fn multiply(&mut self, product: Product, sums: u8, [a, b]: [u8; 2]) -> Result<(), String> {
        if sums == a || sums == b || a == b {
            return Err(format!("a product of tiles {a} and {b} in tile {sums}"));
        }
        let (left, right) = (*self.tile(a)?, *self.tile(b)?);
        let to = self.tile(sums)?;
        if to.rows != left.rows || to.row_bytes != right.row_bytes || left.row_bytes != 4 * right.rows {
            return Err(format!("a product of tiles {a} and {b} in tile {sums}, whose shapes do not fit"));
        }
        for row in 0..to.rows {
            for column in 0..to.row_bytes / 4 {
                let pairs = (0..right.rows).map(|k| (left.word(row, k), right.word(k, column)));
                let before = to.word(row, column);
                let sum = match product {
                    Product::Bytes { signed } => integers(signed, i32::from_le_bytes(before), pairs).to_le_bytes(),
                    Product::Bf16 => floats(f32::from_le_bytes(before), pairs).to_le_bytes(),
                };
                to.bytes[row][4 * column..][..4].copy_from_slice(&sum);
            }
        }
        Ok(())
    }
}

/// Sums of products of bytes wrap.
fn integers(signed: [bool; 2], sum: i32, pairs: impl Iterator<Item = ([u8; 4], [u8; 4])>) -> i32 {
    let wide = |byte: u8, signed: bool| if signed { i32::from(byte as i8) } else { i32::from(byte) };
    let product = |(a, b): (u8, u8)| wide(a, signed[0]) * wide(b, signed[1]);
    let products = pairs.flat_map(|(a, b)| std::iter::zip(a, b)).map(product);
    products.fold(sum, i32::wrapping_add)
}

/// Lower and upper halves are summed apart by fused multiply-adds, then both are added to the sum; subnormal numbers
/// count and come out as zero.
fn floats(sum: f32, pairs: impl Iterator<Item = ([u8; 4], [u8; 4])>) -> f32 {
    let half = |word: [u8; 4], half: usize| flushed(f32::from_le_bytes([0, 0, word[2 * half], word[2 * half + 1]]));
    let halves =
        pairs.fold([0.0f32; 2], |sums, (a, b)| [0, 1].map(|h| flushed(half(a, h).mul_add(half(b, h), sums[h]))));
    flushed(flushed(sum) + flushed(halves[0] + halves[1]))
}

fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0.0f32.copysign(value) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shapes of three tiles: sums of `rows` rows and `columns` columns, over `words` words of k.
    fn tiles(rows: usize, columns: usize, words: usize) -> Tiles {
        let mut config = [0u8; 64];
        config[0] = 1;
        for (i, (rows, words)) in [(rows, columns), (rows, words), (words, columns)].into_iter().enumerate() {
            config[16 + 2 * i] = 4 * words as u8;
            config[48 + i] = rows as u8;
        }
        let mut tiles = Tiles::RELEASED;
        tiles.configure(&config).expect("a configuration");
        tiles
    }

    fn fill(tiles: &mut Tiles, tile: u8, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut rest = &bytes[..];
        for row in tiles.cleared(tile).expect("a tile") {
            row.copy_from_slice(rest.split_off(..row.len()).expect("all rows"));
        }
        assert!(rest.is_empty());
    }

    fn words(tiles: &mut Tiles, tile: u8) -> Vec<u32> {
        let rows = tiles.rows(tile).expect("a tile");
        rows.flat_map(|r| r.chunks_exact(4)).map(|w| u32::from_le_bytes(w.try_into().expect("a word"))).collect()
    }

    #[test]
    fn bytes_are_signed_or_not_as_told() {
        for (signed, expected) in
            [([true, false], -255 - 2 * 254 + 3), ([true, true], 1 + 4 + 3), ([false, true], -255 - 2 * 254 + 3)]
        {
            let mut t = tiles(1, 1, 1);
            let (negative, other) = ([0xff, 0xfe, 1, 0], [0xff, 0xfe, 3, 7]);
            fill(&mut t, 1, &[u32::from_le_bytes(negative)]);
            fill(&mut t, 2, &[u32::from_le_bytes(other)]);
            t.multiply(Product::Bytes { signed }, 0, [1, 2]).expect("shapes fit");
            assert_eq!(words(&mut t, 0)[0] as i32, expected, "{signed:?}");
        }
    }

    #[test]
    fn rows_meet_columns() {
        let mut t = tiles(2, 3, 2);
        fill(&mut t, 0, &[10, 0, 0, 0, 0, 20]);
        fill(&mut t, 1, &[1, 2, 3, 4]);
        fill(&mut t, 2, &[1, 2, 3, 10, 20, 30]);
        t.multiply(Product::Bytes { signed: [true, false] }, 0, [1, 2]).expect("shapes fit");
        assert_eq!(words(&mut t, 0), [31, 42, 63, 43, 86, 149]);
    }

    #[test]
    fn halves_of_words_are_summed_apart() {
        let bf16 = |low: f32, high: f32| low.to_bits() >> 16 | high.to_bits() & 0xffff_0000;
        let mut t = tiles(1, 1, 2);
        fill(&mut t, 0, &[0.5f32.to_bits()]);
        fill(&mut t, 1, &[bf16(1e30, 2.0), bf16(-1e30, 3.0)]);
        fill(&mut t, 2, &[bf16(1.0, 4.0), bf16(1.0, 1.0)]);
        t.multiply(Product::Bf16, 0, [1, 2]).expect("shapes fit");
        assert_eq!(f32::from_bits(words(&mut t, 0)[0]), 11.5);
        let subnormal = 1u32;
        fill(&mut t, 0, &[subnormal]);
        fill(&mut t, 1, &[0x40; 2]);
        fill(&mut t, 2, &[bf16(3e38, 0.0); 2]);
        t.multiply(Product::Bf16, 0, [1, 2]).expect("shapes fit");
        assert_eq!(words(&mut t, 0), [0]);
    }

    #[test]
    fn what_a_processor_refuses_is_an_error() {
        let mut config = [0u8; 64];
        let mut none = Tiles::RELEASED;
        assert!(none.configure(&config).is_err_and(|e| e.contains("none")));
        (config[0], config[48]) = (1, 3);
        assert!(none.configure(&config).is_err_and(|e| e.contains("3 rows of 0 bytes")));
        assert!(none.zero(5).is_err_and(|e| e.contains("no shape")));
        let mut t = tiles(2, 3, 2);
        let bytes = Product::Bytes { signed: [true, false] };
        assert!(t.multiply(bytes, 0, [2, 1]).is_err_and(|e| e.contains("do not fit")));
        assert!(t.multiply(bytes, 1, [1, 2]).is_err());
    }
}
