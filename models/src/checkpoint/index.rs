//! The index of a checkpoint in several files: which file holds which tensor.
//!
//! `{"metadata": {..}, "weight_map": {"tensor": "file", ..}}`. File names are confined to the
//! folder of the index.

use crate::error::{Error, Result, quoted};
use crate::json;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// The file that holds each tensor, by tensor name; files are relative to the index's folder.
pub type WeightMap = BTreeMap<String, String>;

/// Reads the text of an index; `path` is for messages.
///
/// # Errors
/// [`Error::File`] if it is not JSON or has no weight map; [`Error::Key`] if a tensor's file is
/// not a name within the folder.
pub fn parse(path: &Path, text: &[u8]) -> Result<WeightMap> {
    let value = json::parse(text).map_err(|e| Error::file(path, e))?;
    let Some(Value::Object(map)) = value.get("weight_map") else {
        return Err(Error::key(
            path,
            "weight_map",
            "is missing or not an object; expected tensor names with file names",
        ));
    };
    if map.is_empty() {
        return Err(Error::key(path, "weight_map", "is empty"));
    }
    map.iter()
        .map(|(tensor, file)| {
            let key = || format!("weight_map.{tensor}");
            let file = file
                .as_str()
                .ok_or_else(|| Error::key(path, &key(), format!("is {}, expected a file name", json::kind(file))))?;
            if !confined(file) {
                let message = format!("file name {} leaves the model's folder; refused", quoted(file));
                return Err(Error::key(path, &key(), message));
            }
            Ok((tensor.clone(), file.to_owned()))
        })
        .collect()
}

/// True for a relative path of plain names.
fn confined(file: &str) -> bool {
    !file.is_empty()
        && !file.contains(['\0', '\\', ':'])
        && Path::new(file).components().all(|c| matches!(c, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_refuses() {
        let path = Path::new("m.index.json");
        let map = parse(path, br#"{"metadata":{"total_size":4},"weight_map":{"a":"x.safetensors"}}"#).unwrap();
        assert_eq!(map["a"], "x.safetensors");
        for (text, message) in [
            ("nonsense", "is not JSON"),
            ("[]", "weight_map: is missing"),
            (r#"{"weight_map":{}}"#, "weight_map: is empty"),
            (r#"{"weight_map":{"a":1}}"#, "weight_map.a: is a number"),
            (r#"{"weight_map":{"a":"x","a":"y"}}"#, "duplicate key a"),
            (r#"{"weight_map":{"a":"../outside"}}"#, "file name ../outside leaves the model's folder"),
            (r#"{"weight_map":{"a":"x/../../y"}}"#, "leaves the model's folder"),
            (r#"{"weight_map":{"a":"/etc/passwd"}}"#, "leaves the model's folder"),
            (r#"{"weight_map":{"a":"..\\x"}}"#, "leaves the model's folder"),
            (r#"{"weight_map":{"a":""}}"#, "leaves the model's folder"),
            (r#"{"weight_map":{"a":"x\u0000y"}}"#, "leaves the model's folder"),
        ] {
            let e = parse(path, text.as_bytes()).unwrap_err().to_string();
            assert!(e.contains(message), "wanted {message}, got {e}");
        }
    }
}
