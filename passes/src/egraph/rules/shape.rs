//! Transposes and reshapes that undo each other or do nothing.

use super::{Rule, always, rule};
use llmc_ir::Dim;

/// The table.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    rule("transpose-twice", "(transpose (transpose ?w))",    "?w",              always),
    rule("reshape-twice",   "(reshape ?s (reshape ?t ?x))",  "(reshape ?s ?x)", always),
    rule("reshape-nothing", "(reshape ?s ?x)",               "?x",              |m| m.attr::<Vec<Dim>>("?s").as_ref() == m.tensor("?x").map(|t| &t.shape)),
];
