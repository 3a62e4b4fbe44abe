//! Private temporary folders.

use crate::error::Error;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of this process alone, gone when dropped.
pub(crate) struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// Makes one. A name that is taken, by whoever, is never used.
    pub(crate) fn new() -> Result<Scratch, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let folder = std::env::temp_dir().join(format!("llmc-ptxas-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(Scratch { folder }),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => return Err(Error::Io { file: folder, source }),
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let file = self.folder.join(name);
        std::fs::write(&file, bytes).map_err(|source| Error::Io { file, source })
    }

    /// Reads a file in it.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let file = self.folder.join(name);
        std::fs::read(&file).map_err(|source| Error::Io { file, source })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_scratch_folder_is_private_and_goes() {
        let (a, b) = (Scratch::new().expect("a folder"), Scratch::new().expect("another"));
        assert_ne!(a.path(), b.path());
        a.write("x", b"1").expect("a file");
        assert_eq!(a.read("x").expect("the file"), b"1");
        assert_eq!(a.path().metadata().expect("there").permissions().mode() & 0o777, 0o700);
        let gone = a.path().to_owned();
        drop(a);
        assert!(!gone.exists());
    }
}
