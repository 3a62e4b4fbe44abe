//! `llmc inspect`: a model by its files, an artifact by its manifest.

use super::print;
use crate::cli::InspectArgs;
use crate::error::{Error, Result};
use llmc_abi::Manifest;
use llmc_abi::payload::{MAGIC, SECTION_NAME};
use std::fmt::Write;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Runs the command.
pub(super) fn run(args: &InspectArgs) -> Result<()> {
    if is_elf(&args.path) { artifact(args) } else { model(args) }
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0u8; 4];
    File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

fn model(args: &InspectArgs) -> Result<()> {
    let opened = llmc_models::open(&args.path)?;
    let checkpoint = &opened.checkpoint;
    if args.json {
        let tensors: Vec<_> = checkpoint
            .params()
            .map(|(name, ty)| serde_json::json!({ "name": name, "stored": checkpoint.stored_name(name), "type": ty.to_string() }))
            .collect();
        let json = serde_json::json!({
            "name": opened.name,
            "architecture": opened.spec.family,
            "parameters": checkpoint.parameter_count(),
            "bytes": checkpoint.weight_bytes(),
            "context": opened.spec.context,
            "license": opened.license,
            "tokenizer": opened.tokenizer_json.is_some(),
            "tensors": tensors,
        });
        return print(&format!("{json:#}\n"));
    }
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{}: {} parameters, {:.1} MB",
        opened.name,
        checkpoint.parameter_count(),
        checkpoint.weight_bytes() as f64 / 1e6
    );
    let _ = writeln!(out, "{}", opened.spec);
    let _ = writeln!(out, "tokenizer: {}", if opened.tokenizer_json.is_some() { "yes" } else { "none" });
    let _ = writeln!(out, "licence: {}", opened.license.as_deref().unwrap_or("not named"));
    for (name, ty) in checkpoint.params() {
        let _ = writeln!(out, "{name:<32} {ty:<20} {}", checkpoint.stored_name(name).unwrap_or(""));
    }
    print(&out)
}

fn artifact(args: &InspectArgs) -> Result<()> {
    let manifest = manifest(&args.path)?;
    if args.json {
        let json = serde_json::to_string_pretty(&manifest).map_err(|e| Error::Failed(e.to_string()))?;
        return print(&format!("{json}\n"));
    }
    let m = &manifest;
    let mut out = String::new();
    let _ = writeln!(out, "{} ({}), compiled by llmc {}", m.name, m.architecture, m.llmc);
    let _ = writeln!(out, "{} parameters, {} layers, context {}", m.model.parameters, m.model.layers, m.model.context);
    let _ = writeln!(
        out,
        "activations {}, KV cache {}, weights {:.1} MB",
        m.activations,
        m.kv.dtype,
        m.weights.bytes as f64 / 1e6
    );
    for v in &m.variants {
        let _ = writeln!(out, "code for {} by {}, {} phases", v.target, v.backend, v.phases.len());
    }
    let _ = writeln!(out, "licence: {}", m.license.as_deref().unwrap_or("not named"));
    for t in &m.weights.tensors {
        let _ = writeln!(out, "{:>12} {:<5} {:?} {}", t.bytes, t.scheme, t.shape, t.name);
    }
    print(&out)
}

/// The manifest of an artifact, found through its payload's section.
fn manifest(path: &Path) -> Result<Manifest> {
    let mut file = File::open(path).map_err(|e| Error::io("opening", path, &e))?;
    read_manifest(&mut file, path)
}

/// The manifest in an artifact's bytes; `path` is for messages.
fn read_manifest(file: &mut (impl Read + Seek), path: &Path) -> Result<Manifest> {
    let bad =
        |what: &str| Error::Input(format!("{}: {what}; it is not an artifact of llmc, or damaged", path.display()));
    let start = payload_start(file).ok_or_else(|| bad(&format!("no section {SECTION_NAME}")))?;
    let header = read_at(file, start, 4096).ok_or_else(|| bad("the payload is cut off"))?;
    let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
    if header[..8] != MAGIC {
        return Err(bad("the payload has no llmc header"));
    }
    // The manifest is the payload's first section; a section is kind, reserved, offset, len, checksum.
    let first = std::mem::offset_of!(llmc_abi::payload::Header, sections);
    let (offset, len) = (word(first + 8), word(first + 16));
    let json = start
        .checked_add(offset)
        .and_then(|at| read_at(file, at, len as usize))
        .ok_or_else(|| bad("the manifest is cut off"))?;
    serde_json::from_slice(&json).map_err(|e| bad(&format!("the manifest does not read: {e}")))
}

