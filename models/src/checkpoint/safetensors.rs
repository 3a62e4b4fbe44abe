//! The header of a safetensors file: every name, type, shape and place, checked.
//!
//! Format: 8 bytes little-endian header length, that many bytes of JSON, then the tensors' bytes.
//! Offsets count from the end of the header; the tensors must tile the rest of the file exactly.
//! Source: <https://github.com/huggingface/safetensors#format>. All arithmetic on what the file
//! says is checked here, before the safetensors crate's own validation sees it.

use crate::error::{Error, Result, quoted};
use crate::json;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, Value};
use std::path::Path;

/// Longest header accepted, in bytes; the reference implementation has the same limit.
pub const MAX_HEADER: usize = 100_000_000;

/// The tensors of one file.
#[derive(Debug)]
pub struct Table {
    metadata: Metadata,
    /// Where the tensors' bytes begin in the file.
    pub data_start: usize,
}

impl Table {
    /// Reads the header of `file`, the bytes of the whole file; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Tensor`], saying what is wrong with which tensor.
    pub fn parse(path: &Path, file: &[u8]) -> Result<Table> {
        let header = header(path, file)?;
        let data_start = 8 + header.len();
        let tensors = entries(path, header)?;
        check_sizes(path, &tensors)?;
        check_tiling(path, &tensors, file.len() - data_start)?;
        let metadata = Metadata::new(None, tensors).map_err(|e| Error::file(path, format!("header: {e}")))?;
        Ok(Table { metadata, data_start })
    }

    /// Type, shape and place of a tensor.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.info(name)
    }

    /// Names in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }
}

/// The header's bytes.
fn header<'a>(path: &Path, file: &'a [u8]) -> Result<&'a [u8]> {
    if file.is_empty() {
        return Err(Error::file(path, "the file is empty; expected a safetensors file"));
    }
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(Error::file(
            path,
            format!("the file has {} bytes, a safetensors header has at least 8; download it again", file.len()),
        ));
    };
    let length = u64::from_le_bytes(*length);
    let fits = usize::try_from(length).ok().filter(|n| *n <= rest.len());
    let Some(length) = fits else {
        return Err(Error::file(
            path,
            format!(
                "the header says it has {length} bytes, but only {} follow: the file is truncated or not a \
                 safetensors file; download it again",
                rest.len()
            ),
        ));
    };
    if length > MAX_HEADER {
        return Err(Error::file(path, format!("the header has {length} bytes, more than the allowed {MAX_HEADER}")));
    }
    Ok(&rest[..length])
}

/// Every tensor of the header, sorted by place.
fn entries(path: &Path, header: &[u8]) -> Result<Vec<(String, TensorInfo)>> {
    let value = json::parse(header).map_err(|e| Error::file(path, format!("header {e}")))?;
    let Value::Object(map) = value else {
        return Err(Error::file(path, format!("header is {}, expected an object", json::kind(&value))));
    };
    let mut tensors = Vec::with_capacity(map.len());
    for (name, value) in map {
        if name == "__metadata__" {
            continue;
        }
        let info = entry(value).map_err(|message| Error::tensor(path, &name, message))?;
        tensors.push((name, info));
    }
    tensors.sort_by(|a, b| (a.1.data_offsets, &a.0).cmp(&(b.1.data_offsets, &b.0)));
    Ok(tensors)
}

/// One tensor's `{"dtype":..,"shape":[..],"data_offsets":[begin,end]}`.
fn entry(value: Value) -> std::result::Result<TensorInfo, String> {
    const FIELDS: [&str; 3] = ["dtype", "shape", "data_offsets"];
    let Value::Object(fields) = &value else {
        return Err(format!("the header has {} here, expected an object", json::kind(&value)));
    };
    if let Some(unknown) = fields.keys().find(|k| !FIELDS.contains(&k.as_str())) {
        return Err(format!("the header has an unknown field {}", quoted(unknown)));
    }
    if let Some(missing) = FIELDS.iter().find(|f| !fields.contains_key(**f)) {
        return Err(format!("the header has no {missing}"));
    }
    for field in FIELDS {
        check_field(fields, field)?;
    }
    serde_json::from_value(value).map_err(|e| format!("the header is malformed: {e}"))
}

/// Says which field is malformed, since the error of a whole entry would not.
fn check_field(fields: &Map<String, Value>, field: &str) -> std::result::Result<(), String> {
    let value = &fields[field];
    let whole_numbers = |v: &Value| v.as_array().is_some_and(|l| l.iter().all(Value::is_u64));
    let ok = match field {
        "dtype" => serde_json::from_value::<safetensors::Dtype>(value.clone()).is_ok(),
        "data_offsets" => whole_numbers(value) && value.as_array().is_some_and(|l| l.len() == 2),
        _ => whole_numbers(value),
    };
    match (ok, field) {
        (true, _) => Ok(()),
        (_, "dtype") => Err(format!("unknown dtype {}", json::brief(value))),
        _ => Err(format!("{field} is {}, expected whole numbers", json::brief(value))),
    }
}

