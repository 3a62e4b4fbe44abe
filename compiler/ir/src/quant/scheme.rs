//! The schemes: their names, sizes and integer grids.

use std::fmt;

/// A way to store weights in few bits.
///
/// `W*` are this project's formats; the others are interchange formats. A row holds the weights of
/// one output channel. The value of a code in each scheme is documented at [`Encoded::decode`].
///
/// [`Encoded::decode`]: super::Encoded::decode
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Symmetric int8, one binary16 scale per group.
    W8 {
        /// Elements that share a scale, at least 1.
        group: u16,
    },
    /// Symmetric int8, one f32 scale per row; meant for products with int8 activations.
    W8A8,
    /// 6-bit codes, signed integer scales of groups of 32, one binary16 scale per row.
    W6,
    /// 5-bit codes, scales as in `W6`.
    W5,
    /// 4-bit codes into rows of [`TABLE`](super::TABLE), one table row per tile of 4 x 8 weights.
    W4,
    /// 3-bit codes, scales as in `W6`.
    W3,
    /// 2-bit codes, scales as in `W6`.
    W2,
    /// Signed int4, one binary16 scale of either sign per group.
    Int4 {
        /// Elements that share a scale, at least 1.
        group: u16,
    },
    /// int4 with a binary16 scale and a 4-bit zero point per group.
    Int4Asym {
        /// Elements that share a scale, at least 1.
        group: u16,
    },
    /// NormalFloat4 ([`NF4_LEVELS`](super::NF4_LEVELS)), one binary16 scale per group.
    Nf4 {
        /// Elements that share a scale, at least 1.
        group: u16,
    },
    /// e4m3fn, one f32 scale per row.
    Fp8,
}

/// Schemes without parameters and their names.
const PLAIN: [(&str, Scheme); 7] = [
    ("w8a8", Scheme::W8A8),
    ("w6", Scheme::W6),
    ("w5", Scheme::W5),
    ("w4", Scheme::W4),
    ("w3", Scheme::W3),
    ("w2", Scheme::W2),
    ("fp8", Scheme::Fp8),
];

/// Constructor of a scheme from its group.
type Grouped = fn(u16) -> Scheme;

/// Schemes with a group: name, constructor, allowed groups.
const GROUPED: [(&str, Grouped, &[u16]); 4] = [
    ("w8", |group| Scheme::W8 { group }, &[32, 64, 128]),
    ("int4", |group| Scheme::Int4 { group }, &[32, 64, 128]),
    ("int4_asym", |group| Scheme::Int4Asym { group }, &[32, 64, 128]),
    ("nf4", |group| Scheme::Nf4 { group }, &[32, 64, 128]),
];

impl Scheme {
    /// The scheme printed as `name` by `Display`: `w4`, `w8(128)`. Only allowed groups parse.
    pub fn from_name(name: &str) -> Option<Scheme> {
        let Some((base, group)) = name.strip_suffix(')').and_then(|n| n.split_once('(')) else {
            return Self::plain(name);
        };
        let parsed: u16 = group.parse().ok()?;
        Self::grouped(base, parsed).filter(|_| parsed.to_string() == group)
    }

    /// The scheme without parameters of this name.
    pub(super) fn plain(name: &str) -> Option<Scheme> {
        PLAIN.iter().find(|(n, _)| *n == name).map(|(_, s)| *s)
    }

    /// The scheme of this name and group, if the group is allowed.
    pub(super) fn grouped(name: &str, group: u16) -> Option<Scheme> {
        let (_, make, _) = GROUPED.iter().find(|(n, _, groups)| *n == name && groups.contains(&group))?;
        Some(make(group))
    }

