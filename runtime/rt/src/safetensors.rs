//! Writing a safetensors file (format: 8 bytes header length, JSON header, data) whose tensors arrive
//! in pieces. The file appears under its name only when it is complete.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// A tensor to write.
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// `F32` or `I64`.
    pub dtype: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
}

/// A file being written.
pub struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    temporary: PathBuf,
    finished: bool,
}

impl Writer {
    /// Creates a temporary file beside `path` and writes the header. The tensors' data must follow
    /// in the order given.
    pub fn create(path: &Path, tensors: &[Tensor]) -> Result<Self> {
        let header = header(tensors).ok_or_else(|| Error::fit("the tensors to write pass 64 bits of bytes"))?;
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".tmp{}", std::process::id()));
        let temporary = PathBuf::from(name);
        let file = File::create(&temporary).map_err(|e| cannot_write(path, &e))?;
        let mut writer = Self { file: BufWriter::new(file), path: path.into(), temporary, finished: false };
        writer.write(&(header.len() as u64).to_le_bytes())?;
        writer.write(header.as_bytes())?;
        Ok(writer)
    }

    /// Writes the next numbers of an `F32` tensor.
    pub fn floats(&mut self, values: &[f32]) -> Result<()> {
        values.iter().try_for_each(|v| self.write(&v.to_le_bytes()))
    }

    /// Writes the next numbers of an `I64` tensor.
    pub fn integers(&mut self, values: impl Iterator<Item = i64>) -> Result<()> {
        let mut values = values;
        values.try_for_each(|v| self.write(&v.to_le_bytes()))
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> Result<()> {
        self.file.flush().map_err(|e| cannot_write(&self.path, &e))?;
        std::fs::rename(&self.temporary, &self.path).map_err(|e| cannot_write(&self.path, &e))?;
        self.finished = true;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| cannot_write(&self.path, &e))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing more can be done about a temporary that stays.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn cannot_write(path: &Path, cause: &std::io::Error) -> Error {
    Error::failed(format!("cannot write {}: {cause}", path.display()))
}

/// The JSON header, padded to a multiple of 8 bytes.
fn header(tensors: &[Tensor]) -> Option<String> {
    let mut entries = Map::new();
    let mut offset = 0usize;
    for tensor in tensors {
        let element: usize = if tensor.dtype == "I64" { 8 } else { 4 };
        let bytes = tensor.shape.iter().try_fold(element, |n, dim| n.checked_mul(*dim))?;
        let end = offset.checked_add(bytes)?;
        let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, end] });
        entries.insert(tensor.name.to_string(), entry);
        offset = end;
    }
    let mut text = Value::Object(entries).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout() {
        let path = std::env::temp_dir().join(format!("llmc-rt-{}.safetensors", std::process::id()));
        let tensors = [
            Tensor { name: "logits", dtype: "F32", shape: &[2, 1] },
            Tensor { name: "input_ids", dtype: "I64", shape: &[2] },
        ];
        let mut writer = Writer::create(&path, &tensors).expect("creates");
        writer.floats(&[1.5, -2.0]).expect("writes");
        assert!(!path.exists(), "no file before it is complete");
        writer.integers([7, 8].into_iter()).expect("writes");
        writer.finish().expect("renames");
        let bytes = std::fs::read(&path).expect("reads");
        std::fs::remove_file(&path).expect("removes");
        let len = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + len]).expect("JSON");
        assert_eq!(header["logits"]["data_offsets"], json!([0, 8]));
        assert_eq!(header["input_ids"], json!({ "dtype": "I64", "shape": [2], "data_offsets": [8, 24] }));
        let data = &bytes[8 + len..];
        assert_eq!((len % 8, data.len(), &data[..4]), (0, 24, &1.5f32.to_le_bytes()[..]));
        assert_eq!(data[16..], 8i64.to_le_bytes());
    }

    #[test]
    fn an_abandoned_file_leaves_nothing() {
        let path = std::env::temp_dir().join(format!("llmc-rt-gone-{}.safetensors", std::process::id()));
        let writer = Writer::create(&path, &[Tensor { name: "x", dtype: "F32", shape: &[1] }]).expect("creates");
        let temporary = writer.temporary.clone();
        assert!(temporary.exists());
        drop(writer);
        assert!(!temporary.exists() && !path.exists());
        assert_eq!(header(&[Tensor { name: "x", dtype: "F32", shape: &[usize::MAX, 2] }]), None);
        assert!(Writer::create(Path::new("/nonexistent/x"), &[]).is_err_and(|e| e.code() == 1));
    }
}
