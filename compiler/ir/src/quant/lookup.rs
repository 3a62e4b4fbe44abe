//! W4: a binary16 scale per row, a row of [`TABLE`] per tile of 4 rows by 8 elements.

use super::Encoded;
use super::store::{absmax, f16_bits, f16_value};
use super::table::{CELLS, LEVEL, NEAREST, TABLE, cell};

/// Rows of a tile.
pub(super) const ROWS: usize = 4;
/// Elements of a row in a tile.
const COLUMNS: usize = 8;

/// Scales tried for the rows, as parts of those with which no weight is clipped, until two in a row
/// are worse than the best.
const PARTS: [f32; 9] = [0.95, 0.85, 1.05, 0.75, 0.65, 0.55, 0.45, 0.35, 0.25];

/// Which table rows of an orientation to look at, likely ones first: distances from the last that
/// clips nothing, positive for shorter rows.
type Window = &'static [isize];

/// Enough to rank scales.
const NARROW: Window = &[1, 0];
/// On normal weights, a wider window gains about 0.01 dB.
const WIDE: Window = &[1, 0, 2, -1, 3, -2];

/// Four rows and the state of their encoding.
struct Block<'a> {
    /// The rows.
    x: [&'a [f32]; ROWS],
    /// Their scales.
    scales: [f32; ROWS],
    /// Table row of each tile.
    tables: Vec<u8>,
}

/// What a pass over the tiles found.
#[derive(Default)]
struct Sums {
    /// Squared error.
    error: f64,
    /// Sum of weight times table integer, per row.
    xv: [f64; ROWS],
    /// Sum of squares of table integers, per row.
    vv: [f64; ROWS],
}

/// The weights of a tile divided by their rows' scales.
struct Tile {
    /// The quotients, in units of table integers.
    u: [[f32; COLUMNS]; ROWS],
    /// Their cells.
    cells: [[u16; COLUMNS]; ROWS],
    /// The largest quotient, or 0 if that is less.
    max: f32,
    /// The least quotient, or 0 if that is larger.
    min: f32,
}

/// Encodes four rows: scales from a coarse search, then one refinement by least squares.
pub(super) fn encode_block(x: [&[f32]; ROWS], out: &mut Encoded) {
    let tiles = x[0].len().div_ceil(COLUMNS);
    let mut block = Block { x, scales: [0.0; ROWS], tables: vec![0; tiles] };
    block.scales = block.search();
    let sums = block.pass(WIDE);
    block.scales = block.refit(&sums);
    block.pass(WIDE);
    block.write(out);
}

/// For each row a length proportional to its root mean square, such that no weight of the four rows
/// is longer than its row's.
fn spans(x: &[&[f32]; ROWS]) -> [f32; ROWS] {
    let rms = x.map(|row| {
        let sum: f64 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        (sum / row.len().max(1) as f64).sqrt() as f32
    });
    let crest = |r: usize| if rms[r] > 0.0 { absmax(x[r]) / rms[r] } else { 0.0 };
    let crest = (0..ROWS).map(crest).fold(0.0, f32::max);
    rms.map(|r| r * crest)
}

/// The binary16 nearest to `scale`.
fn representable(scale: f32) -> f32 {
    f16_value(f16_bits(scale.abs()))
}

