//! The artifact's commands.

use crate::sys::payload::payload;
use llmc_abi::payload::SectionKind;

/// Runs the command that the process's arguments name and returns its exit code.
pub fn main() -> i32 {
    let payload = match payload() {
        Ok(payload) => payload,
        Err(message) => {
            eprintln!("error: {message}");
            return 3;
        }
    };
    match std::env::args().nth(1).as_deref() {
        Some("verify") => match payload.verify() {
            Ok(()) => println!("ok"),
            Err(message) => {
                eprintln!("error: {message}");
                return 3;
            }
        },
        _ => {
            let manifest = payload.section(SectionKind::Manifest).unwrap_or(b"{}");
            println!("{}", String::from_utf8_lossy(manifest));
        }
    }
    0
}
