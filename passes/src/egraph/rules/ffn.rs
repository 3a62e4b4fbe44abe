//! Gate and up projections are computed together: `act(gate) * up` in one pass over x.

use super::{Rule, always, rule};

/// The table.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    rule("gated",           "(mul (act ?a (linear ?p ?r ?g nil)) (linear ?p ?r ?u nil))",                            "(linear ?p ?r (pair ?g ?u) (+gated nil ?a))",                  always),
    rule("gated-left",      "(mul (linear ?p ?r ?u nil) (act ?a (linear ?p ?r ?g nil)))",                            "(linear ?p ?r (pair ?g ?u) (+gated nil ?a))",                  always),
    rule("gated-bias",      "(mul (act ?a (linear ?p ?r ?g (+bias nil ?bg))) (linear ?p ?r ?u (+bias nil ?bu)))",    "(linear ?p ?r (pair ?g ?u) (+gated (+bias nil ?bg ?bu) ?a))",  always),
    rule("gated-bias-left", "(mul (linear ?p ?r ?u (+bias nil ?bu)) (act ?a (linear ?p ?r ?g (+bias nil ?bg))))",    "(linear ?p ?r (pair ?g ?u) (+gated (+bias nil ?bg ?bu) ?a))",  always),
];
