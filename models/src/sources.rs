//! Where a model's files are: MODEL on the command line becomes a folder and its weight files.
//!
//! MODEL is a safetensors file (its folder supplies the rest), a folder, or `org/name[@rev]` in the
//! local cache of the Hugging Face hub.

use crate::checkpoint::TensorSet;
use crate::error::{Error, Result, quoted};
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A model's place on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// A name for people: of the folder, the file, or `org/name`.
    pub name: String,
    /// The folder that holds config.json and the tokenizer.
    pub folder: PathBuf,
    /// The weights.
    pub weights: Weights,
}

/// The files that hold the weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// One file.
    Single(PathBuf),
    /// Several, named by this index.
    Sharded(PathBuf),
}

impl Weights {
    /// Opens the files.
    ///
    /// # Errors
    /// As [`TensorSet::single`] and [`TensorSet::sharded`].
    pub fn open(&self) -> Result<TensorSet> {
        match self {
            Weights::Single(file) => TensorSet::single(file),
            Weights::Sharded(index) => TensorSet::sharded(index),
        }
    }
}

/// Finds the files of `model`; `hub` is the folder of the hub's cache.
///
/// # Errors
/// [`Error::Io`] or [`Error::File`] if there is no such model; [`Error::Unsupported`] for a format
/// llmc cannot read.
pub fn locate(model: &Path, hub: Option<&Path>) -> Result<Location> {
    match std::fs::metadata(model) {
        Ok(m) if m.is_dir() => in_folder(model, file_name(&model.canonicalize().unwrap_or_else(|_| model.into()))),
        Ok(_) => from_file(model),
        Err(e) => match model.to_str().and_then(HubName::parse) {
            Some(name) => in_hub(&name, model, hub),
            None => Err(Error::io(model)(e)),
        },
    }
}

fn from_file(file: &Path) -> Result<Location> {
    let extension = file.extension().and_then(OsStr::to_str).unwrap_or("");
    match extension {
        "safetensors" => {}
        "gguf" => return Err(gguf(file)),
        _ => {
            let message = "is neither a .safetensors file nor a model folder; expected one of these";
            return Err(Error::file(file, message));
        }
    }
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    let index = folder.join(INDEX);
    let weights = match is_shard(file) && index.is_file() {
        true => Weights::Sharded(index),
        false => Weights::Single(file.into()),
    };
    let absolute = folder.canonicalize().unwrap_or_else(|_| folder.clone());
    let stem = file.file_stem().map_or("model".into(), |s| s.to_string_lossy().into_owned());
    let plain = stem == "model" || matches!(weights, Weights::Sharded(_));
    Ok(Location { name: if plain { file_name(&absolute) } else { stem }, folder, weights })
}

fn in_folder(folder: &Path, name: String) -> Result<Location> {
    let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
    let weights = if single.exists() {
        Weights::Single(single)
    } else if index.exists() {
        Weights::Sharded(index)
    } else {
        return Err(no_weights(folder));
    };
    Ok(Location { name, folder: folder.into(), weights })
}

/// Says what a folder holds instead of safetensors.
fn no_weights(folder: &Path) -> Error {
    let names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    if names.iter().any(|n| n.ends_with(".gguf")) {
        return gguf(folder);
    }
    if names.iter().any(|n| n.ends_with(".bin") || n.ends_with(".pth") || n.ends_with(".pt")) {
        return Error::Unsupported {
            path: folder.into(),
            what: "PyTorch pickle checkpoints are".into(),
            advice: format!("convert it to {SINGLE} (transformers' save_pretrained writes it)"),
        };
    }
    Error::file(folder, format!("has neither {SINGLE} nor {INDEX}"))
}

fn gguf(path: &Path) -> Error {
    Error::Unsupported {
        path: path.into(),
        what: "GGUF files are".into(),
        advice: format!("use the model's {SINGLE} or its folder"),
    }
}