/// Each tensor has as many bytes as its type and shape take.
fn check_sizes(path: &Path, tensors: &[(String, TensorInfo)]) -> Result<()> {
    for (name, info) in tensors {
        let bad = |message: String| Error::tensor(path, name, message);
        let (begin, end) = info.data_offsets;
        let bytes = info
            .shape
            .iter()
            .try_fold(1usize, |n, d| n.checked_mul(*d))
            .and_then(|n| n.checked_mul(info.dtype.bitsize()))
            .ok_or_else(|| bad(format!("the product of its shape {:?} overflows", info.shape)))?
            / 8;
        let found = end.checked_sub(begin).ok_or_else(|| bad(format!("ends at {end}, before its begin {begin}")))?;
        if found != bytes {
            return Err(bad(format!(
                "has {found} bytes, but shape {:?} of {:?} takes {bytes}",
                info.shape, info.dtype
            )));
        }
    }
    Ok(())
}

/// The tensors, sorted by place, cover `data_len` bytes without overlap or hole.
fn check_tiling(path: &Path, tensors: &[(String, TensorInfo)], data_len: usize) -> Result<()> {
    let mut covered = 0usize;
    let mut previous = "the header";
    for (name, info) in tensors {
        let (begin, end) = info.data_offsets;
        if begin < covered {
            return Err(Error::tensor(path, name, format!("its bytes overlap those of {}", quoted(previous))));
        }
        if begin > covered {
            return Err(Error::tensor(
                path,
                name,
                format!("{} bytes between {} and it belong to no tensor", begin - covered, quoted(previous)),
            ));
        }
        if end > data_len {
            return Err(Error::tensor(
                path,
                name,
                format!(
                    "its bytes end at {end}, but the file holds {data_len}: the file is truncated; download it again"
                ),
            ));
        }
        (covered, previous) = (end, name);
    }
    if covered < data_len {
        return Err(Error::file(path, format!("{} bytes after the last tensor belong to none", data_len - covered)));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file with this header and `data` zero bytes.
    pub fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    const GOOD: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,2],"data_offsets":[4,20]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;

    fn parse(bytes: &[u8]) -> Result<Table> {
        Table::parse(Path::new("m.safetensors"), bytes)
    }

    #[test]
    fn reads_a_header() {
        let table = parse(&file(GOOD, 20)).unwrap();
        assert_eq!(table.names(), ["a", "b"]);
        assert_eq!(table.get("b").unwrap().shape, [2, 2]);
        assert_eq!(table.data_start, 8 + GOOD.len());
    }

    #[test]
    fn refuses_broken_headers() {
        let t = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"x":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        let cases = [
            (file("", 0), "is not JSON"),
            (file("[]", 0), "header is a list"),
            (file("{\"x\":1}", 0), "x: the header has a number here"),
            (file("nonsense", 0), "is not JSON"),
            (file(r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x":{}}"#, 4), "duplicate key x"),
            (file(r#"{"x":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}"#, 4), "duplicate key dtype"),
            (file(r#"{"x":{"dtype":"F32","shape":[1]}}"#, 4), "x: the header has no data_offsets"),
            (
                file(r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"extra":1}}"#, 4),
                "x: the header has an unknown field extra",
            ),
            (file(&t("Q4", "[1]", "[0,4]"), 4), "x: unknown dtype \"Q4\""),
            (file(&t("F32", "[-1]", "[0,4]"), 4), "x: shape is [-1]"),
            (file(&t("F32", "[1.5]", "[0,4]"), 4), "x: shape is [1.5]"),
            (file(&t("F32", "[1]", "[0,4,8]"), 4), "x: data_offsets is [0,4,8]"),
            (file(&t("F32", "[1]", "[4,0]"), 4), "x: ends at 0, before its begin 4"),
            (file(&t("F32", "[2]", "[0,4]"), 4), "x: has 4 bytes, but shape [2] of F32 takes 8"),
            (file(&t("F32", "[4294967296,4294967296]", "[0,4]"), 4), "product of its shape"),
            (file(&t("F32", "[4611686018427387904]", "[0,4]"), 4), "product of its shape"),
            (file(&t("F32", "[1]", "[4,8]"), 8), "x: 4 bytes between the header and it belong to no tensor"),
            (file(&t("F32", "[1]", "[0,4]"), 3), "x: its bytes end at 4, but the file holds 3"),
            (file(&t("F32", "[1]", "[0,4]"), 5), "1 bytes after the last tensor"),
            (
                file(
                    r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
                    8,
                ),
                "y: its bytes overlap those of x",
            ),
            (
                file(
                    r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"y":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#,
                    12,
                ),
                "y: 4 bytes between x and it",
            ),
            (Vec::new(), "the file is empty"),
            (vec![1, 0, 0], "the file has 3 bytes"),
            ([&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "the header says it has 18446744073709551615 bytes"),
            ([&100u64.to_le_bytes()[..], b"{}"].concat(), "the header says it has 100 bytes, but only 2 follow"),
        ];
        for (bytes, message) in cases {
            let e = parse(&bytes).unwrap_err().to_string();
            assert!(e.starts_with("m.safetensors: ") && e.contains(message), "wanted {message}, got {e}");
        }
    }

    #[test]
    fn refuses_every_truncation() {
        let bytes = file(GOOD, 20);
        for n in 0..bytes.len() {
            assert!(parse(&bytes[..n]).is_err(), "{n} bytes");
        }
    }
}
