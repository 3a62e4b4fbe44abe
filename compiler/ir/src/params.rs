//! How passes and the packer see weights: by canonical name, never by file.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::types::TensorType;
use std::collections::BTreeMap;

/// A source of parameters: a checkpoint, or tensors in memory.
///
/// `Sync`, because the packer reads from several threads.
pub trait ParamSource: Sync {
    /// Type of the parameter with this canonical name, if there is one.
    fn ty(&self, name: &str) -> Option<TensorType>;

    /// Writes rows `rows` of the parameter (outermost dimension; a vector has its elements as
    /// rows) into `out` as little-endian bytes of its stored type, row-major.
    ///
    /// # Errors
    /// [`Error::Param`] if the name is unknown, the range is out of bounds or `out` has another
    /// length than the rows take.
    fn read_rows(&self, name: &str, rows: std::ops::Range<usize>, out: &mut [u8]) -> Result<()>;

    /// The whole parameter, widened to f32. For tests and small tensors.
    ///
    /// # Errors
    /// As [`ParamSource::read_rows`].
    fn load(&self, name: &str) -> Result<Tensor> {
        let missing = || Error::Param { name: name.into(), message: "is not in the checkpoint".into() };
        let ty = self.ty(name).ok_or_else(missing)?;
        let elements = ty.elements().ok_or_else(missing)?;
        let unsized_rows = || Error::Param { name: name.into(), message: format!("is {ty}, expected constant rows") };
        let rows = ty.shape.first().and_then(|d| d.constant()).ok_or_else(unsized_rows)?;
        let size = elements.checked_mul(ty.dtype.size()).ok_or_else(unsized_rows)?;
        let mut bytes = vec![0u8; size];
        self.read_rows(name, 0..rows, &mut bytes)?;
        Tensor::from_bytes(&ty, &bytes)
    }
}

/// Parameters held in memory as f32, for tests and the interpreter.
#[derive(Clone, Debug, Default)]
pub struct MemoryParams(pub BTreeMap<String, Tensor>);

impl ParamSource for MemoryParams {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.0.get(name).map(Tensor::ty)
    }

    fn read_rows(&self, name: &str, rows: std::ops::Range<usize>, out: &mut [u8]) -> Result<()> {
        let bad = |message: String| Error::Param { name: name.into(), message };
        let t = self.0.get(name).ok_or_else(|| bad("is unknown".into()))?;
        let width: usize = t.shape.iter().skip(1).product();
        let data = t
            .f32s()
            .and_then(|d| d.get(rows.start * width..rows.end * width))
            .ok_or_else(|| bad(format!("rows {rows:?} are out of bounds or not f32")))?;
        if out.len() != data.len() * 4 {
            return Err(bad(format!("{} bytes wanted, {} given", data.len() * 4, out.len())));
        }
        for (o, v) in out.chunks_exact_mut(4).zip(data) {
            o.copy_from_slice(&v.to_le_bytes());
        }
        Ok(())
    }
}
