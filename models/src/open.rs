//! Opening a model: everything about it that its files say, checked.

use crate::bind::{self, Bindings};
use crate::blocks::Weights;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::config::text::{self, Side, Sides, TextConfig};
use crate::error::Result;
use crate::families;
use crate::sources::{self, Location};
use crate::spec::ArchSpec;
use std::path::{Path, PathBuf};

/// Largest JSON side file read, in bytes.
const MAX_JSON: u64 = 64 << 20;
/// Largest tokenizer.json read, in bytes.
const MAX_TOKENIZER: u64 = 512 << 20;

/// A model, ready to be built.
#[derive(Debug)]
pub struct Opened {
    /// A name for people.
    pub name: String,
    /// What the model is.
    pub spec: ArchSpec,
    /// How its weights are reached, by canonical name.
    pub weights: Weights,
    /// Its parameters.
    pub checkpoint: Checkpoint,
    /// Special tokens, chat template, sampling defaults.
    pub text: TextConfig,
    /// The bytes of tokenizer.json, if there is one.
    pub tokenizer_json: Option<Vec<u8>>,
    /// The licence its files name: an SPDX identifier or what stands there.
    pub license: Option<String>,
    /// Every file that was read, config first.
    pub sources: Vec<PathBuf>,
}

/// Opens MODEL: a safetensors file, a model folder, or `org/name[@rev]` in the local hub cache.
///
/// # Errors
/// [`crate::Error`] naming the file and the tensor or key.
pub fn open(model: &Path) -> Result<Opened> {
    open_with(model, sources::hub_cache().as_deref())
}

/// As [`open`], with the folder of the hub's cache.
///
/// # Errors
/// As [`open`].
pub fn open_with(model: &Path, hub: Option<&Path>) -> Result<Opened> {
    let location = sources::locate(model, hub)?;
    let folder = &location.folder;
    let mut files = Files { folder, read: Vec::new() };
    let config_path = folder.join("config.json");
    let config_text = sources::read(&config_path, MAX_JSON)?;
    files.read.push(config_path.clone());
    let (family, spec) = families::read(&Config::parse(&config_path, &config_text)?)?;

    let tensors = location.weights.open()?;
    let Bindings { params, weights } = bind::bind(&spec, &family.names, &tensors)?;
    let checkpoint = Checkpoint::new(tensors, params);

    let text = files.text(&config_path, &config_text, spec.vocab)?;
    let tokenizer_json = files.optional("tokenizer.json", MAX_TOKENIZER)?;
    let license = files.license()?;
    let sources = files.finish(&location, &checkpoint);
    Ok(Opened { name: location.name.clone(), spec, weights, checkpoint, text, tokenizer_json, license, sources })
}

/// Reads side files of a folder and remembers which.
struct Files<'a> {
    folder: &'a Path,
    read: Vec<PathBuf>,
}

impl Files<'_> {
    fn optional(&mut self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let path = self.folder.join(name);
        let bytes = sources::read_if_there(&path, limit)?;
        if bytes.is_some() {
            self.read.push(path);
        }
        Ok(bytes)
    }

    fn text(&mut self, config_path: &Path, config: &[u8], vocab: usize) -> Result<TextConfig> {
        const NAMES: [&str; 4] =
            ["generation_config.json", "special_tokens_map.json", "tokenizer_config.json", "chat_template.jinja"];
        let paths = NAMES.map(|n| self.folder.join(n));
        let mut bytes = Vec::new();
        for name in NAMES {
            bytes.push(self.optional(name, MAX_JSON)?);
        }
        let side = |i: usize| Side { path: &paths[i], bytes: bytes[i].as_deref() };
        let sides = Sides {
            config: Side { path: config_path, bytes: Some(config) },
            generation: side(0),
            special: side(1),
            tokenizer: side(2),
            template: side(3),
        };
        text::read(&sides, vocab)
    }

    /// `license:` in the front matter of the folder's README.md.
    fn license(&mut self) -> Result<Option<String>> {
        let Some(readme) = self.optional("README.md", MAX_JSON)? else { return Ok(None) };
        Ok(front_matter_license(&String::from_utf8_lossy(&readme)))
    }

    fn finish(self, location: &Location, checkpoint: &Checkpoint) -> Vec<PathBuf> {
        let mut all = self.read;
        if let sources::Weights::Sharded(index) = &location.weights {
            all.push(index.clone());
        }
        all.extend(checkpoint.tensors().files().iter().map(|f| f.path().to_path_buf()));
        all
    }
}

/// The value of `license:` between the first two lines `---`; `license_name:` where that is `other`.
fn front_matter_license(readme: &str) -> Option<String> {
    let mut lines = readme.lines();
    lines.next().filter(|l| l.trim_end() == "---")?;
    let front: Vec<&str> = lines.take_while(|l| l.trim_end() != "---").collect();
    let value = |key: &str| {
        let text = front.iter().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
        let text: String =
            text.trim().trim_matches(['"', '\'']).chars().filter(|c| !c.is_control()).take(100).collect();
        (!text.is_empty()).then_some(text)
    };
    match value("license") {
        Some(other) if other == "other" => value("license_name").or(Some(other)),
        license => license,
    }
}

#[cfg(test)]
mod tests {
    use super::front_matter_license as license;

    #[test]
    fn licences() {
        assert_eq!(license("---\nlicense: apache-2.0\n---\n# x").as_deref(), Some("apache-2.0"));
        assert_eq!(license("---\nlicense: other\nlicense_name: llama3\n---\n").as_deref(), Some("llama3"));
        assert_eq!(license("---\ntags: x\n---\nlicense: mit"), None);
        assert_eq!(license("license: mit"), None);
    }
}
