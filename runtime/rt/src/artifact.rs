//! The running artifact: its manifest, the step that suits this CPU, and an engine for it.

use std::thread::JoinHandle;

use llmc_abi::manifest::{self, VariantInfo};
use llmc_abi::payload::SectionKind;
use llmc_abi::{Feature, Manifest, features};

use crate::cli::Machine;
use crate::engine::{Engine, Options};
use crate::error::{Error, Result};
use crate::memory::megabytes;
use crate::sys::payload::{Payload, payload};
use crate::sys::{amx, mmap, variants};
use crate::{limits, output};

/// Bytes mapped ahead at a time, so that other threads' page faults get their turn.
const POPULATE_BYTES: usize = 32 << 20;

/// What the artifact's file holds.
pub struct Artifact {
    /// Everything it says of itself.
    pub manifest: Manifest,
    /// Its sections.
    pub payload: Payload,
}

impl Artifact {
    /// Reads the running program's payload and manifest.
    ///
    /// # Errors
    ///
    /// Exit code 3 where the file is truncated, damaged or of another version.
    pub fn open() -> Result<Self> {
        let payload = payload().map_err(Error::input)?;
        let bytes = payload.section(SectionKind::Manifest).unwrap_or(b"");
        let manifest: Manifest = serde_json::from_slice(bytes)
            .map_err(|e| Error::input(format!("the artifact's manifest is broken: {e}; compile it again")))?;
        if manifest.version != manifest::VERSION {
            return Err(Error::input(format!(
                "the artifact's manifest has version {}, this runtime reads {}; compile it again",
                manifest.version,
                manifest::VERSION
            )));
        }
        Ok(Self { manifest, payload })
    }

    /// The compiled tokenizer's bytes.
    ///
    /// # Errors
    ///
    /// Exit code 3 where the model came without a tokenizer.
    pub fn tokenizer(&self) -> Result<&'static [u8]> {
        self.payload.section(SectionKind::Tokenizer).ok_or_else(|| {
            Error::input(
                "this artifact has no tokenizer (its model came without one); use --tokens, or compile it again \
                 with tokenizer.json beside the model",
            )
        })
    }

    /// The packed weights.
    pub fn weights(&self) -> Result<&'static [u8]> {
        let weights = self.payload.section(SectionKind::Weights).unwrap_or(&[]);
        if weights.len() as u64 == self.manifest.weights.bytes {
            return Ok(weights);
        }
        Err(Error::input(format!(
            "the artifact holds {} bytes of weights, its manifest says {}; compile it again",
            weights.len(),
            self.manifest.weights.bytes
        )))
    }

    /// An engine on the device asked for with the best variant of this CPU, and the thread that maps the
    /// weights ahead of their use.
    ///
    /// # Errors
    ///
    /// Exit code 5 without such a device or CPU feature, 4 without the memory.
    pub fn engine(&self, machine: &Machine, mut options: Options) -> Result<(Engine, Option<JoinHandle<()>>)> {
        check_device(&machine.device)?;
        options.variant = choose_variant(&self.manifest.variants, features::detect(), amx::request)?;
        let table = variants::variants();
        let entry = table.get(options.variant).filter(|_| table.len() == self.manifest.variants.len());
        let entry = entry.ok_or_else(|| {
            let (code, listed) = (table.len(), self.manifest.variants.len());
            Error::input(format!("the artifact holds {code} compiled steps, its manifest {listed}; compile it again"))
        })?;
        let weights = self.weights()?;
        // Before the workers: a thread inherits the affinity of the one that starts it.
        let populating = match limits::memory_available() {
            Some(room) if weights.len() as u64 > room => {
                if !machine.quiet {
                    output::note(&too_large(weights.len() as u64, room));
                }
                None
            }
            _ => populate(weights),
        };
        // SAFETY: table and manifest list the same variants in the same order, the variant's
        // features were checked, and the payload's weights belong to the same artifact.
        let engine = unsafe { Engine::new(&self.manifest, entry.step, weights, &options) }?;
        Ok((engine, populating))
    }
}

