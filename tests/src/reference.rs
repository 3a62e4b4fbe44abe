//! The stored answers of a fixture: `reference.safetensors`.

use llmc_models::TensorFile;
use std::path::Path;

/// One prompt with what transformers computed for it.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Token ids.
    pub ids: Vec<i32>,
    /// Logits after each token, `[ids.len(), vocab]`.
    pub logits: Vec<f32>,
    /// Logits per token.
    pub vocab: usize,
    /// The tokens that greedy decoding adds.
    pub greedy: Vec<i32>,
    /// Residual stream after the embedding and after each layer but the last, for prompt 0.
    pub hidden: Vec<Vec<f32>>,
}

/// Every prompt of a fixture of a causal model.
pub fn prompts(folder: &Path) -> Vec<Prompt> {
    let file = TensorFile::open(&folder.join("reference.safetensors")).expect("the fixture has references");
    (0..).map_while(|n| prompt(&file, n)).collect()
}

fn prompt(file: &TensorFile, n: usize) -> Option<Prompt> {
    let ids = |name: String| -> Option<Vec<i32>> {
        Some(file.i64s(&name).ok()?.into_iter().map(|id| i32::try_from(id).expect("ids are small")).collect())
    };
    let (shape, logits) = file.f32s(&format!("prompt{n}.logits")).ok()?;
    let mut hidden: Vec<Vec<f32>> =
        (0..).map_while(|l| Some(file.f32s(&format!("prompt{n}.hidden.{l}")).ok()?.1)).collect();
    // The last one stands after the final norm.
    hidden.pop();
    Some(Prompt {
        ids: ids(format!("prompt{n}.input_ids"))?,
        vocab: *shape.last()?,
        logits,
        greedy: ids(format!("prompt{n}.greedy"))?,
        hidden,
    })
}

/// Largest difference, as a fraction of the largest magnitude in `expected`.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len(), "number of elements");
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max(if a.is_nan() { f32::INFINITY } else { (a - b).abs() }))
        / largest
}

/// Index of the largest element; the first of equals.
pub fn argmax(row: &[f32]) -> i32 {
    let best = row.iter().enumerate().fold(0, |best, (i, x)| if *x > row[best] { i } else { best });
    i32::try_from(best).expect("vocabularies are small")
}
