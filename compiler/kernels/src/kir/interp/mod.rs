//! Runs programs on any machine, with every access checked. What it computes is what KIR means.
//!
//! Memory is a set of buffers far apart. Threads run one after the other up to what they do together
//! (see [`Machine::run_groups`]), in an order the caller chooses. A byte that one thread writes and
//! another reads or writes is an error in whatever order they run, unless something orders the two:
//! a barrier of all, of their worker or of their warp between them, or a [`super::Op::LastOf`], by which
//! its last worker sees what the others did before they came to it on that counter. `LaneXor` and products
//! order nothing. So a run proves a plan's barriers. Each [`Fault`] names thread, function, instruction
//! and address.
//!
//! What a `LastOf` says of a byte that several workers have read is forgotten in part: a write to it
//! after that can count as a race though it is none; a barrier of all orders it. The same holds for
//! other accesses to the counter itself.
//!
//! Stack memory and memory of a worker that others access by an address they were handed is not told
//! from other memory.

mod access;
mod async_copy;
mod code;
mod error;
mod fence;
mod grid;
mod group;
mod last_of;
mod meet;
mod memory;
mod mma;
mod order;
mod race;
mod scalar;
mod signal;
mod step;
mod thread;
mod tiles;
mod warp;
mod wgmma;

pub use code::Compiled;
pub use error::{Addr, Fault, InterpError, ThreadId};
pub use order::Order;

use super::func::Program;
use super::types::Ty;
use grid::Grid;
use meet::WARP;
use memory::Memory;

/// Most threads of a worker.
const MOST_THREADS: usize = 1024;

/// Memory that programs run on.
#[derive(Default)]
pub struct Machine {
    memory: Memory,
    /// The last moment of the run before.
    moment: u32,
}

impl Machine {
    /// Without any memory.
    pub fn new() -> Machine {
        Machine::default()
    }

    /// A buffer with these bytes, aligned to 64 and not to more.
    pub fn alloc(&mut self, bytes: Vec<u8>) -> Addr {
        self.memory.alloc(Some(bytes), 0, false).expect("there are addresses left")
    }

    /// A buffer that programs only read.
    pub fn alloc_readonly(&mut self, bytes: Vec<u8>) -> Addr {
        self.memory.alloc(Some(bytes), 0, true).expect("there are addresses left")
    }

    /// A buffer of `len` bytes of which each must be written before it is read.
    pub fn alloc_uninit(&mut self, len: usize) -> Addr {
        self.memory.alloc(None, len, false).expect("there are addresses left")
    }

    /// All bytes of the buffer that starts at `addr`, to read or change between runs.
    pub fn buffer(&mut self, addr: Addr) -> &mut Vec<u8> {
        self.memory.buffer(addr).expect("the address of a buffer")
    }

    /// Runs a verified program; see [`Machine::run_compiled`].
    ///
    /// # Errors
    /// [`InterpError`]; memory is then as it was left.
    pub fn run(
        &mut self,
        program: &Program,
        entry: &str,
        args: Addr,
        workers: usize,
        order: Order,
    ) -> Result<(), InterpError> {
        self.run_compiled(&Compiled::new(program), entry, args, workers, order)
    }

    /// Runs `entry(args, worker, workers)` for every worker until all have returned.
    ///
    /// # Errors
    /// [`InterpError`]; memory is then as it was left.
    pub fn run_compiled(
        &mut self,
        program: &Compiled<'_>,
        entry: &str,
        args: Addr,
        workers: usize,
        order: Order,
    ) -> Result<(), InterpError> {
        self.run_groups(program, entry, args, workers, 1, order)
    }

    /// Runs `entry(args, worker, workers)` for every thread of every worker until all have returned. Workers
    /// have one thread, or as many warps of 32 threads as the number says.
    ///
    /// Threads stop at what they do together: those of a warp, a worker or all. Workers run one after the
    /// other up to what all do together, a worker's warps one after the other up to what the worker does
    /// together, and a warp as far as it can. It is an error if those who should meet come to different
    /// instructions or return.
    ///
    /// # Errors
    /// [`InterpError`]; memory is then as it was left.
    pub fn run_groups(
        &mut self,
        program: &Compiled<'_>,
        entry: &str,
        args: Addr,
        workers: usize,
        threads: usize,
        order: Order,
    ) -> Result<(), InterpError> {
        let function = entry_index(program, entry)?;
        check_counts(workers, threads)?;
        let first = self.memory.len();
        self.memory.begin_run();
        let mut grid = Grid::new(program, &mut self.memory, (workers, threads), order, self.moment);
        let result = grid.enter(function, args).and_then(|()| grid.run());
        self.moment = grid.latest();
        self.memory.truncate(first);
        result
    }
}

fn check_counts(workers: usize, threads: usize) -> Result<(), InterpError> {
    if threads != 1 && (!threads.is_multiple_of(WARP) || !(WARP..=MOST_THREADS).contains(&threads)) {
        return Err(InterpError::Threads(threads));
    }
    let most = if threads == 1 { usize::from(u8::MAX) } else { usize::from(u16::MAX) };
    if (1..=most).contains(&workers) { Ok(()) } else { Err(InterpError::Workers(workers)) }
}

fn entry_index(program: &Compiled<'_>, entry: &str) -> Result<usize, InterpError> {
    let index = program.names.get(entry).copied().filter(|i| {
        let function = program.functions[*i].function;
        function.body.params.iter().map(|p| function.ty(*p)).eq([Ty::PTR, Ty::I64, Ty::I64])
    });
    index.ok_or_else(|| InterpError::Entry(entry.into()))
}
