//! Code for GPUs: PTX that every driver compiles, and machine code where an assembler is at hand.

use crate::options::Options;
use crate::progress::Progress;
use llmc_abi::device::{DeviceImage, DeviceKind};
use llmc_kernels::Object;

/// Compute capability of the PTX.
const PTX_ARCH: u32 = 80;

/// The images of a program in PTX.
pub fn images(step: u32, ptx: Object, options: &Options, progress: &Progress) -> Vec<DeviceImage<Vec<u8>>> {
    let _ = (options, progress);
    vec![DeviceImage { step, kind: DeviceKind::Ptx, arch: PTX_ARCH, specific: false, bytes: ptx.bytes }]
}