/// File offset of the payload, by the ELF section table.
fn payload_start(file: &mut (impl Read + Seek)) -> Option<u64> {
    let ehdr = read_at(file, 0, 64)?;
    let half = |at: usize| u16::from_le_bytes([ehdr[at], ehdr[at + 1]]) as u64;
    let table = u64::from_le_bytes(ehdr[40..48].try_into().ok()?);
    let (entry, count, names) = (half(58), half(60), half(62));
    let sections = read_at(file, table, usize::try_from(entry.checked_mul(count)?).ok()?)?;
    let section = |i: u64| sections.get((i * entry) as usize..((i + 1) * entry) as usize).filter(|s| s.len() >= 64);
    let u64_at = |s: &[u8], at: usize| u64::from_le_bytes(s[at..at + 8].try_into().expect("8 bytes"));
    let names = section(names)?;
    let strings = read_at(file, u64_at(names, 24), usize::try_from(u64_at(names, 32)).ok()?)?;
    (0..count).filter_map(section).find_map(|s| {
        let name = u32::from_le_bytes(s[..4].try_into().ok()?) as usize;
        let text = strings.get(name..)?;
        text.starts_with(SECTION_NAME.as_bytes()).then(|| u64_at(s, 24))
    })
}

/// Largest piece of an artifact read at a time: beyond every manifest and section table.
const MOST_BYTES: usize = 1 << 30;

fn read_at(file: &mut (impl Read + Seek), at: u64, len: usize) -> Option<Vec<u8>> {
    if len > MOST_BYTES {
        return None;
    }
    let mut out = Vec::new();
    out.try_reserve_exact(len).ok()?;
    file.seek(SeekFrom::Start(at)).ok()?;
    file.by_ref().take(len as u64).read_to_end(&mut out).ok()?;
    (out.len() == len).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// An ELF file with a payload section behind it: header, section table, names, payload.
    fn sample() -> Vec<u8> {
        let manifest = serde_json::to_vec(&Manifest { name: "sample".into(), ..Manifest::default() }).expect("plain");
        let (table, names, payload) = (64u64, 64 + 2 * 64, 512);
        let mut elf = vec![0u8; payload as usize + 4096];
        elf[40..48].copy_from_slice(&table.to_le_bytes());
        for (at, half) in [(58, 64u16), (60, 2), (62, 0)] {
            elf[at..at + 2].copy_from_slice(&half.to_le_bytes());
        }
        let strings = [b"\0", SECTION_NAME.as_bytes(), b"\0"].concat();
        let mut word = |at: usize, v: u64| elf[at..at + 8].copy_from_slice(&v.to_le_bytes());
        word(64 + 24, names);
        word(64 + 32, strings.len() as u64);
        word(128, 1);
        word(128 + 24, payload);
        let first = payload as usize + std::mem::offset_of!(llmc_abi::payload::Header, sections);
        word(first + 8, 4096);
        word(first + 16, manifest.len() as u64);
        elf[names as usize..names as usize + strings.len()].copy_from_slice(&strings);
        elf[payload as usize..payload as usize + 8].copy_from_slice(&MAGIC);
        elf.extend(manifest);
        elf
    }

    #[test]
    fn a_manifest_is_found_through_its_section() {
        let manifest = read_manifest(&mut Cursor::new(sample()), Path::new("sample")).expect("sound");
        assert_eq!(manifest.name, "sample");
    }

    #[test]
    fn ten_thousand_mutations_do_no_harm() {
        let (sound, mut state) = (sample(), 0x2545_F491_4F6C_DD1D_u64);
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut refused = 0;
        for _ in 0..10_000 {
            let mut bytes = sound.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() as usize % bytes.len();
                // Most of the file is padding: aim at what is read.
                let at = if random() % 2 == 0 { at % 256 } else { at };
                bytes[at] = random() as u8;
            }
            if random() % 8 == 0 {
                bytes.truncate(random() as usize % sound.len());
            }
            refused += usize::from(read_manifest(&mut Cursor::new(bytes), Path::new("mutated")).is_err());
        }
        assert!(refused > 1000, "only {refused} of the mutations were noticed");
    }
}
