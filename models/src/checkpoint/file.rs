//! One memory-mapped safetensors file.

use super::safetensors::Table;
use crate::error::{Error, Result};
use llmc_ir::{DType, Dim, TensorType};
use memmap2::Mmap;
use safetensors::Dtype;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A safetensors file, mapped and with its header checked.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
    table: Table,
}

impl TensorFile {
    /// Maps the file and checks its header.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::File`] or [`Error::Tensor`] if it is broken.
    pub fn open(path: &Path) -> Result<TensorFile> {
        let file = File::open(path).map_err(Error::io(path))?;
        let metadata = file.metadata().map_err(Error::io(path))?;
        if !metadata.is_file() {
            return Err(Error::file(path, "is not a regular file"));
        }
        if metadata.len() == 0 {
            Table::parse(path, &[])?;
        }
        // SAFETY: the mapping is private and only read. A file that another process changes or
        // truncates while it is mapped is outside what a reader can guard against.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        let table = Table::parse(path, &map)?;
        Ok(TensorFile { path: path.into(), map, table })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.table.names()
    }

    /// True if there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.table.get(name).is_some()
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.table.get(name).map(|i| i.shape.as_slice())
    }

    /// The bytes of a tensor, little-endian, row-major.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let (begin, end) = self.table.get(name)?.data_offsets;
        self.map.get(self.table.data_start..)?.get(begin..end)
    }

    /// Type of a tensor, which must hold floating-point weights.
    ///
    /// # Errors
    /// [`Error::Tensor`] if there is no such tensor; [`Error::Unsupported`] or [`Error::Tensor`]
    /// if its element type is not f32, f16 or bf16.
    pub fn weight_type(&self, name: &str) -> Result<TensorType> {
        let info = self.table.get(name).ok_or_else(|| self.missing(name))?;
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::Bf16,
            other => return Err(self.not_a_weight(name, other)),
        };
        Ok(TensorType::new(dtype, info.shape.iter().map(|&n| Dim::Const(n))))
    }

    /// Shape and elements of an f32, f16 or bf16 tensor, widened to f32.
    ///
    /// # Errors
    /// As [`TensorFile::weight_type`].
    pub fn f32s(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let ty = self.weight_type(name)?;
        let tensor = llmc_ir::Tensor::from_bytes(&ty, self.bytes(name).ok_or_else(|| self.missing(name))?)?;
        Ok((tensor.shape.clone(), tensor.as_f32()?.to_vec()))
    }

    /// Elements of an i64 tensor.
    ///
    /// # Errors
    /// [`Error::Tensor`] if there is no such tensor or it has another type.
    pub fn i64s(&self, name: &str) -> Result<Vec<i64>> {
        let info = self.table.get(name).ok_or_else(|| self.missing(name))?;
        if info.dtype != Dtype::I64 {
            return Err(Error::tensor(&self.path, name, format!("is {:?}, expected I64", info.dtype)));
        }
        let bytes = self.bytes(name).ok_or_else(|| self.missing(name))?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
    }

    fn missing(&self, name: &str) -> Error {
        Error::tensor(&self.path, name, "is missing")
    }

    fn not_a_weight(&self, name: &str, dtype: Dtype) -> Error {
        let quantized = matches!(
            dtype,
            Dtype::F4 | Dtype::F6_E2M3 | Dtype::F6_E3M2 | Dtype::F8_E4M3 | Dtype::F8_E5M2 | Dtype::F8_E8M0
        );
        if quantized {
            return Error::Unsupported {
                path: self.path.clone(),
                what: format!("tensor {} of {dtype:?}: quantized checkpoints are", crate::error::quoted(name)),
                advice: "use the model's bf16, f16 or f32 checkpoint".into(),
            };
        }
        Error::tensor(&self.path, name, format!("is {dtype:?}; weights must be F32, F16 or BF16"))
    }
}
