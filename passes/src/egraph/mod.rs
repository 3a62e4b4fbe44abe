//! Rewriting one block through an e-graph.
//!
//! A graph goes in ([`convert`]), the rule tables ([`rules`]) add equal forms until nothing new
//! appears ([`saturate`]), and the form that the target's roofline ([`cost`]) finds cheapest comes
//! out ([`extract`]). Only this folder sees egg.

pub mod choices;
pub mod convert;
pub mod cost;
pub mod extract;
pub mod facts;
pub mod lang;
pub mod offers;
pub mod optimize;
pub mod rules;
pub mod saturate;
pub mod term;
pub mod units;
