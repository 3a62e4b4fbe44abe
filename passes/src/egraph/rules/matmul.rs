//! Matmuls become linear ops, which take in what stands before and after them.

use super::{Rule, always, rule};
use llmc_ir::ops::Real;
use llmc_ir::{DType, Dim};

/// The table.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    rule("matmul",        "(matmul ?x ?w)",                                   "(linear (plain ?x) none ?w nil)",            |m| m.is_product_rows("?x")),
    rule("narrow-rows",    "(matmul (dequantize ?d ?x) ?w)",                 "(matmul ?x ?w)",                             always),
    rule("narrow-weights", "(matmul ?x (dequantize ?d ?w))",                 "(matmul ?x ?w)",                             always),
    rule("narrow-table",   "(embed (dequantize ?d ?w) ?ids)",                "(embed ?w ?ids)",                            always),
    rule("round-input",   "(linear (plain (round ?d ?x)) none ?w ?c)",        "(linear (plain ?x) ?d ?w ?c)",               always),
    rule("heads-input",   "(linear (plain (reshape ?s ?x)) ?r ?w ?c)",        "(linear (plain ?x) ?r ?w ?c)",               |m| m.is_heads("?x") && joins_heads(m)),
    rule("bias",          "(bias (linear ?p ?r ?w ?c) ?b)",                   "(linear ?p ?r ?w (+bias ?c ?b))",            always),
    rule("act",           "(act ?a (linear ?p ?r ?w ?c))",                    "(linear ?p ?r ?w (+act ?c ?a))",             always),
    rule("residual",      "(add (linear ?p ?r ?w ?c) ?y)",                    "(linear ?p ?r ?w (+residual ?c ?y))",        |m| m.is_rows("?y")),
    rule("residual-left", "(add ?y (linear ?p ?r ?w ?c))",                    "(linear ?p ?r ?w (+residual ?c ?y))",        |m| m.is_rows("?y")),
    rule("mul",           "(mul (linear ?p ?r ?w ?c) ?y)",                    "(linear ?p ?r ?w (+mul ?c ?y))",             |m| m.is_rows("?y")),
    rule("mul-left",      "(mul ?y (linear ?p ?r ?w ?c))",                    "(linear ?p ?r ?w (+mul ?c ?y))",             |m| m.is_rows("?y")),
    rule("scale",         "(scale ?f (linear ?p ?r ?w ?c))",                  "(linear ?p ?r ?w (+scale ?c ?f))",           |m| m.attr("?f") != Some(Real::new(1.0))),
    rule("round-output",  "(round ?d (linear ?p ?r ?w ?c))",                  "(linear ?p ?r ?w (+round ?c ?d))",           |m| m.attr("?d") == Some(DType::Bf16)),
];

/// True if the reshape `?s` lays the heads of a token side by side: `[n,heads * head_dim]`.
fn joins_heads(m: &super::Match<'_>) -> bool {
    matches!(m.attr::<Vec<Dim>>("?s").as_deref(), Some([_, Dim::Const(_)]))
}
