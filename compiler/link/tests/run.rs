//! Artifacts as programs: they run alone, survive `strip`, and notice damage.

mod support;

use llmc_abi::payload::SECTION_NAME;
use object::read::elf::{ElfFile64, FileHeader as _};
use object::{LittleEndian as LE, Object, ObjectSection, ObjectSymbol};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Folder, STEP, Source, assert_sound, make, run, step_object, variant};

#[test]
fn runs_alone_without_an_environment() {
    let (folder, empty) = (Folder::new(), Folder::new());
    let out = empty.0.join("model");
    make(&out);
    let output = run(&out, &empty.0, &["info", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let info: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(info["name"], "smallest");
    assert_sound(&out, &folder.0);
    assert_eq!(empty.names(), ["model"]);
}

#[test]
fn survives_strip() {
    let folder = Folder::new();
    let out = folder.0.join("model");
    make(&out);
    assert_survives_strip(&out, &folder);
}

#[test]
fn links_with_another_linker() {
    let folder = Folder::new();
    let out = folder.0.join("model");
    let Some(linker) = ["/usr/bin/ld", "/usr/bin/ld.lld"].map(PathBuf::from).into_iter().find(|p| p.exists()) else {
        eprintln!("skipped: there is no other linker here");
        return;
    };
    llmc_link::executable(&[step_object(STEP)], &[variant()], &mut Source::new(), &out, Some(&linker)).expect("linked");
    assert_sound(&out, &folder.0);
    assert_survives_strip(&out, &folder);
}

fn assert_survives_strip(out: &Path, folder: &Folder) {
    let stripped = folder.0.join("stripped");
    let Ok(strip) = Command::new("strip").arg("-o").args([stripped.as_path(), out]).output() else {
        eprintln!("skipped: there is no `strip` here");
        return;
    };
    assert!(strip.status.success(), "{strip:?}");
    let bytes = fs::read(&stripped).expect("readable");
    let file = ElfFile64::<LE>::parse(&*bytes).expect("an ELF file");
    assert_eq!(file.symbols().count(), 0);
    assert_sound(&stripped, &folder.0);
    let (at, len) = file.section_by_name(SECTION_NAME).and_then(|s| s.file_range()).expect("kept");
    assert_damage(&stripped, &bytes, (at + len - 1) as usize, 3);
}

#[test]
fn truncation_is_an_error_and_not_a_crash() {
    let folder = Folder::new();
    let out = folder.0.join("model");
    let report = make(&out);
    let payload = payload_at(&fs::read(&out).expect("readable"));
    // Below the code's end the kernel refuses the file, or ends the process before its first line.
    let cuts = (1..=16).map(|i| payload + (report.bytes - payload) * i / 16 - 1).chain([payload, payload + 1]);
    for len in cuts {
        let cut = folder.0.join("cut");
        fs::copy(&out, &cut).expect("copied");
        fs::OpenOptions::new().write(true).open(&cut).and_then(|f| f.set_len(len)).expect("cut");
        let output = run(&cut, &folder.0, &["info"]);
        assert_eq!(output.status.code(), Some(3), "{len} of {}: {output:?}", report.bytes);
        assert!(String::from_utf8_lossy(&output.stderr).contains("truncated"), "{output:?}");
    }
}

#[test]
fn verify_finds_a_flipped_bit_anywhere() {
    let folder = Folder::new();
    let out = folder.0.join("model");
    make(&out);
    let bytes = fs::read(&out).expect("readable");
    let file = ElfFile64::<LE>::parse(&*bytes).expect("an ELF file");
    let section = |name| file.section_by_name(name).and_then(|s| s.file_range()).expect(name).0 as usize;
    let text = file.section_by_name(".text").expect("code");
    let step = file.symbols().find(|s| s.name() == Ok(STEP)).expect("the step");
    let step = text.file_range().expect("code").0 + step.address() - text.address();
    let payload = payload_at(&bytes) as usize;
    let manifest = payload + 4096;
    let headers = file.elf_header().e_shoff(LE) as usize;
    let places = [
        ("ELF header's flags", 48),
        ("code", step as usize + 8),
        ("symbols", section(".symtab") + 30),
        ("names", section(".strtab") + 5),
        ("comment", section(".comment")),
        ("padding before the payload", payload - 1),
        ("payload's magic", payload),
        ("header", payload + 50),
        ("unused header", payload + 4000),
        ("manifest", manifest + 3),
        ("padding before the weights", payload + (1 << 21) - 1),
        ("first weight", payload + (1 << 21)),
        ("last weight", payload + (1 << 21) + Source::new().weights.len() - 1),
        ("section headers", headers + 40),
    ];
    for (i, (name, at)) in places.into_iter().enumerate() {
        eprintln!("{name}");
        assert_damage(&out, &bytes, at, i as u32 % 8);
    }
}

/// Flips a bit of a copy of the artifact `sound` and asserts that `verify` finds it.
fn assert_damage(sound: &Path, bytes: &[u8], at: usize, bit: u32) {
    let folder = Folder::new();
    let damaged = folder.0.join("damaged");
    let mut copy = bytes.to_vec();
    copy[at] ^= 1 << bit;
    fs::write(&damaged, copy).expect("written");
    let permissions = fs::metadata(sound).expect("there").permissions();
    fs::set_permissions(&damaged, permissions).expect("executable");
    let output = run(&damaged, &folder.0, &["verify"]);
    assert_eq!(output.status.code(), Some(3), "byte {at}, signal {:?}: {output:?}", output.status.signal());
    assert!(output.stderr.starts_with(b"error: "), "{output:?}");
}

fn payload_at(bytes: &[u8]) -> u64 {
    let file = ElfFile64::<LE>::parse(bytes).expect("an ELF file");
    file.section_by_name(SECTION_NAME).and_then(|s| s.file_range()).expect("a payload").0
}
