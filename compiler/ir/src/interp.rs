//! The reference interpreter: every op's meaning, slowly and obviously.

use crate::tensor::Tensor;
use crate::types::KvType;
use std::collections::BTreeMap;

/// A KV cache as a map from (sequence, position) to the key and value rows of all heads.
#[derive(Clone, Debug, PartialEq)]
pub struct KvCache {
    /// Type of the cache; stored elements are rounded to its dtype.
    pub ty: KvType,
    /// `heads * head_dim` key elements and as many value elements for each position.
    pub rows: BTreeMap<(i32, i32), (Vec<f32>, Vec<f32>)>,
}

/// A value at run time.
#[derive(Clone, Debug, PartialEq)]
pub enum RtValue {
    /// A tensor.
    Tensor(Tensor),
    /// The KV cache of a layer.
    Kv(KvCache),
}
