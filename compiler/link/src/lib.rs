//! Objects, weights and runtime to one ELF file.
//!
//! [`executable`] links relocatable objects of the code generators with the runtime archive that is
//! carried inside llmc, in this process and without a file of the system, and then streams the
//! payload behind the code. The result appears under its name complete or not at all, and is the
//! same, byte for byte, for the same input.

mod archive;
mod error;
mod external;
mod image;
mod output;
mod payload;
mod stub;
mod symbols;
mod table;
mod wild;

pub use archive::{SelfCheck, self_check};
pub use error::{Error, Result};
pub use output::abandon;
pub use payload::PayloadSource;

use image::Image;
use output::Output;
use payload::Layout;
use std::path::Path;

/// A relocatable ELF object: a name for messages, and its bytes.
pub type ObjectFile = (String, Vec<u8>);

/// One compiled step, for the artifact's table of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariantSpec {
    /// Target's name: `x86-64-v3`.
    pub target: String,
    /// CPU features it needs, bits of [`llmc_abi::Feature`].
    pub features: u64,
    /// Symbol of its step in the objects.
    pub step_symbol: String,
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the file without its weights.
    pub bytes_without_weights: u64,
}

/// Flags of every link, in the language that GNU ld, lld, mold and wild share. Debug information
/// goes (it is the standard library's); symbols and unwind tables stay for perf and gdb.
const FLAGS: &[&str] = &[
    "-pie",
    "--dynamic-linker",
    "/lib64/ld-linux-x86-64.so.2",
    "-z",
    "relro",
    "-z",
    "now",
    "-z",
    "noexecstack",
    "--eh-frame-hdr",
    "--gc-sections",
    "--strip-debug",
    "--build-id=none",
    "--hash-style=gnu",
    "--entry=_start",
];
/// Permissions of an artifact, and of other files.
const EXECUTABLE: u32 = 0o755;
const PLAIN: u32 = 0o644;
/// Name of the runtime archive among a link's inputs.
const RUNTIME: &str = "libllmc_rt.a";

/// Makes the executable `out` of `objects`, which define the steps of `variants` (best first, the
/// manifest's order), and of `payload`. `linker` names a program to link with in place of the
/// linker inside llmc; it takes GNU ld's flags, and only with it a process is started.
///
/// # Errors
///
/// See [`Error`]. Nothing stays behind under any name.
pub fn executable(
    objects: &[ObjectFile],
    variants: &[VariantSpec],
    payload: &mut dyn PayloadSource,
    out: &Path,
    linker: Option<&Path>,
) -> Result<Report> {
    let output = Output::create(out)?;
    let layout = Layout::new(payload)?;
    let image = Image::new(link(objects, variants, linker)?, layout.len)?;
    payload::write(&output, &image, layout, payload)?;
    output.publish(EXECUTABLE)?;
    let bytes = image.file_len();
    Ok(Report { bytes, bytes_without_weights: bytes - payload.weights_len() })
}

/// Tells early whether [`executable`] could write `out`; leaves nothing behind.
///
/// # Errors
///
/// [`Error::Output`] or [`Error::NotAFile`].
pub fn check_output(out: &Path) -> Result<()> {
    Output::create(out).map(drop)
}

/// Writes a file that is no executable the same way: it appears complete or not at all.
///
/// # Errors
///
/// [`Error::Output`] or [`Error::NotAFile`].
pub fn write_file(out: &Path, bytes: &[u8]) -> Result<()> {
    let output = Output::create(out)?;
    output.write_at(bytes, 0)?;
    output.publish(PLAIN)
}

/// The linked file, still without its payload.
fn link(objects: &[ObjectFile], variants: &[VariantSpec], linker: Option<&Path>) -> Result<Vec<u8>> {
    let internal = |message: String| Error::Link { message };
    let mut inputs = Vec::new();
    for (i, (name, bytes)) in objects.iter().enumerate() {
        inputs.push((input_name(i, name), bytes.clone()));
    }
    let table = table::table_object(variants).map_err(|e| internal(e.to_string()))?;
    inputs.push(("llmc-variants.o".into(), table));
    inputs.push((RUNTIME.into(), archive::runtime().map_err(internal)?));
    let libraries = symbols::parse(symbols::X86_64_LINUX_GNU).map_err(internal)?;
    let mut line: Vec<String> = FLAGS.iter().map(|&f| f.to_owned()).collect();
    line.extend(inputs.iter().map(|(name, _)| name.clone()));
    line.push("--as-needed".into());
    for library in &libraries {
        let stub = stub::stub(library).map_err(|e| internal(e.to_string()))?;
        inputs.push((library.soname.to_owned(), stub));
        line.push(library.soname.to_owned());
    }
    match linker {
        None => wild::link(inputs, &line),
        Some(linker) => external::link(linker, &inputs, &line),
    }
}

/// A file name for an object that no linker takes for a flag or a path.
fn input_name(index: usize, name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    format!("{index}-{}.o", name.trim_end_matches(".o").chars().map(plain).collect::<String>())
}
