//! What surrounds a model that works on text: special tokens, chat template, sampling defaults.
//!
//! Sources, a later one winning: config.json, generation_config.json, special_tokens_map.json,
//! tokenizer_config.json, chat_template.jinja. All but the first may be missing. Keys that are not
//! read here concern training or other tools.

use crate::error::{Error, Result};
use crate::json;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// What a model's text commands need beside the tokenizer itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextConfig {
    /// Token that begins a text.
    pub bos: Option<u32>,
    /// Tokens that end a text; empty if none does.
    pub eos: Vec<u32>,
    /// Token that fills batches.
    pub pad: Option<u32>,
    /// Whether the tokenizer puts `bos` before a text, where tokenizer_config.json says so.
    pub add_bos: Option<bool>,
    /// Jinja template of a conversation.
    pub chat_template: Option<String>,
    /// Text of the special tokens by role: `bos_token`, `eos_token`, `pad_token`, `unk_token` ..
    pub special: BTreeMap<String, String>,
    /// Texts of special tokens without a role.
    pub additional_special: Vec<String>,
    /// How the model's makers sample from it.
    pub sampling: Sampling,
}

/// Sampling defaults of generation_config.json; absent where it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampling {
    /// False for greedy decoding.
    pub do_sample: Option<bool>,
    /// Divisor of the logits.
    pub temperature: Option<f32>,
    /// Number of most likely tokens kept.
    pub top_k: Option<u32>,
    /// Probability mass kept.
    pub top_p: Option<f32>,
    /// Least probability kept, as a fraction of the largest.
    pub min_p: Option<f32>,
    /// Divisor of the logits of tokens already present.
    pub repetition_penalty: Option<f32>,
}

/// A side file: where it is, and its bytes if it is there.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// For messages.
    pub path: &'a Path,
    /// The contents, if the file exists.
    pub bytes: Option<&'a [u8]>,
}

/// The side files.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// config.json.
    pub config: Side<'a>,
    /// generation_config.json.
    pub generation: Side<'a>,
    /// special_tokens_map.json.
    pub special: Side<'a>,
    /// tokenizer_config.json.
    pub tokenizer: Side<'a>,
    /// chat_template.jinja.
    pub template: Side<'a>,
}

/// Reads the side files of a model with `vocab` tokens.
///
/// # Errors
/// [`Error::File`] for a file that is not a JSON object or not UTF-8; [`Error::Key`] for a value
/// that cannot be used.
pub fn read(sides: &Sides, vocab: usize) -> Result<TextConfig> {
    let mut text = TextConfig::default();
    for side in [&sides.config, &sides.generation] {
        if let Some(object) = Object::read(side)? {
            text.token_ids(&object, vocab)?;
            text.sampling(&object)?;
        }
    }
    for side in [&sides.special, &sides.tokenizer] {
        if let Some(object) = Object::read(side)? {
            text.special_tokens(&object)?;
            text.tokenizer_options(&object)?;
        }
    }
    if let Some(bytes) = sides.template.bytes {
        let template =
            std::str::from_utf8(bytes).map_err(|e| Error::file(sides.template.path, format!("is not UTF-8: {e}")))?;
        text.chat_template = Some(template.to_owned());
    }
    Ok(text)
}

impl TextConfig {
    fn token_ids(&mut self, o: &Object, vocab: usize) -> Result<()> {
        let last = |ids: Vec<u32>| ids.first().copied();
        self.bos = o.ids("bos_token_id", vocab)?.map_or(self.bos, last);
        self.eos = o.ids("eos_token_id", vocab)?.unwrap_or(std::mem::take(&mut self.eos));
        // -1 stands for "none" in some configs, and a padding token is never computed with.
        self.pad = o.map.get("pad_token_id").and_then(Value::as_u64).map_or(self.pad, |id| u32::try_from(id).ok());
        Ok(())
    }

    fn sampling(&mut self, o: &Object) -> Result<()> {
        let s = &mut self.sampling;
        s.do_sample = o.flag("do_sample")?.or(s.do_sample);
        s.temperature = o.number("temperature", 100.0)?.or(s.temperature);
        s.top_p = o.number("top_p", 1.0)?.or(s.top_p);
        s.min_p = o.number("min_p", 1.0)?.or(s.min_p);
        s.repetition_penalty = o.number("repetition_penalty", 100.0)?.or(s.repetition_penalty);
        s.top_k = o.number("top_k", f64::from(u32::MAX))?.map(|k| k as u32).or(s.top_k);
        Ok(())
    }

