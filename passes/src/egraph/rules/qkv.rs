//! Q, K and V of one attention are computed together, and K and V stored on the way.

use super::{Rule, rule};

/// The table.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    rule(
        "qkv",
        "?a = (attention ?scale ?window ?softcap ?q ?kv2 ?pos ?seqs),
         ?q = (reshape ?hq (linear ?p ?r ?wq ?cq)),
         ?kv2 = (kv_append ?kv (reshape ?h (linear ?p ?r ?wk ?ck)) (reshape ?h (linear ?p ?r ?wv ?cv)) ?pos ?seqs)",
        "?t = (qkv ?p ?r ?hd ?wq ?wk ?wv ?cq ?ck ?cv ?kv ?pos ?seqs),
         ?q = (first ?t),
         ?kv2 = (second ?t)",
        |m| m.splits_heads("?h", "?hd"),
    ),
];
