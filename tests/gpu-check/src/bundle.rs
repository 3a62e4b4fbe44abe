//! What is carried to the GPU: a folder with `bundle.json` and a folder for each model.

use llmc_abi::Manifest;
use llmc_rt::artifact;
use llmc_rt::engine::{Engine, Options};
use llmc_rt::error::{Error, Result};
use llmc_rt::sampler::SplitMix64;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The list of it all, `bundle.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Bundle {
    /// Models whose results are known.
    pub models: Vec<Model>,
    /// Models whose speed is wanted.
    pub speeds: Vec<Speed>,
}

/// A model whose results are known.
#[derive(Debug, Serialize, Deserialize)]
pub struct Model {
    /// Its folder.
    pub name: String,
    /// How far logits may be from those expected, relative to the largest.
    pub tolerance: f32,
    /// A text.
    pub ids: Vec<u32>,
    /// The tokens that the most likely ones after it are, where those are known.
    pub greedy: Vec<u32>,
}

/// A model whose weights do not matter.
#[derive(Debug, Serialize, Deserialize)]
pub struct Speed {
    /// Its folder.
    pub name: String,
    /// Tokens of a prompt.
    pub prefill: usize,
    /// Tokens in the cache before others are decoded.
    pub depth: usize,
    /// Tokens decoded.
    pub decode: usize,
}

/// Name of the list.
pub const LIST: &str = "bundle.json";
/// A model's manifest.
pub const MANIFEST: &str = "manifest.json";
/// Its images for GPUs, as in an artifact.
pub const CODE: &str = "code";
/// Its packed weights, where it has some of its own.
pub const WEIGHTS: &str = "weights";
/// The logits expected after each token, f32.
pub const LOGITS: &str = "logits";

/// Reads a file of a model.
pub fn read(folder: &Path, file: &str) -> Result<Vec<u8>> {
    let path = folder.join(file);
    std::fs::read(&path).map_err(|e| Error::input(format!("{}: {e}; make the bundle again", path.display())))
}

/// The list of the bundle in a folder.
pub fn list(folder: &Path) -> Result<Bundle> {
    parse(folder, LIST)
}

fn parse<T: for<'de> Deserialize<'de>>(folder: &Path, file: &str) -> Result<T> {
    let bytes = read(folder, file)?;
    let broken = |e| Error::input(format!("{}: {e}; make the bundle again", folder.join(file).display()));
    serde_json::from_slice(&bytes).map_err(broken)
}

/// What a model's manifest says.
pub fn manifest(folder: &Path) -> Result<Manifest> {
    parse(folder, MANIFEST)
}

/// A model on the GPU numbered `device`, with the weights in its folder or [`made_up`] ones. What it is made of is kept to
/// the end of the process.
pub fn engine(folder: &Path, device: usize, context: Option<usize>) -> Result<Engine> {
    let manifest = manifest(folder)?;
    let code = read(folder, CODE)?.leak();
    let size = manifest.weights.bytes as usize;
    let weights = if folder.join(WEIGHTS).exists() { read(folder, WEIGHTS)?.leak() } else { kept(size) };
    if weights.len() != size {
        let found = weights.len();
        return Err(Error::input(format!("{}: {found} bytes of weights, {size} expected", folder.display())));
    }
    let options = Options { context, ..Options::default() };
    // SAFETY: code, manifest and the size of the weights are of one compilation, and its kernels read nothing else.
    unsafe { artifact::on_gpu(&manifest, code, weights, (device, options)) }
}

/// Weights that are small numbers, whatever they are read as: of every two bytes the upper one is that of a bf16 near
/// 0.01, and of a binary16 near 1, of either sign. They are the same wherever they are made.
pub fn made_up(bytes: usize) -> Vec<u8> {
    let mut all = vec![0u8; bytes];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let of_thread = bytes.div_ceil(PART).div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for (thread, parts) in all.chunks_mut(of_thread * PART).enumerate() {
            scope.spawn(move || {
                for (i, part) in parts.chunks_mut(PART).enumerate() {
                    fill(part, (thread * of_thread + i) as u64);
                }
            });
        }
    });
    all
}

/// The same, to the end of the process; models share them.
fn kept(bytes: usize) -> &'static [u8] {
    static ALL: Mutex<&[u8]> = Mutex::new(&[]);
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() < bytes {
        *all = made_up(bytes).leak();
    }
    &all[..bytes]
}

/// Bytes of [`made_up`] with a seed of their own.
const PART: usize = 1 << 20;

fn fill(part: &mut [u8], seed: u64) {
    let mut random = SplitMix64(seed);
    for word in part.chunks_mut(8) {
        let bits = random.bits() & 0x80ff_80ff_80ff_80ff | 0x3c00_3c00_3c00_3c00;
        word.copy_from_slice(&bits.to_le_bytes()[..word.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_small_numbers() {
        let all = made_up(1000);
        for (low, high) in all.chunks_exact(2).map(|b| (b[0], b[1])) {
            let number = f32::from_bits(u32::from(high) << 24 | u32::from(low) << 16).abs();
            assert!((0.007..0.032).contains(&number), "{number}");
        }
        assert_eq!((all.len(), made_up(3).len()), (1000, 3));
    }

    /// Whatever the number of threads, and of all bytes.
    #[test]
    fn weights_are_the_same_everywhere() {
        assert!(kept(PART + 100) == &made_up(2 * PART)[..PART + 100] && kept(7) == &made_up(PART)[..7]);
        let all = made_up(5 * PART / 2);
        for (i, part) in all.chunks(PART).enumerate() {
            let mut expected = vec![0; part.len()];
            fill(&mut expected, i as u64);
            assert!(part == expected, "part {i}");
        }
    }
}
