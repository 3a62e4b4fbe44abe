//! Norms of rows become prologues of the matmuls that read them.
//!
//! The scale of a norm stays an operand of the prologue: folding it into a stored bf16 or f16
//! weight would round again, which is not an equality.

use super::{Rule, rule};

/// The table.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    rule("rms-prologue",   "(linear (plain (rms_norm ?e ?x ?s)) ?r ?w ?c)",      "(linear (rms ?e ?x ?s) ?r ?w ?c)",    |m| m.is_rows("?x")),
    rule("layer-prologue", "(linear (plain (layer_norm ?e ?x ?s ?b)) ?r ?w ?c)", "(linear (ln ?e ?x ?s ?b) ?r ?w ?c)",  |m| m.is_rows("?x")),
];
