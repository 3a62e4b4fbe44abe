//! AMX tiles where the processor has none: the instructions raise SIGILL, whose handler does what they would do.
//!
//! So compiled code that uses tiles runs, slowly, on every x86-64 machine that has the rest of what it needs.

mod instruction;
mod tiles;

use instruction::{Address, Instruction, decode};
use llmc_abi::Feature;
use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use tiles::Tiles;

/// What tiles need of a processor.
const AMX: [Feature; 3] = [Feature::AmxTile, Feature::AmxInt8, Feature::AmxBf16];

/// Features of this machine that code in this process may use; of AMX, if the system permits it.
pub fn native() -> u64 {
    static FEATURES: OnceLock<u64> = OnceLock::new();
    *FEATURES.get_or_init(|| {
        let found = llmc_abi::features::detect();
        let permitted = found & bits() == 0 || llmc_rt::sys::amx::request();
        if permitted { found } else { found & !bits() }
    })
}

/// The same and AMX, which is emulated where it is not there.
pub fn with_tiles() -> u64 {
    static EMULATED: OnceLock<u64> = OnceLock::new();
    *EMULATED.get_or_init(|| {
        if native() & bits() == 0 {
            catch();
        }
        native() | bits()
    })
}

fn bits() -> u64 {
    AMX.iter().fold(0, |mask, f| mask | f.bit())
}

thread_local! {
    static TILES: RefCell<Tiles> = const { RefCell::new(Tiles::RELEASED) };
}

/// Installs the handler.
fn catch() {
    // SAFETY: the action is a plain structure; the handler has the signature that SA_SIGINFO asks for.
    let failed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = illegal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut())
    };
    assert_eq!(failed, 0, "SIGILL cannot be handled: {}", std::io::Error::last_os_error());
}

/// Numbers of registers in instructions to their places in what the system saves of a thread.
const REGISTERS: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// General registers of a thread that was interrupted.
struct Registers<'a>(&'a mut [i64; 23]);

impl Registers<'_> {
    fn get(&self, register: u8) -> i64 {
        self.0[REGISTERS[usize::from(register)] as usize]
    }

    /// The first byte at an address without its index, and the stride that the index is.
    fn rows(&self, address: Address) -> (*mut u8, i64) {
        let base = address.base.map_or(0, |base| self.get(base));
        let stride = address.index.map_or(0, |(index, shift)| self.get(index) << shift);
        (base.wrapping_add(i64::from(address.displacement)) as *mut u8, stride)
    }
}

/// Does what the instruction would have done and goes on behind it. Anything else than AMX ends the process as if
/// this were not here.
extern "C" fn illegal(_signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes the interrupted thread's context.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let code = registers[libc::REG_RIP as usize] as *const u8;
    // SAFETY: no more is read than the instruction has.
    let bytes = (0..).map(|i| unsafe { code.add(i).read() });
    let Some((instruction, length)) = decode(bytes) else {
        // SAFETY: the instruction faults again, and the default action ends the process.
        unsafe { libc::signal(libc::SIGILL, libc::SIG_DFL) };
        return;
    };
    // SAFETY: the interrupted code would have accessed the same memory.
    if let Err(e) = TILES.with_borrow_mut(|tiles| unsafe { run(tiles, instruction, &Registers(registers)) }) {
        eprintln!("{instruction:?} at {code:?}: {e}");
        std::process::abort();
    }
    registers[libc::REG_RIP as usize] += length as i64;
}

/// # Safety
/// The instruction may access the memory that it names.
unsafe fn run(tiles: &mut Tiles, instruction: Instruction, registers: &Registers) -> Result<(), String> {
    match instruction {
        Instruction::Configure(address) => {
            // SAFETY: the caller's promise.
            let config = unsafe { registers.rows(address).0.cast::<[u8; 64]>().read_unaligned() };
            tiles.configure(&config)
        }
        Instruction::Release => {
            *tiles = Tiles::RELEASED;
            Ok(())
        }
        Instruction::Zero(tile) => tiles.zero(tile),
        Instruction::Load(tile, address) => {
            let (mut from, stride) = registers.rows(address);
            for row in tiles.cleared(tile)? {
                // SAFETY: the caller's promise.
                unsafe { from.copy_to_nonoverlapping(row.as_mut_ptr(), row.len()) };
                from = from.wrapping_byte_offset(stride as isize);
            }
            Ok(())
        }
        Instruction::Store(tile, address) => {
            let (mut to, stride) = registers.rows(address);
            for row in tiles.rows(tile)? {
                // SAFETY: the caller's promise.
                unsafe { to.copy_from_nonoverlapping(row.as_ptr(), row.len()) };
                to = to.wrapping_byte_offset(stride as isize);
            }
            Ok(())
        }
        Instruction::Multiply { product, sums, tiles: factors } => tiles.multiply(product, sums, factors),
    }
}
