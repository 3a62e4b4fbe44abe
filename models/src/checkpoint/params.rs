//! Parameters by canonical name, read straight from the mapped files.

use super::TensorSet;
use crate::bind::Stored;
use llmc_ir::{DType, Error, ParamSource, Result, TensorType};
use std::collections::BTreeMap;
use std::ops::Range;

/// A model's weights.
///
/// Parameters are as stored: where a file keeps a weight transposed or joined with others, the
/// module says so with ops, so that a row here is always one contiguous piece of the file.
#[derive(Debug)]
pub struct Checkpoint {
    tensors: TensorSet,
    params: BTreeMap<String, Stored>,
}

impl Checkpoint {
    pub(crate) fn new(tensors: TensorSet, params: BTreeMap<String, Stored>) -> Checkpoint {
        Checkpoint { tensors, params }
    }

    /// Canonical name and stored type of every parameter, sorted by name.
    pub fn params(&self) -> impl Iterator<Item = (&str, &TensorType)> {
        self.params.iter().map(|(name, stored)| (name.as_str(), &stored.ty))
    }

    /// Name of a parameter in its file.
    pub fn stored_name(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(|s| s.tensor.as_str())
    }

    /// The files behind it.
    pub fn tensors(&self) -> &TensorSet {
        &self.tensors
    }

    /// The bytes of a parameter, without a copy.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.tensors.bytes(&self.params.get(name)?.tensor)
    }

    /// Number of weights; one that is used twice counts once.
    pub fn parameter_count(&self) -> u64 {
        self.params.values().map(|s| s.ty.elements().unwrap_or(0) as u64).sum()
    }

    /// Bytes of all weights as stored.
    pub fn weight_bytes(&self) -> u64 {
        self.params.values().map(|s| (s.ty.elements().unwrap_or(0) * s.ty.dtype.size()) as u64).sum()
    }

    /// The element type that most weights have.
    pub fn dtype(&self) -> DType {
        let mut counts: BTreeMap<DType, u64> = BTreeMap::new();
        for stored in self.params.values() {
            *counts.entry(stored.ty.dtype).or_default() += stored.ty.elements().unwrap_or(0) as u64;
        }
        counts.into_iter().max_by_key(|(_, n)| *n).map_or(DType::F32, |(dtype, _)| dtype)
    }
}

impl ParamSource for Checkpoint {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.params.get(name).map(|s| s.ty.clone())
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [u8]) -> Result<()> {
        let bad = |message: String| Error::Param { name: name.into(), message };
        let stored = self.params.get(name).ok_or_else(|| bad("is not in the checkpoint".into()))?;
        let bytes = self.tensors.bytes(&stored.tensor).ok_or_else(|| bad("is not in the checkpoint".into()))?;
        let count = stored.ty.shape.first().and_then(|d| d.constant()).unwrap_or(1).max(1);
        let width = bytes.len() / count;
        let wanted = rows
            .start
            .checked_mul(width)
            .zip(rows.end.checked_mul(width))
            .and_then(|(begin, end)| bytes.get(begin..end))
            .ok_or_else(|| bad(format!("rows {rows:?} are out of bounds, it has {count}")))?;
        if out.len() != wanted.len() {
            return Err(bad(format!("rows {rows:?} take {} bytes, {} were given", wanted.len(), out.len())));
        }
        out.copy_from_slice(wanted);
        Ok(())
    }
}