/// True for `model-00001-of-00004.safetensors` and the like.
fn is_shard(file: &Path) -> bool {
    let stem = file.file_stem().and_then(OsStr::to_str).unwrap_or("");
    let digits = |s: &str| s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit());
    stem.rsplit_once("-of-")
        .is_some_and(|(front, total)| digits(total) && front.rsplit_once('-').is_some_and(|(_, number)| digits(number)))
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or("model".into(), |n| n.to_string_lossy().into_owned())
}

/// `org/name[@rev]`.
struct HubName<'a> {
    org: &'a str,
    name: &'a str,
    revision: &'a str,
}

impl HubName<'_> {
    fn parse(text: &str) -> Option<HubName<'_>> {
        let (repo, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (org, name) = repo.split_once('/')?;
        let word = |s: &str| {
            !s.is_empty()
                && !s.starts_with('.')
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        let file = [".safetensors", ".gguf", ".json", ".bin"].iter().any(|e| name.ends_with(e));
        (word(org) && word(name) && word(revision) && !file).then_some(HubName { org, name, revision })
    }
}

/// Looks in the layout `models--org--name/{refs/REV, snapshots/COMMIT}`.
fn in_hub(hub_name: &HubName<'_>, model: &Path, hub: Option<&Path>) -> Result<Location> {
    let HubName { org, name, revision } = hub_name;
    let absent = |place: String| {
        let message = format!("is no file or folder here, and {place}; download it first (hf download {org}/{name})");
        Error::file(model, message)
    };
    let Some(hub) = hub else { return Err(absent("no cache of the Hugging Face hub is set (HF_HOME)".into())) };
    let repo = hub.join(format!("models--{org}--{name}"));
    let commit = std::fs::read_to_string(repo.join("refs").join(revision));
    let commit = commit.as_deref().map_or(*revision, str::trim);
    let snapshot = repo.join("snapshots").join(commit);
    if commit.contains(['/', '\\']) || commit.starts_with('.') || !snapshot.is_dir() {
        return Err(absent(format!("revision {} is not in the cache {}", quoted(revision), hub.display())));
    }
    in_folder(&snapshot, format!("{org}/{name}"))
}

/// The folder of the hub's cache, from `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` or `HOME`.
pub fn hub_cache() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("HF_HUB_CACHE")
        .or_else(|| var("HF_HOME").map(|p| p.join("hub")))
        .or_else(|| var("XDG_CACHE_HOME").map(|p| p.join("huggingface/hub")))
        .or_else(|| var("HOME").map(|p| p.join(".cache/huggingface/hub")))
}

/// The bytes of a file of at most `limit` bytes.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::File`] if it is longer.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    if !file.metadata().map_err(Error::io(path))?.is_file() {
        return Err(Error::file(path, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::file(path, format!("is longer than the {limit} bytes allowed for it")));
    }
    Ok(bytes)
}

/// As [`read`], or `None` if there is no such file.
///
/// # Errors
/// As [`read`].
pub fn read_if_there(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    match read(path, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_names() {
        let parts = |t| HubName::parse(t).map(|h| (h.org.to_owned(), h.name.to_owned(), h.revision.to_owned()));
        let three = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(parts("Qwen/Qwen3-0.6B"), three("Qwen", "Qwen3-0.6B", "main"));
        assert_eq!(parts("a/b@v1.0"), three("a", "b", "v1.0"));
        for text in ["a", "a/b/c", "../b", "./b", "/a/b", "a/b@../c", "a/m.safetensors", "a/m.gguf", "a/ b"] {
            assert_eq!(parts(text), None, "{text}");
        }
    }

    #[test]
    fn shards() {
        assert!(is_shard(Path::new("x/model-00001-of-00004.safetensors")));
        assert!(!is_shard(Path::new("model.safetensors")));
        assert!(!is_shard(Path::new("model-1-of-4.safetensors")));
    }
}
