//! Runs programs on any machine, with every access checked. What it computes is what KIR means.
//!
//! Memory is a set of buffers far apart. Workers run one after the other up to the next barrier,
//! in an order the caller chooses; a byte that one worker writes and another reads or writes
//! between two barriers is an error in whatever order they run, which proves a plan's barriers.
//! Each [`Fault`] names worker, function, instruction and address.

mod code;
mod error;
mod memory;
mod race;
mod scalar;
mod worker;

pub use code::Compiled;
pub use error::{Addr, Fault, InterpError};

use super::func::Program;
use super::print::line;
use super::types::Ty;
use memory::{Access, Memory};
use worker::{Stop, Worker};

/// In which order workers run between two barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// 0, 1, 2..
    Forward,
    /// The last one first.
    Reverse,
    /// Another one after each barrier, by this seed.
    Seeded(u64),
}

/// Memory that programs run on.
#[derive(Default)]
pub struct Machine {
    memory: Memory,
    epoch: u32,
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
        let function = entry_index(program, entry)?;
        if !(1..=255).contains(&workers) {
            return Err(InterpError::Workers(workers));
        }
        let first_frame = self.memory.len();
        let mut all: Vec<Worker> =
            (0..workers as u64).map(|w| Worker::new(program, function, &[args.0, w, workers as u64])).collect();
        let result = self.phases(program, &mut all, order);
        self.memory.truncate(first_frame);
        result
    }

    fn phases(&mut self, program: &Compiled<'_>, workers: &mut [Worker], order: Order) -> Result<(), InterpError> {
        let mut seed = if let Order::Seeded(seed) = order { seed } else { 0 };
        loop {
            self.next_epoch();
            let epoch = if workers.len() > 1 { self.epoch } else { 0 };
            let mut stops = vec![Stop::Done; workers.len()];
            for w in schedule(order, &mut seed, workers.len()) {
                let access = Access { worker: w as u32, epoch };
                let stop = workers[w].run(program, &mut self.memory, access);
                stops[w] = stop.map_err(|fault| at_fault(program, w as u32, &workers[w], fault))?;
            }
            if let Some(w) = stops.iter().position(|s| *s != stops[0]) {
                let [first, second] = [stops[0], stops[w]].map(|s| describe(program, s));
                return Err(InterpError::Barrier { first, worker: w as u32, second });
            }
            if stops[0] == Stop::Done {
                return Ok(());
            }
        }
    }

    fn next_epoch(&mut self) {
        self.epoch = self.epoch.checked_add(1).unwrap_or_else(|| {
            self.memory.forget_accesses();
            1
        });
    }
}

fn entry_index(program: &Compiled<'_>, entry: &str) -> Result<usize, InterpError> {
    let index = program.names.get(entry).copied().filter(|i| {
        let function = program.functions[*i].function;
        function.body.params.iter().map(|p| function.ty(*p)).eq([Ty::PTR, Ty::I64, Ty::I64])
    });
    index.ok_or_else(|| InterpError::Entry(entry.into()))
}

/// The workers in the order in which they run.
fn schedule(order: Order, seed: &mut u64, workers: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..workers).collect();
    match order {
        Order::Forward => {}
        Order::Reverse => all.reverse(),
        Order::Seeded(_) => (1..workers).for_each(|i| all.swap(i, splitmix(seed) as usize % (i + 1))),
    }
    all
}

/// The splitmix64 generator of Steele, Lea and Flood.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn at_fault(program: &Compiled<'_>, worker: u32, state: &Worker, fault: Fault) -> InterpError {
    let (function, step) = state.position().expect("a worker at fault has not returned");
    let code = &program.functions[function];
    let instruction = code.sources[step].map(|inst| line(code.function, inst)).unwrap_or_default();
    InterpError::Fault { worker, function: code.function.name.clone(), instruction, fault }
}

fn describe(program: &Compiled<'_>, stop: Stop) -> String {
    match stop {
        Stop::Done => "has returned".into(),
        Stop::Barrier { phase, function, step } => {
            format!("waits at barrier {phase} in step {step} of @{}", program.functions[function].function.name)
        }
    }
}
