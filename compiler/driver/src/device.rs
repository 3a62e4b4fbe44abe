//! Code for GPUs: PTX that every driver compiles, and machine code where an assembler is named.

use crate::error::{Error, Result};
use crate::options::Options;
use crate::progress::Progress;
use llmc_abi::device::{DeviceImage, DeviceKind};
use llmc_kernels::Object;
use llmc_ptxas::Tool;
use rayon::prelude::*;
use std::path::Path;

/// Compute capability of the PTX.
const PTX_ARCH: u32 = 80;
/// Compute capabilities for which there is machine code: each serves the later ones of its generation too.
const CUBIN_ARCHS: [u32; 4] = [80, 89, 90, 120];

/// The images of a program in PTX, which is the step numbered `step`.
///
/// # Errors
/// If the assembler asked for is not there, or refuses the program.
pub fn images(step: u32, ptx: Object, options: &Options, progress: &Progress) -> Result<Vec<DeviceImage<Vec<u8>>>> {
    let mut images = Vec::new();
    if let Some(path) = &options.ptxas {
        progress.stage("assembling machine code for GPUs");
        images = cubins(step, &ptx, path)?;
    }
    images.push(DeviceImage { step, kind: DeviceKind::Ptx, arch: PTX_ARCH, specific: false, bytes: ptx.bytes });
    Ok(images)
}

fn cubins(step: u32, ptx: &Object, path: &Path) -> Result<Vec<DeviceImage<Vec<u8>>>> {
    let failed = |e: llmc_ptxas::Error| Error::Failed(format!("--ptxas: {e}"));
    let tool = Tool::require((path != Path::new("auto")).then_some(path)).map_err(failed)?;
    let text = String::from_utf8_lossy(&ptx.bytes);
    let one = |arch: &u32| {
        let bytes = tool.assemble(&text, &format!("sm_{arch}")).map_err(failed)?.cubin;
        Ok(DeviceImage { step, kind: DeviceKind::Cubin, arch: *arch, specific: false, bytes })
    };
    CUBIN_ARCHS.par_iter().map(one).collect()
}
