//! How passes and the packer see weights: by canonical name, never by file.

use crate::error::{Error, Result};
use crate::tensor::{Data, Tensor};
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

/// Parameters held in memory: f32, or indices.
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
        let range = rows.start * width..rows.end * width;
        if out.len() != range.len() * 4 {
            return Err(bad(format!("{} bytes wanted, {} given", range.len() * 4, out.len())));
        }
        let outside = || bad(format!("rows {rows:?} are out of bounds"));
        let chunks = out.chunks_exact_mut(4);
        match &t.data {
            Data::F32(data) => {
                let values = data.get(range).ok_or_else(outside)?;
                chunks.zip(values).for_each(|(o, v)| o.copy_from_slice(&v.to_le_bytes()));
            }
            Data::I32(data) => {
                let values = data.get(range).ok_or_else(outside)?;
                chunks.zip(values).for_each(|(o, v)| o.copy_from_slice(&v.to_le_bytes()));
            }
        }
        Ok(())
    }
}

/// A source with some parameters of its own beside those of another.
#[derive(Clone, Copy)]
pub struct Overlay<'a> {
    /// What is found here is taken.
    pub own: &'a MemoryParams,
    /// Where everything else is.
    pub base: &'a dyn ParamSource,
}

impl Overlay<'_> {
    fn of(&self, name: &str) -> &dyn ParamSource {
        if self.own.0.contains_key(name) { self.own } else { self.base }
    }
}

impl ParamSource for Overlay<'_> {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.of(name).ty(name)
    }

    fn read_rows(&self, name: &str, rows: std::ops::Range<usize>, out: &mut [u8]) -> Result<()> {
        self.of(name).read_rows(name, rows, out)
    }
}
