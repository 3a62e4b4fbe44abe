//! A linker that the user names with `--linker`: its inputs become files, and it is started.

use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

/// As [`crate::wild::link`], by the program `linker`.
pub(crate) fn link(linker: &Path, inputs: &[(String, Vec<u8>)], arguments: &[String]) -> Result<Vec<u8>> {
    let fail = |message: String| Error::Linker { path: linker.to_owned(), message };
    let folder = Folder::new().map_err(|e| fail(format!("cannot make a temporary folder: {e}")))?;
    for (name, bytes) in inputs {
        let path = folder.0.join(name);
        fs::write(&path, bytes).map_err(|e| fail(format!("cannot write {}: {e}", path.display())))?;
    }
    let mut command = Command::new(linker);
    command.current_dir(&folder.0).args([OsStr::new("-o"), OsStr::new("artifact")]).args(arguments);
    let output = command.stdin(Stdio::null()).output().map_err(|e| fail(format!("cannot be started: {e}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(fail(format!("{}: {}", output.status, text.trim())));
    }
    fs::read(folder.0.join("artifact")).map_err(|e| fail(format!("made no output: {e}")))
}

/// A folder of our own that goes away with this value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Folder> {
        let base = std::env::temp_dir();
        for attempt in 0.. {
            let path = base.join(format!("llmc-link-{}-{attempt}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Folder(path)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => continue,
                Err(e) => return Err(e),
            }
        }
        unreachable!("the loop returns")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing depends on it: a leftover in the temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}