/// The names of devices this artifact can run on.
fn check_device(device: &str) -> Result<()> {
    match device {
        "cpu" => Ok(()),
        other => {
            Err(Error::device(format!("no device {other:?}: this artifact was compiled for cpu; give --device cpu")))
        }
    }
}

/// Index of the first variant whose features are in `have`. A variant with AMX also needs the
/// system's permission, asked by `permission`.
///
/// # Errors
///
/// Exit code 5, naming what the least demanding variant needs.
pub fn choose_variant(variants: &[VariantInfo], have: u64, permission: impl Fn() -> bool) -> Result<usize> {
    let runs = |v: &VariantInfo| v.features & !have == 0 && (!amx::needed(v.features) || permission());
    variants.iter().position(runs).ok_or_else(|| match variants.last() {
        None => Error::input("the artifact holds no compiled step; compile it again"),
        Some(last) => {
            let missing = Feature::names(last.features & !have).join(", ");
            let what = if missing.is_empty() { "permission to use AMX".to_string() } else { missing };
            Error::device(format!(
                "this CPU lacks {what}, which the artifact's least demanding variant ({}) needs; \
                 compile with a lower --target such as x86-64-v2",
                last.target
            ))
        }
    })
}

/// Weights are mapped from the file, so they need not fit; but every token then waits for the disk.
fn too_large(weights: u64, room: u64) -> String {
    format!(
        "note: the weights have {}, {} of memory are available: they will be read from disk again for every token",
        megabytes(weights),
        megabytes(room)
    )
}

/// Maps the weights ahead of their use: faults would take longer than the reads. Nothing depends on
/// its success.
fn populate(weights: &'static [u8]) -> Option<JoinHandle<()>> {
    let body = move || {
        // The first refusal ends it: the system cannot, or the file is gone.
        let _ = weights.chunks(POPULATE_BYTES).all(mmap::populate_read);
    };
    std::thread::Builder::new().name("map-weights".into()).spawn(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variants() -> Vec<VariantInfo> {
        let variant = |target: &str, features: &[Feature]| VariantInfo {
            target: target.into(),
            features: features.iter().fold(0, |mask, f| mask | f.bit()),
            ..Default::default()
        };
        vec![
            variant("x86-64-amx", &[Feature::AmxTile, Feature::Avx2]),
            variant("x86-64-v3", &[Feature::Avx2, Feature::Fma]),
            variant("x86-64-v2", &[Feature::Sse42]),
        ]
    }

    #[test]
    fn the_first_that_runs_is_taken() {
        let (all, v3, v2) = (u64::MAX, Feature::Avx2.bit() | Feature::Fma.bit(), Feature::Sse42.bit());
        assert_eq!(choose_variant(&variants(), all, || true), Ok(0));
        assert_eq!(choose_variant(&variants(), all, || false), Ok(1));
        assert_eq!(choose_variant(&variants(), v3, || true), Ok(1));
        assert_eq!(choose_variant(&variants(), v2, || true), Ok(2));
    }

    #[test]
    fn missing_features_are_named() {
        let error = choose_variant(&variants()[..2], Feature::Fma.bit(), || true).expect_err("lacks");
        assert!(error.code() == 5 && error.message.contains("lacks avx2,"), "{error}");
        let error = choose_variant(&variants()[..1], u64::MAX, || false).expect_err("refused");
        assert!(error.message.contains("permission"), "{error}");
        assert_eq!(choose_variant(&[], 0, || true).expect_err("empty").code(), 3);
        assert_eq!(check_device("cuda:0").expect_err("no GPU code").code(), 5);
    }

    #[test]
    fn this_program_is_no_artifact() {
        assert_eq!(Artifact::open().err().map(|e| e.code()), Some(3));
    }
}
