//! Weights on disk: safetensors files, mapped and never copied whole.
//!
//! [`TensorSet`] knows tensors by the names of the files; [`Checkpoint`] knows them by canonical
//! parameter name and is what the rest of llmc reads weights from.

pub mod file;
pub mod index;
pub mod params;
pub mod safetensors;

pub use file::TensorFile;
pub use params::Checkpoint;

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Largest index file read, in bytes.
const MAX_INDEX: u64 = 64 << 20;

/// The tensors of a checkpoint in one or several files.
#[derive(Debug)]
pub struct TensorSet {
    files: Vec<TensorFile>,
    holder: BTreeMap<String, usize>,
}

impl TensorSet {
    /// Opens a checkpoint in one file.
    ///
    /// # Errors
    /// As [`TensorFile::open`].
    pub fn single(path: &Path) -> Result<TensorSet> {
        let file = TensorFile::open(path)?;
        let holder = file.names().into_iter().map(|n| (n, 0)).collect();
        Ok(TensorSet { files: vec![file], holder })
    }

    /// Opens a checkpoint in several files, given its index.
    ///
    /// # Errors
    /// As [`TensorFile::open`] and [`index::parse`]; [`Error::Tensor`] where index and files
    /// disagree about a tensor.
    pub fn sharded(index: &Path) -> Result<TensorSet> {
        let map = index::parse(index, &crate::sources::read(index, MAX_INDEX)?)?;
        let folder = index.parent().unwrap_or(Path::new(""));
        let names: std::collections::BTreeSet<&String> = map.values().collect();
        let files: Vec<TensorFile> = names.iter().map(|n| TensorFile::open(&folder.join(n))).collect::<Result<_>>()?;
        let mut holder = BTreeMap::new();
        for (i, (file, name)) in files.iter().zip(&names).enumerate() {
            for tensor in file.names() {
                if map.get(&tensor) != Some(name) {
                    return Err(Error::tensor(file.path(), &tensor, "is in this file, but the index does not say so"));
                }
                holder.insert(tensor, i);
            }
        }
        if let Some((tensor, file)) = map.iter().find(|(t, _)| !holder.contains_key(*t)) {
            return Err(Error::tensor(&folder.join(file), tensor, "is missing, but the index says it is here"));
        }
        Ok(TensorSet { files, holder })
    }

    /// The files, in the order of their names.
    pub fn files(&self) -> &[TensorFile] {
        &self.files
    }

    /// Every tensor's name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.holder.keys().map(String::as_str)
    }

    /// The file that holds a tensor.
    pub fn holder(&self, name: &str) -> Option<&TensorFile> {
        self.holder.get(name).map(|i| &self.files[*i])
    }

    /// The bytes of a tensor.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.holder(name)?.bytes(name)
    }

    /// A path that stands for the checkpoint in messages.
    pub fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), TensorFile::path)
    }
}
