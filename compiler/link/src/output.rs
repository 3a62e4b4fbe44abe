//! The output file: written under a temporary name beside its final one, and renamed when complete.
//!
//! A temporary is locked (`flock`) as long as its writer lives. So a temporary that can be locked
//! is a leftover of a process that died; the next output in that folder removes it.

use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// In the name of every temporary: `.NAME.llmc-tmp-PID-N`.
const MARK: &str = ".llmc-tmp-";
/// Characters of the output's name that its temporary's name repeats.
const NAME_CHARS: usize = 40;

/// A file on its way to being complete. Dropped before [`Output::publish`], it leaves nothing.
#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    published: bool,
}

impl Output {
    /// Starts the file that will be `path`, and removes leftovers in its folder.
    pub(crate) fn create(path: &Path) -> Result<Output> {
        let error = |source| Error::Output { path: path.to_owned(), source };
        check_replaceable(path)?;
        let name = path.file_name().ok_or_else(|| error(io::ErrorKind::InvalidFilename.into()))?;
        let folder = folder_of(path);
        remove_leftovers(folder);
        let mut unfinished = unfinished();
        let (file, temporary) = create_locked(folder, name).map_err(error)?;
        unfinished.push(temporary.clone());
        drop(unfinished);
        Ok(Output { file, temporary, path: path.to_owned(), published: false })
    }

    /// Gives the file `len` bytes, on the disk where the file system can promise that.
    pub(crate) fn allocate(&self, len: u64) -> Result<()> {
        let error = |source| Error::Output { path: self.path.clone(), source };
        let signed = i64::try_from(len).map_err(|_| error(io::ErrorKind::FileTooLarge.into()))?;
        match nix::fcntl::fallocate(&self.file, nix::fcntl::FallocateFlags::empty(), 0, signed) {
            Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) => {}
            Err(errno) => return Err(error(errno.into())),
        }
        self.file.set_len(len).map_err(error)
    }

    /// Writes `bytes` at `offset`.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|source| Error::Output { path: self.path.clone(), source })
    }

    /// Fills `bytes` from `offset`.
    pub(crate) fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(bytes, offset).map_err(|source| Error::Output { path: self.path.clone(), source })
    }

    /// Gives the file its permissions (`0o755` for an executable) and its name.
    pub(crate) fn publish(mut self, mode: u32) -> Result<()> {
        let _not_abandoned = unfinished();
        let done = self
            .file
            .set_permissions(fs::Permissions::from_mode(mode))
            .and_then(|()| fs::rename(&self.temporary, &self.path));
        done.map_err(|source| Error::Output { path: self.path.clone(), source })?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.published {
            // A failure leaves what a killed process leaves; the next output here removes it.
            let _ = fs::remove_file(&self.temporary);
        }
        unfinished().retain(|t| *t != self.temporary);
    }
}

/// Temporaries of this process whose outputs are not complete.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all unfinished output of this process, for one that is about to end: from here on no
/// output begins or appears, and whoever tries waits for ever.
pub fn abandon() {
    let unfinished = unfinished();
    for temporary in unfinished.iter() {
        // A failure leaves what a killed process leaves; the next output there removes it.
        let _ = fs::remove_file(temporary);
    }
    std::mem::forget(unfinished);
}

/// The folder that `path` lies in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Renaming would silently replace a device or fail late on a folder.
fn check_replaceable(path: &Path) -> Result<()> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_block_device() || kind.is_char_device() => "a device",
        () if kind.is_fifo() || kind.is_socket() => "a pipe or socket",
        () => return Ok(()),
    };
    Err(Error::NotAFile { path: path.to_owned(), what })
}

/// Creates and locks a file with a name that nobody has.
fn create_locked(folder: &Path, name: &OsStr) -> io::Result<(File, PathBuf)> {
    let short: String = name.to_string_lossy().chars().filter(|c| c.is_ascii_graphic()).take(NAME_CHARS).collect();
    for attempt in 0..1000 {
        let path = folder.join(format!(".{short}{MARK}{}-{attempt}", std::process::id()));
        let file = match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(e) => return Err(e),
        };
        // Where the file system has no locks, leftovers stay and all else works.
        let _ = file.try_lock();
        // Another process may have taken the file for a leftover before it was locked.
        if fs::metadata(&path).is_ok_and(|m| file.metadata().is_ok_and(|own| own.ino() == m.ino())) {
            return Ok((file, path));
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many temporary files of this name"))
}

/// Removes the temporaries in `folder` whose writers are gone.
fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|n| n.starts_with('.') && n.contains(MARK));
        let file = entry.file_type().is_ok_and(|t| t.is_file());
        if ours && file && File::open(entry.path()).is_ok_and(|f| f.try_lock().is_ok()) {
            // Another process may have removed it just now.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("llmc-link-output-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a scratch folder");
        path
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("readable").flatten();
        let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn appears_only_when_published() {
        let folder = scratch("publish");
        let output = Output::create(&folder.join("model")).expect("created");
        output.allocate(3).expect("allocated");
        output.write_at(b"abc", 0).expect("written");
        assert!(!folder.join("model").exists());
        output.publish(0o755).expect("published");
        assert_eq!(names(&folder), ["model"]);
        assert_eq!(fs::read(folder.join("model")).expect("readable"), b"abc");
        assert_eq!(fs::metadata(folder.join("model")).expect("there").permissions().mode() & 0o777, 0o755);
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn removes_leftovers_of_the_dead_and_spares_the_living() {
        let folder = scratch("leftovers");
        fs::write(folder.join(".model.llmc-tmp-1-0"), b"half").expect("written");
        fs::write(folder.join(".mine"), b"").expect("written");
        let first = Output::create(&folder.join("a")).expect("created");
        let second = Output::create(&folder.join("b")).expect("created");
        assert_eq!(names(&folder).len(), 3, "{:?}", names(&folder));
        drop((first, second));
        assert_eq!(names(&folder), [".mine"]);
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn refuses_what_it_must_not_replace() {
        for path in ["/", "/dev/null", "/no/such/folder/model", "..", ""] {
            assert!(Output::create(Path::new(path)).is_err(), "{path}");
        }
    }
}
