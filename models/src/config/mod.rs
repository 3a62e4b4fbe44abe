//! A strict reader of config.json: it remembers which keys were understood.
//!
//! A family asks for the keys it knows, and [`Config::finish`] refuses a file with any other key
//! that is not known to be inert: a key that changes the math must never be passed over.

pub mod limits;
pub mod rope;
pub mod text;

use crate::error::{Error, Result};
use crate::json;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A JSON object with a record of the keys that were asked for.
///
/// A key with the value `null` counts as absent, as transformers has it.
#[derive(Debug)]
pub struct Config {
    path: PathBuf,
    prefix: String,
    keys: Map<String, Value>,
    used: RefCell<BTreeSet<String>>,
}

impl Config {
    /// Reads a config's text; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::File`] if it is not a JSON object or has a duplicate key.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Config> {
        match json::parse(text).map_err(|e| Error::file(path, e))? {
            Value::Object(keys) => Ok(Config::new(path, String::new(), keys)),
            other => Err(Error::file(path, format!("is {}, expected a JSON object", json::kind(&other)))),
        }
    }

    fn new(path: &Path, prefix: String, keys: Map<String, Value>) -> Config {
        Config { path: path.into(), prefix, keys, used: RefCell::default() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error about a key.
    pub fn error(&self, key: &str, message: impl Into<String>) -> Error {
        Error::key(&self.path, &format!("{}{key}", self.prefix), message)
    }

    /// True if the key is in the file, even as `null`.
    pub fn mentions(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// The value of a key, unless absent or `null`. The key counts as understood.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.used.borrow_mut().insert(key.into());
        self.keys.get(key).filter(|v| !v.is_null())
    }

    /// The object under a key.
    ///
    /// # Errors
    /// [`Error::Key`] if it is something else.
    pub fn child(&self, key: &str) -> Result<Option<Config>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(keys)) => {
                Ok(Some(Config::new(&self.path, format!("{}{key}.", self.prefix), keys.clone())))
            }
            Some(other) => Err(self.wrong(key, other, "an object")),
        }
    }

    /// A whole number from 1 to `limit`.
    ///
    /// # Errors
    /// [`Error::Key`] if it is something else.
    pub fn size_if(&self, key: &str, limit: usize) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wanted = || self.wrong(key, value, &format!("a whole number from 1 to {limit}"));
        let n = value.as_u64().ok_or_else(wanted)?;
        usize::try_from(n).ok().filter(|n| (1..=limit).contains(n)).map(Some).ok_or_else(wanted)
    }

    /// A whole number from 1 to `limit`, which must be there.
    ///
    /// # Errors
    /// [`Error::Key`] if it is missing or something else.
    pub fn size(&self, key: &str, limit: usize) -> Result<usize> {
        self.size_if(key, limit)?.ok_or_else(|| self.missing(key, &format!("a whole number from 1 to {limit}")))
    }

    /// A finite number above 0.
    ///
    /// # Errors
    /// [`Error::Key`] if it is something else.
    pub fn positive_if(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|x| *x > 0.0 && (*x as f32).is_finite() && (*x as f32) > 0.0);
        number.map(Some).ok_or_else(|| self.wrong(key, value, "a number above 0 in the range of f32"))
    }

    /// A finite number above 0, which must be there.
    ///
    /// # Errors
    /// [`Error::Key`] if it is missing or something else.
    pub fn positive(&self, key: &str) -> Result<f64> {
        self.positive_if(key)?.ok_or_else(|| self.missing(key, "a number above 0"))
    }

    /// A flag, or `default` where it is absent.
    ///
    /// # Errors
    /// [`Error::Key`] if it is something else.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false")),
        }
    }

    /// A string.
    ///
    /// # Errors
    /// [`Error::Key`] if it is something else.
    pub fn text_if(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, value, "a string"))
    }

    /// A string, which must be there.
    ///
    /// # Errors
    /// [`Error::Key`] if it is missing or something else.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.text_if(key)?.ok_or_else(|| self.missing(key, "a string"))
    }

    /// A list of strings.
    ///
    /// # Errors
    /// [`Error::Key`] if it is something else.
    pub fn texts_if(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().and_then(|l| l.iter().map(Value::as_str).collect::<Option<Vec<&str>>>());
        list.map(Some).ok_or_else(|| self.wrong(key, value, "a list of strings"))
    }

    /// Requires that a key, if there is one, has the only value llmc knows what to do with.
    ///
    /// # Errors
    /// [`Error::Key`] if it has another.
    pub fn only(&self, key: &str, supported: impl Into<Value>) -> Result<()> {
        let supported = supported.into();
        let same = |v: &Value| *v == supported || (v.is_number() && v.as_f64() == supported.as_f64());
        match self.get(key) {
            Some(value) if !same(value) => Err(self.error(
                key,
                format!("is {}, which changes the model; llmc supports only {supported}", json::brief(value)),
            )),
            _ => Ok(()),
        }
    }

    /// Refuses a key that was neither asked for nor is in `inert`. A `null` changes nothing.
    ///
    /// # Errors
    /// [`Error::Key`] naming the first such key.
    pub fn finish(&self, inert: &[&[&str]]) -> Result<()> {
        let used = self.used.borrow();
        let known = |key: &str| used.contains(key) || inert.iter().any(|list| list.contains(&key));
        match self.keys.iter().find(|(k, v)| !v.is_null() && !known(k)) {
            None => Ok(()),
            Some((key, value)) => Err(self.error(
                key,
                format!(
                    "is {}; llmc does not know this key of this kind of model, and it could change the result; \
                     remove it if you are certain that it does not",
                    json::brief(value)
                ),
            )),
        }
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        self.error(key, format!("is {}, expected {expected}", json::brief(value)))
    }

    fn missing(&self, key: &str, expected: &str) -> Error {
        self.error(key, format!("is missing, expected {expected}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(Path::new("config.json"), text.as_bytes()).unwrap()
    }

    #[test]
    fn names_the_key() {
        let c = config(r#"{"a":0,"b":1e30,"c":"x","d":-1,"e":2.5,"f":3,"g":{"h":1},"i":null}"#);
        for (result, message) in [
            (c.size("a", 10).map(drop), "a: is 0, expected a whole number from 1 to 10"),
            (c.size("b", 10).map(drop), "b: is 1e+30"),
            (c.size("d", 10).map(drop), "d: is -1"),
            (c.size("e", 10).map(drop), "e: is 2.5"),
            (c.size("f", 2).map(drop), "f: is 3"),
            (c.size("i", 2).map(drop), "i: is missing"),
            (c.positive("d").map(drop), "d: is -1"),
            (c.positive("c").map(drop), "c: is \"x\""),
            (c.flag_or("a", true).map(drop), "a: is 0, expected true or false"),
            (c.only("f", 1), "f: is 3, which changes the model"),
            (c.child("g").unwrap().unwrap().size("h2", 1).map(drop), "g.h2: is missing"),
            (c.child("g").unwrap().unwrap().finish(&[]), "g.h: is 1; llmc does not know"),
        ] {
            let e = result.unwrap_err().to_string();
            assert!(e.starts_with("config.json: ") && e.contains(message), "wanted {message}, got {e}");
        }
        assert!(c.finish(&[]).is_ok(), "all keys were asked for");
        assert!(config(r#"{"x":1}"#).finish(&[&["x"]]).is_ok());
        assert!(config(r#"{"x":null}"#).finish(&[]).is_ok());
        assert!(config(r#"{"x":1}"#).only("x", 1.0).is_ok());
    }
}
