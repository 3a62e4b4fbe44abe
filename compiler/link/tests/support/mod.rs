//! A smallest artifact: one step that only returns, a manifest, a tokenizer, some weights.
#![allow(dead_code, reason = "each test file uses its part")]

use llmc_abi::{Manifest, manifest::VariantInfo};
use llmc_link::{ObjectFile, PayloadSource, Report, VariantSpec};
use object::write::{Object, StandardSection, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolKind, SymbolScope};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{error, fs, thread, time};

/// Name of the step in the smallest object.
pub const STEP: &str = "llmc_step_x86_64_v2";

/// A scratch folder that goes away with this value.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("link-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).expect("a scratch folder");
        Folder(path)
    }

    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("readable").flatten();
        let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An object with one function, `ret`.
pub fn step_object(symbol: &str) -> ObjectFile {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let text = object.section_id(StandardSection::Text);
    let id = object.add_symbol(Symbol {
        name: symbol.into(),
        value: 0,
        size: 0,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Undefined,
        flags: SymbolFlags::None,
    });
    // Enough unused code behind the `ret` to find it by its symbol and to damage it harmlessly.
    object.add_symbol_data(id, text, &[&[0xC3][..], &[0xCC; 63]].concat(), 64);
    ("step".into(), object.write().expect("a sound object"))
}

pub fn variant() -> VariantSpec {
    VariantSpec { target: "x86-64-v2".into(), features: 0, step_symbol: STEP.into() }
}

/// A payload in memory, whose weights may fail or be of another length than announced.
pub struct Source {
    pub manifest: Vec<u8>,
    pub tokenizer: Option<Vec<u8>>,
    pub announced: u64,
    pub weights: Vec<u8>,
    pub failure: Option<&'static str>,
    /// Rest between two pieces of the weights.
    pub pause: time::Duration,
}

impl Source {
    pub fn new() -> Source {
        let manifest = Manifest {
            version: llmc_abi::manifest::VERSION,
            name: "smallest".into(),
            variants: vec![VariantInfo { target: "x86-64-v2".into(), ..VariantInfo::default() }],
            ..Manifest::default()
        };
        let weights: Vec<u8> = (0..3_000_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        Source {
            manifest: serde_json::to_vec(&manifest).expect("plain data"),
            tokenizer: None,
            announced: weights.len() as u64,
            weights,
            failure: None,
            pause: time::Duration::ZERO,
        }
    }
}

impl PayloadSource for Source {
    fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    fn device(&self) -> Option<&[u8]> {
        None
    }

    fn tokenizer(&self) -> Option<&[u8]> {
        self.tokenizer.as_deref()
    }

    fn weights_len(&self) -> u64 {
        self.announced
    }

    fn write_weights(&mut self, to: &mut dyn Write) -> Result<(), Box<dyn error::Error + Send + Sync>> {
        for piece in self.weights.chunks(777_777) {
            to.write_all(piece)?;
            thread::sleep(self.pause);
        }
        self.failure.map_or(Ok(()), |message| Err(message.into()))
    }
}

/// Makes the smallest artifact.
pub fn make(out: &Path) -> Report {
    llmc_link::executable(&[step_object(STEP)], &[variant()], &mut Source::new(), out, None).expect("linked")
}

/// Runs a program without an environment, from `folder`.
pub fn run(program: &Path, folder: &Path, arguments: &[&str]) -> Output {
    loop {
        let result = Command::new(program).args(arguments).env_clear().current_dir(folder).output();
        match result {
            // Another test's child holds the file open for writing until its exec.
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy => thread::sleep(time::Duration::from_millis(5)),
            result => return result.expect("started"),
        }
    }
}

/// Asserts that `verify` finds nothing.
pub fn assert_sound(program: &Path, folder: &Path) {
    let output = run(program, folder, &["verify"]);
    assert!(output.status.success(), "{output:?}");
}
