//! What the ops' tests share: short ways to write operands, types and costs.

use super::{Cost, Op, Sizes};
use crate::interp::RtValue;
use crate::parse::{parse_op, parse_type};
use crate::tensor::Tensor;
use crate::types::Type;

/// Sizes that tell the dimensions apart.
pub(super) const SIZES: Sizes = Sizes { tokens: 2, rows: 3, context: 5 };

pub(super) fn op(text: &str) -> Op {
    parse_op(text).expect("the test's op parses")
}

pub(super) fn f(shape: &[usize], data: &[f32]) -> RtValue {
    Tensor::f32(shape, data.to_vec()).into()
}

pub(super) fn i(data: &[i32]) -> RtValue {
    Tensor::i32s(data.to_vec()).into()
}

fn types(texts: &[&str]) -> Vec<Type> {
    texts.iter().map(|t| parse_type(t).expect("the test's type parses")).collect()
}

/// The printed result types, or the error.
pub(super) fn infer(op_text: &str, operands: &[&str]) -> String {
    let types = types(operands);
    match op(op_text).infer(&types.iter().collect::<Vec<_>>()) {
        Ok(results) => results.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Err(e) => e.to_string(),
    }
}

/// The elements of the only result, whose shape is checked against the type rule.
pub(super) fn run(op_text: &str, operands: &[RtValue]) -> Vec<f32> {
    let op = op(op_text);
    let operands: Vec<&RtValue> = operands.iter().collect();
    let types: Vec<Type> = operands.iter().map(|v| v.ty()).collect();
    let results = op.eval(&operands).expect("the test's operands have a result");
    let inferred = op.infer(&types.iter().collect::<Vec<_>>()).expect("the test's operands have types");
    let shape = |t: &Type| t.tensor().map(|t| t.shape.clone());
    let found: Vec<_> = results.iter().map(|v| shape(&v.ty())).collect();
    assert_eq!(found, inferred.iter().map(shape).collect::<Vec<_>>(), "shapes of {op_text}");
    results[0].tensor().and_then(Tensor::f32s).expect("the first result is f32").to_vec()
}

/// The elements of the only result, whatever the types.
pub(super) fn eval(op_text: &str, operands: &[RtValue]) -> Vec<f32> {
    let results = op(op_text).eval(&operands.iter().collect::<Vec<_>>()).expect("the operands have a result");
    results[0].tensor().and_then(Tensor::f32s).expect("the first result is f32").to_vec()
}

/// The error of an evaluation.
pub(super) fn failure(op_text: &str, operands: &[RtValue]) -> String {
    op(op_text).eval(&operands.iter().collect::<Vec<_>>()).expect_err("the evaluation fails").to_string()
}

/// Bytes of memory, bytes of activations and flops at [`SIZES`].
pub(super) fn cost(op_text: &str, operands: &[&str]) -> (f64, f64, f64) {
    let types = types(operands);
    let Cost { memory_bytes, activation_bytes, flops } = op(op_text).cost(&types.iter().collect::<Vec<_>>(), SIZES);
    (memory_bytes, activation_bytes, flops)
}

/// Asserts equality up to a relative 1e-6.
pub(super) fn close(found: &[f32], expected: &[f32]) {
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
    assert!(
        found.len() == expected.len() && found.iter().zip(expected).all(near),
        "found {found:?}, expected {expected:?}"
    );
}
