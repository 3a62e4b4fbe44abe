//! How an artifact's process starts. There are no crt files: `_start` hands `llmc_main` to glibc
//! itself, and the one symbol that crtbegin.o would have brought is defined here.
//!
//! Signals keep their default actions; in particular SIGPIPE is not ignored.

use std::arch::global_asm;
use std::panic::{PanicHookInfo, catch_unwind};

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")))]
compile_error!("artifacts can be built for x86-64 Linux with glibc only");

// System V ABI, x86-64 supplement, section 3.4.1: at entry rsp points to argc and argv, rdx holds
// a function for atexit. Arguments of __libc_start_main: main, argc, argv, init, fini, rtld_fini,
// stack_end. glibc 2.34 and newer run .init_array themselves where init is null.
global_asm!(
    ".globl _start",
    ".type _start,@function",
    "_start:",
    ".cfi_startproc",
    ".cfi_undefined rip",
    "xor ebp, ebp",
    "mov r9, rdx",
    "pop rsi",
    "mov rdx, rsp",
    "and rsp, -16",
    "push rax",
    "push rsp",
    "xor r8d, r8d",
    "xor ecx, ecx",
    "lea rdi, [rip + llmc_main]",
    "call [rip + __libc_start_main@GOTPCREL]",
    "hlt",
    ".cfi_endproc",
    ".size _start, . - _start",
);

/// Identifies this object to `__cxa_atexit` and friends.
#[unsafe(no_mangle)]
static __dso_handle: usize = 0;

/// `main` of the artifact.
#[unsafe(no_mangle)]
extern "C" fn llmc_main(_argc: i32, _argv: *const *const u8) -> i32 {
    std::panic::set_hook(Box::new(report_panic));
    // The hook ends the process, so an unwind never arrives here; it must not pass into glibc.
    catch_unwind(crate::cli::main).unwrap_or(1)
}

/// A panic is a bug of ours, in whichever thread: says so and ends the process with code 1. Other
/// workers would wait for ever at a barrier otherwise.
fn report_panic(info: &PanicHookInfo<'_>) {
    use std::io::Write;
    // A closed standard error must not become a second panic.
    let _ = writeln!(std::io::stderr(), "error: internal error, please report it: {info}");
    std::process::exit(1);
}
