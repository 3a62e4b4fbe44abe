//! The linker inside llmc: libwild over files that exist in memory only.
//!
//! No process is started and no file of the system is opened; a name that is not among the inputs
//! does not exist.

use crate::error::{Error, Result};
use libwild::error::Result as WildResult;
use libwild::{Args, FileSystem, FileType, InputFileData, Linker, OutputFileData, OutputOptions};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Links `inputs` (name, bytes) with `arguments` and returns the output's bytes. `arguments` names
/// the inputs; the output's name is added here.
pub(crate) fn link(inputs: Vec<(String, Vec<u8>)>, arguments: &[String]) -> Result<Vec<u8>> {
    const OUTPUT: &str = "artifact";
    let line: Vec<String> =
        ["wild", "--no-fork", "-o", OUTPUT].into_iter().map(str::to_owned).chain(arguments.iter().cloned()).collect();
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let files = Memory {
        inputs: inputs.into_iter().map(|(name, bytes)| (PathBuf::from(name), Input(bytes.into()))).collect(),
        outputs: Arc::default(),
    };
    let outputs = Arc::clone(&files.outputs);
    run(files, &line, &warnings).map_err(|e| Error::Link { message: message(&e.to_string(), &warnings) })?;
    let output = lock(&outputs).remove(Path::new(OUTPUT));
    output.ok_or_else(|| Error::Link { message: "the linker made no output".into() })
}

fn run(files: Memory, line: &[String], warnings: &Arc<Mutex<Vec<String>>>) -> WildResult {
    let mut args = Args::new(|| line.iter())?;
    let sink = Arc::clone(warnings);
    args.on_warning(Box::new(move |w| lock(&sink).push(w.warning().to_owned())));
    args.parse(|| line.iter())?;
    Linker::with_file_system(files).run(&args)?;
    Ok(())
}

/// The linker's error with the warnings that may explain it.
fn message(error: &str, warnings: &Mutex<Vec<String>>) -> String {
    let warnings = lock(warnings);
    warnings.iter().fold(error.trim().to_owned(), |text, warning| format!("{text}; {warning}"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Files by name.
struct Memory {
    inputs: BTreeMap<PathBuf, Input>,
    outputs: Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>,
}

#[derive(Clone, Debug)]
struct Input(Arc<[u8]>);

impl InputFileData for Input {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

struct Output {
    path: Arc<Path>,
    bytes: Vec<u8>,
    outputs: Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>,
}

impl OutputFileData for Output {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn finish(self) -> WildResult {
        lock(&self.outputs).insert(self.path.to_path_buf(), self.bytes);
        Ok(())
    }
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} is not among the inputs", path.display()))
}

impl FileSystem for Memory {
    type Input = Input;
    type Output = Output;

    fn open_input(&self, path: &Path, _prepopulate: bool) -> WildResult<(Input, Option<Arc<File>>)> {
        let input = self.inputs.get(path).ok_or_else(|| missing(path))?;
        Ok((input.clone(), None))
    }

    fn file_type(&self, path: &Path) -> WildResult<FileType> {
        let found = self.inputs.contains_key(path);
        if found { Ok(FileType::File) } else { Err(missing(path).into()) }
    }

    fn canonicalize(&self, path: &Path) -> WildResult<PathBuf> {
        Ok(path.to_path_buf())
    }

    fn remove_file(&self, path: &Path) -> WildResult {
        let removed = lock(&self.outputs).remove(path);
        if removed.is_some() { Ok(()) } else { Err(missing(path).into()) }
    }

    fn rename_file(&self, path: &Path, new_path: &Path) -> WildResult {
        let mut outputs = lock(&self.outputs);
        let bytes = outputs.remove(path).ok_or_else(|| missing(path))?;
        outputs.insert(new_path.to_path_buf(), bytes);
        Ok(())
    }

    fn create_output(&self, path: Arc<Path>, options: OutputOptions) -> WildResult<Output> {
        let bytes = vec![0; usize::try_from(options.size)?];
        Ok(Output { path, bytes, outputs: Arc::clone(&self.outputs) })
    }

    fn write_auxiliary(&self, path: &Path, bytes: &[u8]) -> WildResult {
        lock(&self.outputs).insert(path.to_path_buf(), bytes.to_vec());
        Ok(())
    }
}
