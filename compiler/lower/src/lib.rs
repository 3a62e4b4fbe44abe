//! Module to plan.
