//! What happens to the heads of q and k before attention becomes steps of their matmul.

use super::{Rule, rule};

/// The table.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    rule("head-norm", "(rms_norm ?e (reshape ?h (linear ?p ?r ?w ?c)) ?s)",  "(reshape ?h (linear ?p ?r ?w (+head_norm ?c ?e ?hd ?s)))",  |m| m.splits_heads("?h", "?hd")),
    rule("rope",      "(rope ?d ?i (reshape ?h (linear ?p ?r ?w ?c)) ?t)",   "(reshape ?h (linear ?p ?r ?w (+rope ?c ?hd ?d ?i ?t)))",    |m| m.splits_heads("?h", "?hd")),
];
