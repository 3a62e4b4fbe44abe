//! Quantized weights: what the codes and scales of each [`Scheme`] mean, and how they are chosen.
//!
//! This is the reference: layouts in memory and kernels are elsewhere and must agree with
//! [`Encoded::decode`]. Encoding picks scales, table rows and codes that minimize the squared error
//! of each row, by a fixed search that gives the same bits on every machine.

mod asym;
mod flag;
mod fp8;
mod lookup;
mod nf4;
mod scheme;
mod search;
mod store;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod two_level;
mod uniform;

pub use flag::FlagError;
pub use fp8::{MAX as E4M3_MAX, round as round_e4m3};
pub use nf4::NF4_LEVELS;
pub use scheme::Scheme;
pub use table::TABLE;

use std::borrow::Cow;
use store::f16_value;

/// Codes and scales of some rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// How the weights are stored.
    pub scheme: Scheme,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub k: usize,
    /// `[rows][k]`: the unsigned code of each weight.
    pub codes: Vec<u8>,
    /// `[rows][groups]`: scales of groups, as bits of a binary16 (W8, Int4, Int4Asym, Nf4) or as a
    /// signed integer (W6, W5, W3, W2); else empty. The integers are -127..=127, 0 for a group stored
    /// as zeros, as an i8 in two's complement in the low byte; the high byte is 0.
    pub group_scales: Vec<u16>,
    /// `[rows][groups]`: zero points 0..=15 of Int4Asym; else empty.
    pub zeros: Vec<u8>,
    /// `[rows]`: scales of rows, exact in binary16 (W6, W5, W4, W3, W2) or any f32 (W8A8, Fp8);
    /// else empty.
    pub row_scales: Vec<f32>,
    /// `[rows / 4][ceil(k / 8)]`: rows of [`TABLE`] of W4's tiles; else empty.
    pub tables: Vec<u8>,
}

impl Scheme {
    /// Encodes rows of `k` weights.
    ///
    /// Weights that are not finite count as 0, and every decoded value is finite. All-zero rows and,
    /// where they have scales of their own, groups decode to exactly 0.
    ///
    /// # Panics
    /// If `rows` is not a whole number of rows, for W4 a multiple of 4, or a group is 0.
    pub fn encode(self, rows: &[f32], k: usize) -> Encoded {
        let n = rows.len().checked_div(k).unwrap_or(0);
        assert_eq!(n * k, rows.len(), "weights in rows of {k}");
        assert!(self != Scheme::W4 || n.is_multiple_of(lookup::ROWS), "{n} rows of w4");
        let mut out = Encoded::empty(self, n, k);
        if n == 0 {
            return out;
        }
        let x = self.sanitized(rows);
        if self == Scheme::W4 {
            for block in x.chunks(lookup::ROWS * k) {
                lookup::encode_block([0, 1, 2, 3].map(|r| &block[r * k..(r + 1) * k]), &mut out);
            }
        } else {
            x.chunks(k).for_each(|row| self.encode_row(row, &mut out));
        }
        out
    }

    /// Appends a row of any scheme but W4, which takes rows by four.
    fn encode_row(self, row: &[f32], out: &mut Encoded) {
        let group = self.group().unwrap_or(row.len());
        match self {
            Scheme::W8 { .. } | Scheme::Int4 { .. } => uniform::encode_groups(row, group, out),
            Scheme::W8A8 => uniform::encode_row(row, out),
            Scheme::W6 | Scheme::W5 | Scheme::W3 | Scheme::W2 => two_level::encode_row(row, group, out),
            Scheme::Int4Asym { .. } => asym::encode_groups(row, group, out),
            Scheme::Nf4 { .. } => nf4::encode_groups(row, group, out),
            Scheme::Fp8 => fp8::encode_row(row, out),
            Scheme::W4 => {}
        }
    }

    /// The weights with 0 for those that are not finite. Where scales are binary16, weights beyond
    /// 2^40 become that: all formats saturate far below, and squares stay finite. Beyond 2^120 they
    /// become that for Fp8, so that kernels may move powers of two between values and scales.
    fn sanitized(self, rows: &[f32]) -> Cow<'_, [f32]> {
        let limit = match self {
            Scheme::W8A8 => f32::MAX,
            Scheme::Fp8 => 1.329_228e36,
            _ => 1_099_511_627_776.0,
        };
        if rows.iter().all(|v| v.abs() <= limit) {
            return rows.into();
        }
        rows.iter().map(|&v| if v.is_finite() { v.clamp(-limit, limit) } else { 0.0 }).collect()
    }
}

impl Encoded {
    /// No codes yet, with room for `rows` of `k`.
    fn empty(scheme: Scheme, rows: usize, k: usize) -> Encoded {
        Encoded {
            scheme,
            rows,
            k,
            codes: Vec::with_capacity(rows * k),
            group_scales: Vec::with_capacity(rows * scheme.groups(k)),
            zeros: Vec::new(),
            row_scales: Vec::new(),
            tables: Vec::new(),
        }
    }

    /// The weights that the codes stand for, `[rows][k]`, computed in f32 in this order:
    ///
    /// | scheme | value |
    /// |---|---|
    /// | W8, Int4 | `grid(code) * scale` of the group |
    /// | W8A8 | `grid(code) * row_scale` |
    /// | W6, W5, W3, W2 | `(row_scale * scale of the group) * grid(code)` |
    /// | W4 | `row_scale * TABLE[table of the tile][code]` |
    /// | Int4Asym | `(code - zero of the group) * scale` of the group |
    /// | Nf4 | `NF4_LEVELS[code] * scale` of the group |
    /// | Fp8 | `e4m3fn(code) * row_scale` |
    ///
    /// with `grid` of [`Scheme::grid`], and the low byte of the group's scale sign-extended for W6,
    /// W5, W3 and W2.
    pub fn decode(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.codes.len());
        if self.k > 0 {
            for (r, codes) in self.codes.chunks(self.k).enumerate() {
                self.decode_row(r, codes, &mut out);
            }
        }
        out
    }

    /// Appends the values of row `r`.
    fn decode_row(&self, r: usize, codes: &[u8], out: &mut Vec<f32>) {
        let groups = self.scheme.groups(self.k);
        let scales = self.group_scales.get(r * groups..(r + 1) * groups).unwrap_or(&[]);
        let row_scale = self.row_scales.get(r).copied().unwrap_or(0.0);
        let group = self.scheme.group().unwrap_or(self.k);
        match self.scheme {
            Scheme::W8 { .. } | Scheme::Int4 { .. } => {
                uniform::decode_row(self.scheme, codes, |i| f16_value(scales[i / group]), out);
            }
            Scheme::W8A8 => uniform::decode_row(self.scheme, codes, |_| row_scale, out),
            Scheme::W6 | Scheme::W5 | Scheme::W3 | Scheme::W2 => {
                two_level::decode_row(self.scheme, codes, row_scale, scales, out);
            }
            Scheme::W4 => lookup::decode_row(codes, row_scale, self.tables_of(r), out),
            Scheme::Int4Asym { .. } => {
                asym::decode_row(codes, group, scales, &self.zeros[r * groups..(r + 1) * groups], out);
            }
            Scheme::Nf4 { .. } => nf4::decode_row(codes, group, scales, out),
            Scheme::Fp8 => fp8::decode_row(codes, row_scale, out),
        }
    }

    /// Table rows of W4's tiles along row `r`.
    fn tables_of(&self, r: usize) -> &[u8] {
        let tiles = self.k.div_ceil(8);
        &self.tables[r / lookup::ROWS * tiles..(r / lookup::ROWS + 1) * tiles]
    }
}
