//! Constant factors that do nothing or fold exactly.

use super::{Match, Rule, rule};
use llmc_ir::ops::Real;

/// The table.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    rule("scale-one",   "(scale ?f ?x)",              "?x",             |m| m.attr("?f") == Some(Real::new(1.0))),
    rule("scale-twice", "(scale ?f (scale ?g ?x))",   "(scale ?h ?x)",  product),
];

/// Binds `?h` to the product of `?f` and `?g` where both are powers of two of modest size: then
/// neither product rounds unless the result leaves the normal range.
fn product(m: &mut Match<'_>) -> bool {
    match (m.attr::<Real>("?f"), m.attr::<Real>("?g")) {
        (Some(f), Some(g)) if is_power(f) && is_power(g) => m.bind("?h", &Real::new(f.get() * g.get())),
        _ => false,
    }
}

/// A power of two from 2^-16 to 2^16, other than 1, which another rule removes.
fn is_power(factor: Real) -> bool {
    let (bits, magnitude) = (factor.get().to_bits(), factor.get().abs());
    bits & 0x007f_ffff == 0 && factor.get() != 1.0 && (2f32.powi(-16)..=2f32.powi(16)).contains(&magnitude)
}
