//! Cranelift's settings for a target.

use crate::error::{Failure, NAME};
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use llmc_abi::Feature;
use llmc_kernels::{BackendError, Target};

/// Without Cranelift's optimiser: it moves arithmetic to where results are demanded, which in an
/// unrolled inner loop is its end, and then everything before is spilled. Kernels are written in a
/// good order and with little to fold.
///
/// Frame pointers stand in for unwind tables: Cranelift's tables hold absolute addresses, which a
/// position-independent artifact cannot have in read-only memory.
const SHARED: &[(&str, &str)] = &[
    ("opt_level", "none"),
    ("is_pic", "true"),
    ("unwind_info", "false"),
    ("preserve_frame_pointers", "true"),
    ("enable_probestack", "true"),
    ("probestack_strategy", "inline"),
];

/// Cranelift's names of the features that change how 128-bit vectors are computed with.
const FEATURES: &[(Feature, &[&str])] = &[
    (Feature::Sse42, &["has_sse3", "has_ssse3", "has_sse41", "has_sse42"]),
    (Feature::Popcnt, &["has_popcnt"]),
    (Feature::Avx, &["has_avx"]),
    (Feature::Avx2, &["has_avx2"]),
    (Feature::Fma, &["has_fma"]),
    (Feature::Bmi1, &["has_bmi1"]),
    (Feature::Bmi2, &["has_bmi2"]),
    (Feature::Lzcnt, &["has_lzcnt"]),
];

/// Cranelift's instruction set with the target's features. KIR needs SSE4.1 to round.
pub fn isa(target: &Target) -> Result<OwnedTargetIsa, BackendError> {
    let unknown = || BackendError::Target { backend: NAME, target: target.name.clone() };
    let x86 = target.triple.starts_with("x86_64-") && target.has(Feature::Sse42);
    if !x86 && !target.triple.starts_with("aarch64-") {
        return Err(unknown());
    }
    let mut isa = isa::lookup_by_name(target.triple).map_err(|_| unknown())?;
    let names = FEATURES.iter().filter(|(f, _)| target.has(*f)).flat_map(|(_, names)| names.iter());
    for name in names {
        isa.enable(name).map_err(refused)?;
    }
    let mut shared = settings::builder();
    for (name, value) in SHARED {
        shared.set(name, value).map_err(refused)?;
    }
    isa.finish(settings::Flags::new(shared)).map_err(refused)
}

fn refused(e: impl std::fmt::Display) -> BackendError {
    Failure::from(e.to_string()).of("settings")
}