    fn special_tokens(&mut self, o: &Object) -> Result<()> {
        const ROLES: [&str; 7] =
            ["bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"];
        for role in ROLES {
            if let Some(value) = o.get(role) {
                self.special.insert(role.into(), o.token_text(role, value)?);
            }
        }
        let key = "additional_special_tokens";
        if let Some(value) = o.get(key) {
            let list = value.as_array().ok_or_else(|| o.wrong(key, value, "a list"))?;
            self.additional_special = list.iter().map(|v| o.token_text(key, v)).collect::<Result<_>>()?;
        }
        Ok(())
    }

    fn tokenizer_options(&mut self, o: &Object) -> Result<()> {
        self.add_bos = o.flag("add_bos_token")?.or(self.add_bos);
        let Some(value) = o.get("chat_template") else { return Ok(()) };
        match value {
            Value::String(template) => self.chat_template = Some(template.clone()),
            Value::Array(named) => {
                let default = named.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
                self.chat_template = default.and_then(|t| t.get("template")).and_then(Value::as_str).map(str::to_owned);
            }
            other => return Err(o.wrong("chat_template", other, "a template or a list of named templates")),
        }
        Ok(())
    }
}

/// A side file as an object.
struct Object<'a> {
    path: &'a Path,
    map: Map<String, Value>,
}

impl<'a> Object<'a> {
    fn read(side: &Side<'a>) -> Result<Option<Object<'a>>> {
        let Some(bytes) = side.bytes else { return Ok(None) };
        match json::parse(bytes).map_err(|e| Error::file(side.path, e))? {
            Value::Object(map) => Ok(Some(Object { path: side.path, map })),
            other => Err(Error::file(side.path, format!("is {}, expected a JSON object", json::kind(&other)))),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        Error::key(self.path, key, format!("is {}, expected {expected}", json::brief(value)))
    }

    /// A token id or a list of them, each below `vocab`.
    fn ids(&self, key: &str, vocab: usize) -> Result<Option<Vec<u32>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let ids: Option<Vec<u32>> =
            list.iter().map(|v| v.as_u64().filter(|id| *id < vocab as u64).map(|id| id as u32)).collect();
        ids.map(Some).ok_or_else(|| self.wrong(key, value, &format!("token ids below the vocabulary's size, {vocab}")))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    fn number(&self, key: &str, limit: f64) -> Result<Option<f32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|x| (0.0..=limit).contains(x));
        number.map(|x| Some(x as f32)).ok_or_else(|| self.wrong(key, value, &format!("a number from 0 to {limit}")))
    }

    /// A token's text: a string, or an object with `content`.
    fn token_text(&self, key: &str, value: &Value) -> Result<String> {
        let text = value.as_str().or_else(|| value.get("content").and_then(Value::as_str));
        text.map(str::to_owned).ok_or_else(|| self.wrong(key, value, "a token's text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(generation: &str, tokenizer: &str) -> Result<TextConfig> {
        let side = |bytes| Side { path: Path::new("x.json"), bytes };
        let sides = Sides {
            config: side(Some(br#"{"bos_token_id":1,"eos_token_id":2,"pad_token_id":-1}"#)),
            generation: side(Some(generation.as_bytes())),
            special: side(None),
            tokenizer: side(Some(tokenizer.as_bytes())),
            template: side(None),
        };
        read(&sides, 10)
    }

    #[test]
    fn later_files_win() {
        let text = with(
            r#"{"eos_token_id":[3,4],"temperature":0.5,"top_k":20}"#,
            r#"{"bos_token":{"content":"<s>"},"eos_token":"</s>","add_bos_token":true,
                "chat_template":[{"name":"tool","template":"t"},{"name":"default","template":"d"}]}"#,
        )
        .unwrap();
        assert_eq!((text.bos, text.eos, text.pad, text.add_bos), (Some(1), vec![3, 4], None, Some(true)));
        assert_eq!((text.special["bos_token"].as_str(), text.chat_template.as_deref()), ("<s>", Some("d")));
        assert_eq!((text.sampling.temperature, text.sampling.top_k), (Some(0.5), Some(20)));
    }

    #[test]
    fn refuses() {
        for (generation, tokenizer, message) in [
            ("[]", "{}", "x.json: is a list"),
            ("{", "{}", "x.json: is not JSON"),
            (r#"{"eos_token_id":10}"#, "{}", "eos_token_id: is 10, expected token ids below"),
            (r#"{"eos_token_id":[1,-1]}"#, "{}", "eos_token_id: is [1,-1]"),
            (r#"{"temperature":-1}"#, "{}", "temperature: is -1"),
            ("{}", r#"{"bos_token":3}"#, "bos_token: is 3"),
            ("{}", r#"{"chat_template":3}"#, "chat_template: is 3"),
        ] {
            let e = with(generation, tokenizer).unwrap_err().to_string();
            assert!(e.contains(message), "wanted {message}, got {e}");
        }
    }
}
