//! Damaged artifacts: a clear error at start or by `verify`, and never a crash of ours.
//!
//! A cut through the program's own code is not among them: the system starts such a file and no
//! instruction of it need be there to complain.

use llmc_tests::command::{Folder, artifact, folder, run, tinywiki};
use object::LittleEndian;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const LE: LittleEndian = LittleEndian;
/// Bytes of the payload's header, behind which the manifest lies.
const HEADER: u64 = 4096;

/// File ranges of the segments with code, and of the payload.
fn segments() -> (Vec<Range<u64>>, Range<u64>) {
    let bytes = fs::read(tinywiki()).expect("readable");
    let header = FileHeader64::<LittleEndian>::parse(&*bytes).expect("ELF");
    let loads = header.program_headers(LE, &*bytes).expect("program headers").iter();
    let loads = loads.filter(|s| s.p_type(LE) == PT_LOAD);
    let mut ranges: Vec<_> = loads.map(|s| s.p_offset(LE)..s.p_offset(LE) + s.p_filesz(LE)).collect();
    let payload = ranges.pop().expect("a payload");
    (ranges, payload)
}

/// A copy of the artifact, in a folder of this name.
fn copy(name: &str) -> (Folder, PathBuf) {
    let dir = folder(name);
    let path = dir.join("m");
    fs::copy(tinywiki(), &path).expect("copied");
    (dir, path)
}

/// Flips a bit of the file.
fn flip(path: &PathBuf, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("inside the file");
    file.write_all_at(&[byte[0] ^ 4], at).expect("written");
}

#[test]
fn truncated() {
    let (_dir, path) = copy("cut");
    let whole = fs::metadata(&path).expect("there").len();
    let (code, payload) = segments();
    let last_code = code.iter().map(|r| r.end).max().expect("code");
    let mut lengths = vec![last_code, payload.start, payload.start + 1, payload.start + HEADER, payload.end - 1];
    lengths.extend((1..8).map(|i| payload.start + (payload.end - payload.start) * i / 8));
    lengths.push(whole - 1);
    lengths.sort_unstable();
    for length in lengths.into_iter().rev() {
        OpenOptions::new().write(true).open(&path).expect("opens").set_len(length).expect("cut");
        for args in [&["run", "a", "-n", "1"][..], &["verify"], &["info"]] {
            run(&path, args, b"").failed(3, &["this file is truncated", "copy it again"]);
        }
    }
}

#[test]
fn flips_found_at_start() {
    let (_, payload) = segments();
    let info = artifact(&["info", "--json"]);
    info.ok();
    // Magic, length, checksums, the table of sections; the manifest; and the tokenizer behind it.
    let tokenizer = payload.start + HEADER + info.out.len() as u64 + 2 * HEADER;
    let (_dir, path) = copy("flip-start");
    for at in
        [0, 9, 17, 25, 33, 41, 100, HEADER, HEADER + 1000].map(|at| payload.start + at).into_iter().chain([tokenizer])
    {
        flip(&path, at);
        run(&path, &["run", "a", "-n", "1"], b"").failed(3, &["again"]);
        flip(&path, at);
    }
    run(&path, &["verify"], b"").ok();
}

#[test]
fn flips_found_by_verify() {
    let (code, payload) = segments();
    let (_dir, path) = copy("flip-verify");
    let weights = (payload.end - 1, payload.end - (payload.end - payload.start) / 2);
    // The largest segment but the payload holds the machine code; its end is the standard library's.
    let text = code.iter().max_by_key(|r| r.end - r.start).expect("code");
    let whole = fs::metadata(&path).expect("there").len();
    let cases = [
        (weights.0, "weights"),
        (weights.1, "weights"),
        (text.start + 0x200, "code"),
        (whole - 100, "ELF headers or symbols"),
    ];
    for (at, word) in cases {
        flip(&path, at);
        run(&path, &["verify"], b"").failed(3, &[word, "copy it again or compile it again"]);
        flip(&path, at);
    }
    run(&path, &["verify"], b"").ok();
}
