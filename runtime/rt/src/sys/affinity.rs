//! The CPUs that this process may run on, and pinning a thread to one of them.

/// Words of an affinity mask: enough for 8192 CPUs.
const WORDS: usize = 128;

/// CPUs in the calling thread's affinity mask, ascending; empty where the system does not say.
pub fn allowed() -> Vec<usize> {
    let mut mask = [0u64; WORDS];
    // SAFETY: the kernel writes at most the size given, and the mask has that many bytes.
    let bytes = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr()) };
    if bytes <= 0 {
        return Vec::new();
    }
    (0..WORDS * 64).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect()
}

/// Lets the calling thread run on `cpus` only. A refusal is ignored: the thread then runs where the
/// scheduler puts it.
pub fn pin(cpus: &[usize]) {
    let mut mask = [0u64; WORDS];
    for cpu in cpus.iter().filter(|cpu| **cpu < WORDS * 64) {
        mask[cpu / 64] |= 1 << (cpu % 64);
    }
    // SAFETY: the kernel reads the mask, of the size given.
    unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&mask), mask.as_ptr());
    }
}
