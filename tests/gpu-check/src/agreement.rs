//! Whether a model computes what is expected of it: in every form of its step, twice with the same bits.

use crate::bundle::{self, LOGITS, Model};
use llmc_rt::decode::Decoder;
use llmc_rt::engine::{Engine, Rows};
use llmc_rt::error::Result;
use llmc_rt::sampler::Sampling;
use serde::Serialize;
use std::path::Path;

/// Tokens of a step: of each form, the first for as many as there are.
const CHUNKS: [usize; 3] = [usize::MAX, 5, 1];

/// What was found of a model.
#[derive(Debug, Serialize)]
pub struct Agreement {
    /// Its name.
    pub name: String,
    /// What errors may be.
    pub tolerance: f32,
    /// Largest errors, relative to the largest logit: of the text in one step, in steps of five tokens, and of one.
    pub errors: [f32; 3],
    /// Whether a second run has the bits of the first.
    pub same_bits: bool,
    /// Tokens decoded as expected, of how many.
    pub greedy: (usize, usize),
}

impl Agreement {
    /// Whether all is as it should be.
    pub fn holds(&self) -> bool {
        self.errors.iter().all(|e| *e <= self.tolerance) && self.same_bits && self.greedy.0 == self.greedy.1
    }
}

/// Checks a model in a folder of the bundle.
pub fn check(folder: &Path, model: &Model, device: usize) -> Result<Agreement> {
    let folder = folder.join(&model.name);
    let mut engine = bundle::engine(&folder, device, None)?;
    let expected: Vec<f32> =
        bundle::read(&folder, LOGITS)?.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let (mut errors, mut same_bits) = ([0.0; 3], true);
    for (error, chunk) in errors.iter_mut().zip(CHUNKS) {
        let found = logits(&mut engine, &model.ids, chunk)?;
        let again = logits(&mut engine, &model.ids, chunk)?;
        same_bits &= found.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits());
        *error = relative_error(&found, &expected);
    }
    let decoded = decode(&mut engine, &model.ids, model.greedy.len())?;
    let right = decoded.iter().zip(&model.greedy).take_while(|(a, b)| a == b).count();
    let (name, tolerance) = (model.name.clone(), model.tolerance);
    Ok(Agreement { name, tolerance, errors, same_bits, greedy: (right, model.greedy.len()) })
}

/// The logits of all tokens of a text.
fn logits(engine: &mut Engine, ids: &[u32], chunk: usize) -> Result<Vec<f32>> {
    engine.truncate(0, 0);
    let mut all = Vec::new();
    for part in ids.chunks(chunk.min(engine.step_rows())) {
        all.extend(engine.extend(0, part, Rows::Range(0, part.len()))?);
    }
    Ok(all)
}

/// The likeliest tokens after a text, which the device chooses.
fn decode(engine: &mut Engine, ids: &[u32], count: usize) -> Result<Vec<u32>> {
    if count == 0 {
        return Ok(vec![]);
    }
    engine.truncate(0, 0);
    let mut decoder = Decoder::new(engine, Sampling::default());
    let mut tokens = vec![decoder.first(engine.prefill(0, ids, 0, || Ok(()))?)?];
    while tokens.len() < count {
        let last = tokens[tokens.len() - 1];
        tokens.push(decoder.next(engine, 0, last, tokens.len() + 1 < count)?);
    }
    decoder.finish(engine, 0);
    Ok(tokens)
}

/// The largest difference, relative to the largest magnitude expected; infinite for what is no number or not there.
fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    let apart = |(a, b): (&f32, &f32)| if a.is_finite() { (a - b).abs() } else { f32::INFINITY };
    let most = found.iter().zip(expected).map(apart).fold(0.0, f32::max);
    if found.len() == expected.len() && largest > 0.0 { most / largest } else { f32::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_and_what_is_no_number_is_wrong() {
        assert_eq!(relative_error(&[1.0, -4.0], &[1.0, -4.0]), 0.0);
        assert_eq!(relative_error(&[1.0, -3.0], &[1.0, -4.0]), 0.25);
        for wrong in [&[f32::NAN, -4.0][..], &[1.0], &[f32::INFINITY, -4.0]] {
            assert_eq!(relative_error(wrong, &[1.0, -4.0]), f32::INFINITY);
        }
        assert_eq!(relative_error(&[0.0], &[0.0]), f32::INFINITY, "nothing is expected to be zero alone");
    }

    #[test]
    fn one_thing_wrong_is_enough() {
        let good = || Agreement {
            name: "m".into(),
            tolerance: 0.1,
            errors: [0.1, 0.0, 0.05],
            same_bits: true,
            greedy: (3, 3),
        };
        assert!(good().holds());
        assert!(!Agreement { errors: [0.0, 0.0, 0.11], ..good() }.holds());
        assert!(!Agreement { same_bits: false, ..good() }.holds());
        assert!(!Agreement { greedy: (2, 3), ..good() }.holds());
    }
}
