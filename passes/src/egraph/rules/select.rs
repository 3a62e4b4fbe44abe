//! Where columns of a weight are zeros, what would meet them need not be computed.
//!
//! Places that are not selected add products with zero to a sum, which change nothing for finite rows.
//! Selecting then moves towards the weights that the places come from, where it costs nothing.

use super::{Rule, always, rule};
use llmc_ir::DType;

/// The table.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    rule("select-product", "(matmul ?x (scatter ?n ?w ?k))",   "(matmul (select 1 ?x ?k) ?w)",                 always),
    rule("select-round",   "(select 1 (round ?d ?x) ?k)",      "(round ?d (select 1 ?x ?k))",                  |m| m.attr("?d") != Some(DType::I8)),
    rule("select-mul",     "(select 1 (mul ?x ?y) ?k)",        "(mul (select 1 ?x ?k) (select 1 ?y ?k))",      always),
    rule("select-act",     "(select 1 (act ?a ?x) ?k)",        "(act ?a (select 1 ?x ?k))",                    always),
    rule("select-bias",    "(select 1 (bias ?x ?b) ?k)",       "(bias (select 1 ?x ?k) (select 0 ?b ?k))",     always),
    rule("select-matmul",  "(select 1 (matmul ?x ?w) ?k)",     "(matmul ?x (select 0 ?w ?k))",                 always),
];
