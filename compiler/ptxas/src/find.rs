//! Where NVIDIA's tools may lie.

use crate::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A tool, and how it is had.
pub(crate) struct Wanted {
    /// File name.
    pub(crate) name: &'static str,
    /// The PyPI package that has it.
    pub(crate) wheel: &'static str,
}

/// The assembler.
pub(crate) const PTXAS: Wanted = Wanted { name: "ptxas", wheel: "nvidia-cuda-nvcc-cu12" };
/// The disassembler.
pub(crate) const NVDISASM: Wanted = Wanted { name: "nvdisasm", wheel: "nvidia-cuda-nvdisasm" };

/// Folders of a site-packages folder that hold the tools: of wheels for CUDA 12, and for 13.
const IN_SITE_PACKAGES: [&str; 2] = ["nvidia/cuda_nvcc/bin", "nvidia/cu13/bin"];
/// Where NVIDIA's own installer puts them.
const TOOLKIT: &str = "/usr/local/cuda/bin";

/// Finds a tool. What the user names is a file, or a folder: of programs, or of Python packages;
/// with it nothing else is looked at, so that no other version slips in.
pub(crate) fn find(wanted: &Wanted, explicit: Option<&Path>) -> Result<PathBuf, Error> {
    let folders = match explicit {
        Some(file) if runs(file) => return Ok(file.to_owned()),
        Some(folder) => [vec![folder.to_owned()], in_site_packages(folder)].concat(),
        None => usual_folders(),
    };
    let found = folders.iter().map(|f| f.join(wanted.name)).find(|p| runs(p));
    found.ok_or(Error::Missing { tool: wanted.name, wheel: wanted.wheel, looked: folders })
}

/// PATH, the toolkit, then what pip installs.
fn usual_folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).filter(|p| p.is_absolute()).collect();
    folders.push(TOOLKIT.into());
    folders.extend(site_packages().iter().flat_map(|s| in_site_packages(s)));
    folders
}

fn in_site_packages(folder: &Path) -> Vec<PathBuf> {
    IN_SITE_PACKAGES.iter().map(|bin| folder.join(bin)).collect()
}

/// Folders of Python packages: the user's, Debian's, those under /usr/local, pyenv's.
fn site_packages() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let home = std::env::home_dir();
    if let Some(home) = &home {
        folders.extend(of_each_python(&home.join(".local/lib")));
    }
    folders.push("/usr/lib/python3/dist-packages".into());
    folders.extend(of_each_python(Path::new("/usr/local/lib")));
    if let Some(home) = &home {
        let versions = entries(&home.join(".pyenv/versions"));
        folders.extend(versions.iter().flat_map(|v| of_each_python(&v.join("lib"))));
    }
    folders
}

/// Package folders of the Pythons in a `lib` folder, the newest first.
fn of_each_python(lib: &Path) -> Vec<PathBuf> {
    let pythons = entries(lib).into_iter().filter(|p| minor_version(p).is_some());
    pythons.flat_map(|p| ["site-packages", "dist-packages"].map(|n| p.join(n))).filter(|p| p.is_dir()).collect()
}

/// 12 of `python3.12`.
fn minor_version(python: &Path) -> Option<u32> {
    python.file_name()?.to_str()?.strip_prefix("python3.")?.parse().ok()
}

/// What is in a folder, highest Python first, then by name from the end.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(read) = std::fs::read_dir(folder) else { return vec![] };
    let mut paths: Vec<PathBuf> = read.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort_by(|a, b| (minor_version(b), b).cmp(&(minor_version(a), a)));
    paths
}

fn runs(file: &Path) -> bool {
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    /// A tool that does nothing.
    fn put(folder: &Path, name: &str) -> PathBuf {
        std::fs::create_dir_all(folder).expect("a folder");
        let file = folder.join(name);
        std::fs::write(&file, "#!/bin/sh\n").expect("a file");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("its owner");
        file
    }

    #[test]
    fn what_is_named_is_a_file_or_a_folder() {
        let scratch = Scratch::new().expect("a folder");
        let tool = put(&scratch.path().join("nvidia/cuda_nvcc/bin"), "ptxas");
        assert_eq!(find(&PTXAS, Some(&tool)).expect("a file"), tool);
        assert_eq!(find(&PTXAS, tool.parent()).expect("a folder of programs"), tool);
        assert_eq!(find(&PTXAS, Some(scratch.path())).expect("a folder of packages"), tool);
        let error = find(&NVDISASM, Some(scratch.path())).expect_err("there is no nvdisasm");
        assert!(error.to_string().contains("pip install nvidia-cuda-nvdisasm"), "{error}");
    }

    #[test]
    fn the_newest_python_comes_first() {
        let scratch = Scratch::new().expect("a folder");
        for python in ["python3.9", "python3.12", "other"] {
            std::fs::create_dir_all(scratch.path().join(python).join("site-packages")).expect("a folder");
        }
        let found = of_each_python(scratch.path());
        let expected = ["python3.12", "python3.9"].map(|p| scratch.path().join(p).join("site-packages"));
        assert_eq!(found, expected);
    }
}
