//! Concrete tensors for the interpreter, constants and tests.

use crate::error::{Error, Result};
use crate::types::{DType, Dim, TensorType};

/// A dense row-major tensor with all dimensions known. Floating-point data is held as f32
/// whatever its type in a graph; a rounding is an op of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub data: Data,
}

/// Elements of a [`Tensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Floating-point elements.
    F32(Vec<f32>),
    /// Integer elements.
    I32(Vec<i32>),
}

impl Tensor {
    /// A floating-point tensor.
    ///
    /// # Panics
    /// If `data` does not have as many elements as `shape` says.
    pub fn f32(shape: &[usize], data: Vec<f32>) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "elements of {shape:?}");
        Tensor { shape: shape.to_vec(), data: Data::F32(data) }
    }

    /// An integer vector.
    pub fn i32s(data: Vec<i32>) -> Tensor {
        Tensor { shape: vec![data.len()], data: Data::I32(data) }
    }

    /// The f32 elements, if these are floating-point.
    pub fn as_f32(&self) -> Result<&[f32]> {
        self.f32s().ok_or_else(|| Error::Interp("floating-point tensor expected, found i32".into()))
    }

    /// The i32 elements, if these are integers.
    pub fn as_i32(&self) -> Result<&[i32]> {
        match &self.data {
            Data::I32(v) => Ok(v),
            Data::F32(_) => Err(Error::Interp("i32 tensor expected, found f32".into())),
        }
    }

    /// The f32 elements, if these are floating-point.
    pub fn f32s(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(v) => Some(v),
            Data::I32(_) => None,
        }
    }

    /// The type, with constant dimensions.
    pub fn ty(&self) -> TensorType {
        let dtype = match self.data {
            Data::F32(_) => DType::F32,
            Data::I32(_) => DType::I32,
        };
        TensorType::new(dtype, self.shape.iter().map(|&n| Dim::Const(n)))
    }

    /// Decodes little-endian bytes of type `ty`, widening floats to f32.
    ///
    /// # Errors
    /// [`Error::Interp`] if the length does not fit the type.
    pub fn from_bytes(ty: &TensorType, bytes: &[u8]) -> Result<Tensor> {
        let shape: Option<Vec<usize>> = ty.shape.iter().map(|d| d.constant()).collect();
        let (shape, n) = shape
            .zip(ty.elements())
            .filter(|(_, n)| n.checked_mul(ty.dtype.size()) == Some(bytes.len()))
            .ok_or_else(|| Error::Interp(format!("{} bytes do not make a {ty}", bytes.len())))?;
        let mut floats = Vec::with_capacity(n);
        match ty.dtype {
            DType::I32 => {
                let data = bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                return Ok(Tensor { shape, data: Data::I32(data) });
            }
            DType::F32 => floats.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
            DType::F16 => floats.extend(bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())),
            DType::Bf16 => {
                floats.extend(bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()));
            }
            DType::I8 | DType::E4m3 | DType::Quant(_) => {
                return Err(Error::Interp(format!("a {ty} has no bytes of its own")));
            }
        }
        Ok(Tensor { shape, data: Data::F32(floats) })
    }
}
