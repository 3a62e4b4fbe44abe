//! Code for GPUs: PTX that every driver compiles, and machine code where an assembler is named.

use crate::error::{Error, Result};
use crate::options::Options;
use crate::progress::Progress;
use llmc_abi::device::{DeviceImage, DeviceKind};
use llmc_kernels::{Object, Target};
use llmc_ptxas::Tool;
use rayon::prelude::*;
use std::path::Path;

/// Compute capabilities for which there is machine code of what runs on all: each serves the later ones of
/// its generation too.
const CUBIN_ARCHS: [u32; 3] = [80, 89, 120];

/// The images of a program in PTX for a target, which is the step numbered `step` with `shared_bytes` of shared
/// memory.
///
/// # Errors
/// If the assembler asked for is not there, or refuses the program.
pub fn images(
    (step, target, shared_bytes): (u32, &Target, usize),
    ptx: Object,
    options: &Options,
    progress: &Progress,
) -> Result<Vec<DeviceImage<Vec<u8>>>> {
    // What is tuned to a generation uses instructions that no other has.
    let specific = target.gpu_arch >= 90;
    let image = |kind, arch, bytes| DeviceImage { step, kind, arch, specific, shared_bytes, bytes };
    let mut images = Vec::new();
    if let Some(path) = &options.ptxas {
        progress.stage(&format!("assembling machine code for {}", target.name));
        let archs = if specific { vec![target.gpu_arch] } else { CUBIN_ARCHS.to_vec() };
        for (arch, bytes) in cubins(&ptx, path, &archs, specific)? {
            images.push(image(DeviceKind::Cubin, arch, bytes));
        }
    }
    images.push(image(DeviceKind::Ptx, target.gpu_arch, ptx.bytes));
    Ok(images)
}

/// Machine code for each of some compute capabilities.
fn cubins(ptx: &Object, path: &Path, archs: &[u32], specific: bool) -> Result<Vec<(u32, Vec<u8>)>> {
    let failed = |e: llmc_ptxas::Error| Error::Failed(format!("--ptxas: {e}"));
    let tool = Tool::require((path != Path::new("auto")).then_some(path)).map_err(failed)?;
    let text = String::from_utf8_lossy(&ptx.bytes);
    let one = |arch: &u32| {
        let name = format!("sm_{arch}{}", if specific { "a" } else { "" });
        Ok((*arch, tool.assemble(&text, &name).map_err(failed)?.cubin))
    };
    archs.par_iter().map(one).collect()
}
