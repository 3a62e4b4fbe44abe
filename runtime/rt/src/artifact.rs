//! The running artifact: its manifest, the step that suits this CPU, and an engine for it.

use std::thread::JoinHandle;

use llmc_abi::manifest::{self, VariantInfo};
use llmc_abi::payload::SectionKind;
use llmc_abi::{Feature, Manifest, features};

use crate::cli::Machine;
use crate::cuda::step::GpuStep;
use crate::engine::{Engine, Options, Runner};
use crate::error::{Error, Result};
use crate::memory::megabytes;
use crate::sys::payload::{Payload, payload};
use crate::sys::{amx, mmap, variants};
use crate::{limits, output};

/// Bytes mapped ahead at a time, so that other threads' page faults get their turn.
const POPULATE_BYTES: usize = 32 << 20;

/// Why an artifact does not run on a CPU.
const GPUS_ALONE: &str = "this artifact was compiled for GPUs alone; compile with --target cpu,cuda";

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
    pub fn engine(&self, machine: &Machine, options: Options) -> Result<(Engine, Option<JoinHandle<()>>)> {
        match Device::parse(&machine.device)? {
            Device::Cpu => self.engine_on_cpu(machine, options),
            Device::Gpu(index) => self.engine_on_gpu(index, options),
            Device::Any if !self.has(true) => self.engine_on_cpu(machine, options),
            Device::Any => match self.engine_on_gpu(0, options) {
                Err(error) if self.has(false) => {
                    if !machine.quiet {
                        output::note(&format!("note: {}; running on the CPU", error.message));
                    }
                    self.engine_on_cpu(machine, options)
                }
                result => result,
            },
        }
    }

    /// Whether there is code for a GPU, or for a CPU.
    fn has(&self, gpu: bool) -> bool {
        self.manifest.variants.iter().any(|v| v.group.is_some() == gpu)
    }

    fn engine_on_gpu(&self, index: usize, options: Options) -> Result<(Engine, Option<JoinHandle<()>>)> {
        let images = self.payload.section(SectionKind::Device).unwrap_or(&[]);
        // SAFETY: the images and the weights belong to the same artifact as the manifest.
        let engine = unsafe { on_gpu(&self.manifest, images, self.weights()?, (index, options)) }?;
        Ok((engine, None))
    }

    fn engine_on_cpu(&self, machine: &Machine, mut options: Options) -> Result<(Engine, Option<JoinHandle<()>>)> {
        if !self.has(false) {
            return Err(Error::device(GPUS_ALONE));
        }
        options.variant = choose_variant(&self.manifest.variants, features::detect(), amx::request)?;
        let listed = self.manifest.variants[..options.variant].iter().filter(|v| v.group.is_none()).count();
        let all = self.manifest.variants.iter().filter(|v| v.group.is_none()).count();
        let table = variants::variants();
        let entry = table.get(listed).filter(|_| table.len() == all);
        let entry = entry.ok_or_else(|| {
            let code = table.len();
            Error::input(format!("the artifact holds {code} compiled steps, its manifest {all}; compile it again"))
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
        let engine = unsafe { Engine::new(&self.manifest, Runner::Cpu(entry.step), weights, &options) }?;
        Ok((engine, populating))
    }
}

/// An engine on the GPU of a number; the options' variant is found here.
///
/// # Errors
///
/// Exit code 5 without such a device or code for it, 4 without the memory.
///
/// # Safety
///
/// `images` and `weights` must be of the compilation that the manifest tells of.
pub unsafe fn on_gpu(
    manifest: &Manifest,
    images: &'static [u8],
    weights: &'static [u8],
    (index, mut options): (usize, Options),
) -> Result<Engine> {
    options.variant = manifest.variants.iter().position(|v| v.group.is_some()).ok_or_else(|| {
        Error::device("this artifact was compiled for the CPU alone; give --device cpu, or compile with --target cuda")
    })?;
    let groups = manifest.variants.iter().filter_map(|v| v.group.clone()).collect();
    let step = GpuStep::open(index, images, groups, weights)?;
    // SAFETY: as the caller promises.
    unsafe { Engine::new(manifest, Runner::Gpu(Box::new(step)), weights, &options) }
}

/// What to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    /// The first GPU if there is code for one and it works, else the CPU.
    Any,
    Cpu,
    /// The GPU of this number.
    Gpu(usize),
}

impl Device {
    fn parse(name: &str) -> Result<Device> {
        let unknown = || Error::usage(format!("no device {name:?}; devices are cpu, cuda and cuda:N"));
        match name.split_once(':') {
            None if name == "auto" => Ok(Device::Any),
            None if name == "cpu" => Ok(Device::Cpu),
            None if name == "cuda" => Ok(Device::Gpu(0)),
            Some(("cuda", index)) => index.parse().map(Device::Gpu).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

/// Index of the first variant of a CPU whose features are in `have`. A variant with AMX also needs the
/// system's permission, asked by `permission`.
///
/// # Errors
///
/// Exit code 5, naming what the least demanding variant needs.
pub fn choose_variant(variants: &[VariantInfo], have: u64, permission: impl Fn() -> bool) -> Result<usize> {
    let runs =
        |v: &VariantInfo| v.group.is_none() && v.features & !have == 0 && (!amx::needed(v.features) || permission());
    variants.iter().position(runs).ok_or_else(|| match variants.iter().rfind(|v| v.group.is_none()) {
        None if !variants.is_empty() => Error::device(GPUS_ALONE),
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
        assert_eq!(Device::parse("cuda:3"), Ok(Device::Gpu(3)));
        assert!(["gpu", "cuda:", "cuda:x", "cpu:0", ""].iter().all(|d| Device::parse(d).is_err_and(|e| e.code() == 2)));
    }

    #[test]
    fn this_program_is_no_artifact() {
        assert_eq!(Artifact::open().err().map(|e| e.code()), Some(3));
    }
}
