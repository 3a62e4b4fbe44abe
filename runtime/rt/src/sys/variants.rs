//! The table of compiled steps that the linker put beside the runtime.

use llmc_abi::Variant;

#[cfg(llmc_artifact)]
unsafe extern "C" {
    /// The table, [`llmc_abi::step::VARIANTS_SYMBOL`].
    static llmc_variants: Variant;
    /// Its number of entries, [`llmc_abi::step::VARIANTS_LEN_SYMBOL`].
    static llmc_variants_len: u64;
}

/// Every compiled step of this artifact, in the manifest's order; empty outside an artifact.
#[cfg(llmc_artifact)]
pub fn variants() -> &'static [Variant] {
    // SAFETY: the linker of artifacts defines both symbols: that many entries in read-only memory,
    // each with a step and a NUL-terminated name.
    unsafe { std::slice::from_raw_parts(&raw const llmc_variants, llmc_variants_len as usize) }
}

/// Every compiled step of this artifact, in the manifest's order; empty outside an artifact.
#[cfg(not(llmc_artifact))]
pub fn variants() -> &'static [Variant] {
    &[]
}

/// The name of a variant's target.
pub fn target(variant: &Variant) -> &'static str {
    // SAFETY: the table's names are NUL-terminated and live as long as the process.
    let name = unsafe { std::ffi::CStr::from_ptr(variant.target) };
    name.to_str().unwrap_or("?")
}