impl Block<'_> {
    /// Refined scales of the best of [`PARTS`].
    fn search(&mut self) -> [f32; ROWS] {
        let spans = spans(&self.x);
        let (mut best, mut least, mut worse) = ([0.0; ROWS], f64::INFINITY, 0);
        for part in PARTS {
            self.scales = spans.map(|s| representable(s * part / 127.0));
            let sums = self.pass(NARROW);
            if sums.error < least {
                (best, least, worse) = (self.refit(&sums), sums.error, 0);
            } else {
                worse += 1;
            }
            if worse == 2 {
                break;
            }
        }
        best
    }

    /// Chooses the best table row of every tile within a window, at the current scales.
    fn pass(&mut self, window: Window) -> Sums {
        let inverse = self.scales.map(|s| if s > 0.0 { s.recip() } else { 0.0 });
        let largest = self.scales.iter().fold(0f32, |m, &s| m.max(s));
        let weights = self.scales.map(|s| if largest > 0.0 { (s / largest) * (s / largest) } else { 0.0 });
        let mut sums = Sums::default();
        for t in 0..self.tables.len() {
            let tile = self.tile(t, &inverse);
            let (j, error) = tile.best_row(&weights, window);
            self.tables[t] = j as u8;
            sums.error += f64::from(error) * f64::from(largest) * f64::from(largest);
            self.accumulate(&tile, t, j, &mut sums);
        }
        let unscaled = (0..ROWS).filter(|&r| self.scales[r] == 0.0);
        sums.error += unscaled.flat_map(|r| self.x[r]).map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
        sums
    }

    /// The tile at elements `t * COLUMNS ..`; beyond the end of the rows it holds zeros.
    fn tile(&self, t: usize, inverse: &[f32; ROWS]) -> Tile {
        let mut tile = Tile { u: [[0.0; COLUMNS]; ROWS], cells: [[0; COLUMNS]; ROWS], max: 0.0, min: 0.0 };
        for (r, inverse) in inverse.iter().enumerate() {
            for (u, &v) in tile.u[r].iter_mut().zip(self.part(r, t)) {
                *u = (v * inverse).clamp(-1e15, 1e15);
            }
            for i in 0..COLUMNS {
                let u = tile.u[r][i];
                tile.cells[r][i] = cell(u);
                tile.max = tile.max.max(u);
                tile.min = tile.min.min(u);
            }
        }
        tile
    }

    /// The elements of row `r` in tile `t`: fewer than [`COLUMNS`] at the end.
    fn part(&self, r: usize, t: usize) -> &[f32] {
        let row = self.x[r];
        &row[t * COLUMNS..row.len().min((t + 1) * COLUMNS)]
    }

    /// Adds a tile to the sums that [`Block::refit`] needs.
    fn accumulate(&self, tile: &Tile, t: usize, j: usize, sums: &mut Sums) {
        for r in 0..ROWS {
            let (mut xv, mut vv) = (0f32, 0f32);
            for (&x, &cell) in self.part(r, t).iter().zip(&tile.cells[r]) {
                let v = LEVEL[j][usize::from(cell) % CELLS];
                xv += x * v;
                vv += v * v;
            }
            sums.xv[r] += f64::from(xv);
            sums.vv[r] += f64::from(vv);
        }
    }

    /// The scales of least squared error for the codes that a pass found.
    fn refit(&self, sums: &Sums) -> [f32; ROWS] {
        let fitted = |r: usize| {
            let scale = representable((sums.xv[r] / sums.vv[r]) as f32);
            if sums.vv[r] > 0.0 && scale > 0.0 { scale } else { self.scales[r] }
        };
        [0, 1, 2, 3].map(fitted)
    }

    /// Appends the result.
    fn write(&self, out: &mut Encoded) {
        for r in 0..ROWS {
            let inverse = if self.scales[r] > 0.0 { self.scales[r].recip() } else { 0.0 };
            for (x, &j) in self.x[r].chunks(COLUMNS).zip(&self.tables) {
                let nearest = &NEAREST[usize::from(j)];
                out.codes.extend(x.iter().map(|&v| nearest[usize::from(cell(v * inverse))]));
            }
        }
        out.row_scales.extend(self.scales);
        out.tables.extend(&self.tables);
    }
}

impl Tile {
    /// The table row of least error, and that error. Rows of the tile count by `weights`.
    fn best_row(&self, weights: &[f32; ROWS], window: Window) -> (usize, f32) {
        // The longer side of the codebook reaches as far as the table integer, the shorter 0.83 of it.
        let upright = (-self.min).max(self.max * SHORTER);
        let mirrored = self.max.max(-self.min * SHORTER);
        let mut best = (0, f32::INFINITY);
        for (sign, reach) in [(0, upright), (1, mirrored)] {
            let last = REACHES.partition_point(|&r| r >= reach).max(1) - 1;
            for p in window.iter().filter_map(|&d| last.checked_add_signed(d)).filter(|&p| p < REACHES.len()) {
                let j = 2 * p + sign;
                let error = self.error(&LEVEL[j], weights, best.1);
                if error < best.1 {
                    best = (j, error);
                }
            }
        }
        best
    }

    /// Squared error in the levels of a table row, or a partial sum above `bound`.
    fn error(&self, levels: &[f32; CELLS], weights: &[f32; ROWS], bound: f32) -> f32 {
        let mut error = 0.0;
        for (r, weight) in weights.iter().enumerate() {
            let mut lanes = [0f32; COLUMNS];
            for (i, lane) in lanes.iter_mut().enumerate() {
                let d = self.u[r][i] - levels[usize::from(self.cells[r][i]) % CELLS];
                *lane = d * d;
            }
            error += weight * lanes.iter().sum::<f32>();
            if r % 2 == 1 && error >= bound {
                break;
            }
        }
        error
    }
}

/// Length of the longer side of table rows 2p and 2p + 1.
const REACHES: [f32; 16] = {
    let mut reaches = [0.0; 16];
    let mut p = 0;
    while p < 16 {
        reaches[p] = -(TABLE[2 * p][0] as f32);
        p += 1;
    }
    reaches
};

/// Length of the longer side over that of the shorter.
const SHORTER: f32 = TABLE[0][0] as f32 / -(TABLE[0][15] as f32);

/// Values of a row of codes: `row_scale * TABLE[j][code]`, j that of the element's tile.
pub(super) fn decode_row(codes: &[u8], row_scale: f32, tables: &[u8], out: &mut Vec<f32>) {
    for (codes, &j) in codes.chunks(COLUMNS).zip(tables) {
        let table = &TABLE[usize::from(j) % TABLE.len()];
        out.extend(codes.iter().map(|&c| row_scale * f32::from(table[usize::from(c) % 16])));
    }
}
