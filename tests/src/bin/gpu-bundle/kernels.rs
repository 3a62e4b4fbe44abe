//! Kernels by themselves.

use super::{Result, is_lean, options};
use gpu_check::kernels::KernelCheck;
use llmc::compile;
use llmc::progress::Progress;
use llmc_tests::kernels::{Case, cases, targets};
use std::path::PathBuf;

/// Seeds of the numbers that kernels are tried on.
const SEEDS: [u64; 3] = [1, 2, 3];

/// All whose name has `only` in it.
pub fn checks(only: &str) -> Result<Vec<KernelCheck>> {
    let tries: Vec<Vec<Case>> = SEEDS.map(cases).into();
    let mut checks = Vec::new();
    for (i, case) in tries[0].iter().enumerate().filter(|(_, c)| c.name.contains(only)) {
        eprintln!("{}", case.name);
        let (kernel, threads) = (case.symbol(), targets()[0].threads);
        let tries = tries.iter().map(|cases| cases[i].input()).collect();
        checks.push(KernelCheck { name: case.name.clone(), code: code(case)?, kernel, threads, tries });
    }
    Ok(checks)
}

/// A kernel's images: machine code of what is tuned to a generation, and text for all others.
fn code(case: &Case) -> Result<Vec<u8>> {
    let (options, mut images) = (options(PathBuf::new()), Vec::new());
    for target in targets() {
        images.extend(compile::device_images((0, &target, &case.program(&target)), &options, &Progress::Quiet)?);
    }
    if options.ptxas.is_some() {
        images.retain(|i| is_lean(i.specific, i.kind));
    }
    Ok(llmc_abi::device::write(&images))
}
