//! What can go wrong.

use std::path::PathBuf;

/// Why a tool gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is nowhere.
    #[error("{tool} is not there: looked in {}; `pip install {wheel}` gets it, or name one yourself", list(.looked))]
    Missing {
        /// Its name.
        tool: &'static str,
        /// The PyPI package that has it.
        wheel: &'static str,
        /// Folders that do not have it.
        looked: Vec<PathBuf>,
    },
    /// It did not start.
    #[error("{}: could not be run: {source}; name another one", .tool.display())]
    Start {
        /// Its path.
        tool: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What it printed is not what such a tool prints.
    #[error("{}: {expected} was expected, but it printed `{found}`; name another one", .tool.display())]
    Strange {
        /// Its path.
        tool: PathBuf,
        /// What it was asked for.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// It refused its input.
    #[error("{} refused the code for {arch}: {said}", .tool.display())]
    Refused {
        /// Its path.
        tool: PathBuf,
        /// The GPU that the code was for.
        arch: String,
        /// Its messages, with the lines of PTX that they are about.
        said: String,
    },
    /// A temporary file could not be written or read.
    #[error("{}: {source}; is there space, and is TMPDIR a folder to write in?", .file.display())]
    Io {
        /// Which one.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn list(folders: &[PathBuf]) -> String {
    let names: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    names.join(", ")
}
