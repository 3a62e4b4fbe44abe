//! The table rows of W4.

/// Geometric ratio between the scales of table rows 2p and 2p + 2.
///
/// Optimized with the codebook; 1.06 is 0.08 dB better on normal weights and 0.5 dB worse on
/// Student-t(5), for 16 ratios must span the scales of all tiles of a row.
const RHO: f64 = 1.08;

/// The codebook in units of 1e-5: ascending, its largest absolute value 1, with an exact 0.
///
/// Trained by Lloyd's iteration (encode, then refit each level by least squares) on 0.5 M normal
/// weights in rows of 2048, with the 0 held fixed. It is lopsided because a tile may use it mirrored:
/// the better of two orientations of an asymmetric codebook beats the best symmetric one by 0.2 dB.
const CODEBOOK: [i32; 16] = [
    -100_000, -78_277, -62_307, -49_383, -37_662, -26_989, -17_300, -8_328, 0, 9_497, 18_874, 28_640, 39_228, 51_149,
    65_028, 83_368,
];

/// Integers of W4's 32 table rows, each ascending. Row 2p is `round(127 * RHO^-p * cb)`, halves away
/// from 0, and row 2p + 1 is row 2p mirrored: negated and in reverse order.
///
/// Code 8 of even rows and code 7 of odd rows stand for 0.
pub const TABLE: [[i8; 16]; 32] = table();

/// Computes [`TABLE`].
const fn table() -> [[i8; 16]; 32] {
    let mut rows = [[0i8; 16]; 32];
    let mut scale = 127.0 / 100_000.0;
    let mut p = 0;
    while p < 16 {
        let mut i = 0;
        while i < 16 {
            let v = scale * CODEBOOK[i] as f64;
            let rounded = (if v < 0.0 { v - 0.5 } else { v + 0.5 }) as i8;
            rows[2 * p][i] = rounded;
            rows[2 * p + 1][15 - i] = -rounded;
            i += 1;
        }
        scale /= RHO;
        p += 1;
    }
    rows
}

/// Cells of half an integer that -128..128 is cut into. A midpoint between two integers bounds two
/// cells, so that all numbers of a cell have the same nearest level.
pub(super) const CELLS: usize = 512;

/// Code of the level nearest to the numbers of each cell, for each table row.
pub(super) static NEAREST: [[u8; CELLS]; 32] = nearest();

/// That level, as a float.
pub(super) static LEVEL: [[f32; CELLS]; 32] = level();

/// Computes [`NEAREST`]: at a midpoint, the upper level.
const fn nearest() -> [[u8; CELLS]; 32] {
    let mut codes = [[0u8; CELLS]; 32];
    let mut j = 0;
    while j < 32 {
        let (mut cell, mut code) = (0, 0);
        while cell < CELLS {
            while code < 15 && cell as i32 - 256 >= TABLE[j][code] as i32 + TABLE[j][code + 1] as i32 {
                code += 1;
            }
            codes[j][cell] = code as u8;
            cell += 1;
        }
        j += 1;
    }
    codes
}

/// Computes [`LEVEL`].
const fn level() -> [[f32; CELLS]; 32] {
    let mut levels = [[0.0; CELLS]; 32];
    let mut j = 0;
    while j < 32 {
        let mut cell = 0;
        while cell < CELLS {
            levels[j][cell] = TABLE[j][NEAREST[j][cell] as usize] as f32;
            cell += 1;
        }
        j += 1;
    }
    levels
}

/// The cell of `u`; beyond the ends, the first or last.
pub(super) fn cell(u: f32) -> u16 {
    let shifted = u * 2.0 + 256.0;
    let low = if shifted > 0.0 { shifted } else { 0.0 };
    (if low < 511.0 { low } else { 511.0 }) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_ascend_and_mirror() {
        assert_eq!(TABLE[0], [-127, -99, -79, -63, -48, -34, -22, -11, 0, 12, 24, 36, 50, 65, 83, 106]);
        for (j, row) in TABLE.iter().enumerate() {
            assert!(row.windows(2).all(|w| w[0] < w[1]), "row {j}");
            assert_eq!(row[8 - j % 2], 0, "row {j}");
        }
        for pair in TABLE.as_chunks::<2>().0 {
            assert!((0..16).all(|i| pair[1][i] == -pair[0][15 - i]));
        }
    }

    #[test]
    fn cells_know_the_nearest_level() {
        let far = |j: usize, u: f32, code: u8| (u - f32::from(TABLE[j][usize::from(code)])).abs();
        for j in 0..32 {
            for step in -5200..5200 {
                let u = step as f32 * 0.025;
                let code = NEAREST[j][usize::from(cell(u))];
                let least = (0..16).map(|c| far(j, u, c)).fold(f32::INFINITY, f32::min);
                assert_eq!(far(j, u, code), least, "row {j}, {u}");
                assert_eq!(LEVEL[j][usize::from(cell(u))], f32::from(TABLE[j][usize::from(code)]));
            }
        }
    }
}
