//! The runtime archive that the build script made, and what can be said of it.

use crate::symbols;

/// `libllmc_rt.a`, compressed with zstd.
const COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libllmc_rt.a.zst"));
/// Bytes of the archive before compression, from the build script.
const BYTES: &str = env!("LLMC_RT_BYTES");

/// What this build of llmc can link, for `llmc doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfCheck {
    /// Target of the runtime archive.
    pub target: &'static str,
    /// Bytes of the runtime archive.
    pub archive_bytes: usize,
    /// Bytes of it inside llmc.
    pub compressed_bytes: usize,
    /// Newest symbol version that an artifact may need: `GLIBC_2.34`.
    pub glibc_floor: String,
    /// Symbols of the system's libraries that an artifact may use.
    pub system_symbols: usize,
}

/// Decompresses the runtime archive and reads the table of symbols.
///
/// # Errors
///
/// The executable of llmc itself is damaged.
pub fn self_check() -> Result<SelfCheck, String> {
    let archive = runtime()?;
    let libraries = symbols::parse(symbols::X86_64_LINUX_GNU)?;
    let versions = || libraries.iter().flat_map(|l| &l.versions);
    let floor = versions().filter(|v| v.name.starts_with("GLIBC_")).max_by_key(|v| version_number(v.name));
    Ok(SelfCheck {
        target: "x86_64-unknown-linux-gnu",
        archive_bytes: archive.len(),
        compressed_bytes: COMPRESSED.len(),
        glibc_floor: floor.map_or_else(String::new, |v| v.name.to_owned()),
        system_symbols: versions().map(|v| v.symbols.len()).sum(),
    })
}

/// The runtime archive.
pub(crate) fn runtime() -> Result<Vec<u8>, String> {
    let bytes = BYTES.parse().map_err(|_| "LLMC_RT_BYTES is no number".to_owned())?;
    zstd::bulk::decompress(COMPRESSED, bytes).map_err(|e| format!("the runtime inside llmc is damaged: {e}"))
}

/// The numbers of a version's name, for comparison.
fn version_number(name: &str) -> Vec<u32> {
    name.split(['_', '.']).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_floor_is_glibc_2_34() {
        let check = self_check().expect("sound");
        assert_eq!(check.glibc_floor, "GLIBC_2.34");
        assert!(check.compressed_bytes < check.archive_bytes);
    }

    #[test]
    fn each_symbol_stands_in_the_table_once() {
        let libraries = symbols::parse(symbols::X86_64_LINUX_GNU).expect("well-formed");
        let mut seen = BTreeSet::new();
        for symbol in libraries.iter().flat_map(|l| &l.versions).flat_map(|v| &v.symbols) {
            assert!(seen.insert(symbol.name), "{} stands twice", symbol.name);
        }
        assert!(
            ["malloc", "__libc_start_main", "__tls_get_addr", "_Unwind_RaiseException"]
                .iter()
                .all(|s| seen.contains(s))
        );
    }

    #[test]
    fn a_malformed_table_is_refused() {
        for table in ["  orphan", "libc.so.6", "libc.so.6 GLIBC_2.34 more", "libc.so.6 V\n  a:b"] {
            assert!(symbols::parse(table).is_err(), "{table:?}");
        }
    }
}