    /// Groups allowed for the scheme of this name; empty where it takes none.
    pub(super) fn allowed_groups(name: &str) -> &'static [u16] {
        GROUPED.iter().find(|(n, _, _)| *n == name).map_or(&[], |(_, _, groups)| groups)
    }

    /// Elements along k that share a group scale, or `None` where there is no such scale.
    pub fn group(self) -> Option<usize> {
        match self {
            Scheme::W8 { group } | Scheme::Int4 { group } | Scheme::Int4Asym { group } | Scheme::Nf4 { group } => {
                Some(usize::from(group))
            }
            Scheme::W6 | Scheme::W5 | Scheme::W3 | Scheme::W2 => Some(32),
            Scheme::W8A8 | Scheme::W4 | Scheme::Fp8 => None,
        }
    }

    /// Group scales in a row of `k` elements; the last group may be shorter. 0 where there are none.
    pub fn groups(self, k: usize) -> usize {
        self.group().map_or(0, |g| k.div_ceil(g))
    }

    /// Bits of a code.
    pub fn code_bits(self) -> u32 {
        match self {
            Scheme::W8 { .. } | Scheme::W8A8 | Scheme::Fp8 => 8,
            Scheme::W6 => 6,
            Scheme::W5 => 5,
            Scheme::W4 | Scheme::Int4 { .. } | Scheme::Int4Asym { .. } | Scheme::Nf4 { .. } => 4,
            Scheme::W3 => 3,
            Scheme::W2 => 2,
        }
    }

    /// Bits per weight of rows of `k` elements: codes, scales, zero points and table indices, without
    /// padding of layouts.
    pub fn bits_per_weight(self, k: usize) -> f64 {
        let groups = self.groups(k) as f64;
        let per_row = match self {
            Scheme::W8 { .. } | Scheme::Int4 { .. } | Scheme::Nf4 { .. } => 16.0 * groups,
            Scheme::Int4Asym { .. } => (16.0 + 4.0) * groups,
            Scheme::W6 | Scheme::W5 | Scheme::W3 | Scheme::W2 => 8.0 * groups + 16.0,
            Scheme::W4 => 5.0 / 4.0 * k.div_ceil(8) as f64 + 16.0,
            Scheme::W8A8 | Scheme::Fp8 => 32.0,
        };
        f64::from(self.code_bits()) + per_row / k.max(1) as f64
    }

    /// `(mul, offset)` such that the code c stands for the integer `mul * c - offset`, which fits i8.
    ///
    /// Every grid has a 0. With the best scale of either sign for every group of 32 normal weights
    /// those of W3 and W2 reach 15.8 dB and 9.6 dB, where the odd integers `-7..=7` and `-3..=3` reach
    /// 15.4 dB and 9.7 dB; for Student's t of 5 degrees of freedom it is 14.0 dB and 8.7 dB against
    /// 13.2 dB and 7.9 dB. Schemes without an integer grid (W4, Int4Asym, Nf4, Fp8) have
    /// `(1, 0)`: a code is itself.
    pub fn grid_params(self) -> (i32, i32) {
        match self {
            Scheme::W8 { .. } | Scheme::W8A8 => (1, 128),
            Scheme::W6 => (1, 32),
            Scheme::W5 => (1, 16),
            Scheme::Int4 { .. } => (1, 8),
            Scheme::W3 => (1, 4),
            Scheme::W2 => (1, 2),
            Scheme::W4 | Scheme::Int4Asym { .. } | Scheme::Nf4 { .. } | Scheme::Fp8 => (1, 0),
        }
    }

    /// Whether codes stand for floating-point numbers, which a product multiplies as such.
    pub fn is_float(self) -> bool {
        matches!(self, Scheme::Nf4 { .. } | Scheme::Fp8)
    }

    /// The integer that `code` stands for; see [`Scheme::grid_params`].
    pub fn grid(self, code: u8) -> i32 {
        let (mul, offset) = self.grid_params();
        mul * i32::from(code) - offset
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Scheme::W8 { group } => return write!(f, "w8({group})"),
            Scheme::Int4 { group } => return write!(f, "int4({group})"),
            Scheme::Int4Asym { group } => return write!(f, "int4_asym({group})"),
            Scheme::Nf4 { group } => return write!(f, "nf4({group})"),
            Scheme::W8A8 => "w8a8",
            Scheme::W6 => "w6",
            Scheme::W5 => "w5",
            Scheme::W4 => "w4",
            Scheme::W3 => "w3",
            Scheme::W2 => "w2",
            Scheme::Fp8 => "fp8",
        };
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::ALL;
    use super::*;

    #[test]
    fn names_round_trip() {
        for scheme in ALL {
            assert_eq!(Scheme::from_name(&scheme.to_string()), Some(scheme), "{scheme}");
        }
        for bad in ["", "w7", "w8", "w8()", "w8(16)", "w8(032)", "w4(32)", "w8(32", "int4:asym", "nf4(-64)"] {
            assert_eq!(Scheme::from_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_count_every_scale() {
        let bits = |name: &str| Scheme::from_name(name).unwrap().bits_per_weight(1024);
        assert_eq!(bits("w8(32)"), 8.5);
        assert_eq!(bits("w8a8"), 8.031_25);
        assert_eq!(bits("w6"), 6.265_625);
        assert_eq!(bits("w4"), 4.171_875);
        assert_eq!(bits("w2"), 2.265_625);
        assert_eq!(bits("int4_asym(128)"), 4.156_25);
        assert_eq!(bits("nf4(64)"), 4.25);
        assert_eq!(Scheme::W5.bits_per_weight(33), 5.0 + (2.0 * 8.0 + 16.0) / 33.0);
        assert_eq!(Scheme::W4.bits_per_weight(9), 4.0 + (2.5 + 16.0) / 9.0);
    }

    #[test]
    fn grids_fit_a_byte() {
        for scheme in ALL.into_iter().filter(|s| s.grid_params() != (1, 0)) {
            let top = u8::try_from((1u32 << scheme.code_bits()) - 1).unwrap();
            assert!(i8::try_from(scheme.grid(0)).is_ok() && i8::try_from(scheme.grid(top)).is_ok(), "{scheme}");
        }
        assert_eq!((0..8).map(|c| Scheme::W3.grid(c)).collect::<Vec<_>>(), [-4, -3, -2, -1, 0, 1, 2, 3]);
        assert_eq!((0..4).map(|c| Scheme::W2.grid(c)).collect::<Vec<_>>(), [-2, -1, 0, 1]);
    }
}
