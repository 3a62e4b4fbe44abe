//! Permission to use AMX tiles, which Linux gives to a process only on request.

use llmc_abi::Feature;

/// Whether code with these features uses AMX tiles.
pub fn needed(features: u64) -> bool {
    features & Feature::AmxTile.bit() != 0
}

/// Asks for the tile data state. Threads started later have the permission too. False where it is
/// refused.
pub fn request() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: changes a permission of this process only and reads no memory.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}
