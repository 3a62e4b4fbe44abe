//! Tests of opening and building models, on the fixtures in `tests/models`.

mod bad_input;
mod fidelity;
mod mutations;
#[path = "../../../tests/src/reference.rs"]
mod reference;
#[path = "../../../tests/src/weights.rs"]
mod weights;
