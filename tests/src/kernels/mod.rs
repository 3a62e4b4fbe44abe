//! Kernels for GPUs by themselves, on random numbers, with what they should write in f64 and a bound on what rounding may
//! do to it: run by the interpreter here, and by `gpu-check` on a GPU.
//!
//! Bounds follow from the number of roundings, each of which is at most [`UNIT`] of what is rounded, or of the sum of
//! magnitudes where sums are rounded: Higham, Accuracy and Stability of Numerical Algorithms, chapter 3. They are wide
//! where errors would have to conspire, and still far below what a wrong term would do.

mod attention;
mod choice;
mod memory;
mod products;
pub mod rows;

use crate::aligned::{Line, flat, lines};
use gpu_check::kernels::{Expected, Try};
use llmc_abi::step::{SYNC_PHASES, kernel_symbol};
use llmc_kernels::env::Scratch;
use llmc_kernels::kir::interp::{Addr, Compiled, Machine, Order};
use llmc_kernels::kir::{Function, Program, verify};
use llmc_kernels::layout::ALIGN;
use llmc_kernels::ops::step::{self, Action, Run};
use llmc_kernels::{Backend, Target};
use memory::Memory;

/// Half a unit in the last place of binary32, twice that as matrix units cut off what they add.
const UNIT: f64 = 1.0 / (1 << 23) as f64;
/// The same of bfloat16 and of binary16, rounded to nearest.
const BF16: f64 = 1.0 / 256.0;
const F16: f64 = 1.0 / 2048.0;

/// Forms of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For one token.
    One,
    /// For few.
    Few,
    /// For many.
    Many,
}

impl Form {
    const ALL: [Form; 3] = [Form::One, Form::Few, Form::Many];

    /// Tokens of a step that is tried.
    fn tokens(self) -> usize {
        match self {
            Form::One => 1,
            Form::Few => 5,
            Form::Many => 19,
        }
    }

    /// The most that a step has.
    fn most(self) -> usize {
        match self {
            Form::One => 1,
            Form::Few => 8,
            Form::Many => 64,
        }
    }
}

/// What a step of some kernels does: one after the other, with barriers between.
type Build = Box<dyn Fn(Scratch) -> Vec<Part>>;

/// A kernel of a step.
pub enum Part {
    /// It does its work.
    Works(Function),
    /// It asks for what a later one reads.
    Asks(Function),
}

/// A kernel with what it reads and should write.
pub struct Case {
    /// Its name.
    pub name: String,
    memory: Memory,
    /// Counters that it uses.
    counters: usize,
    build: Build,
    expected: Vec<Expected>,
}

/// All kernels, on numbers that follow from a seed: the same kernels for each.
pub fn cases(seed: u64) -> Vec<Case> {
    let mut all = products::cases(seed);
    all.extend(attention::cases(seed));
    all.extend(rows::cases(seed));
    all.extend(choice::cases(seed));
    all
}

/// Targets of kernels: for all GPUs, and the one that is tuned to.
pub fn targets() -> [Target; 2] {
    let plain = Target::from_name("cuda").expect("GPUs are known");
    let tuned = plain.tuned().expect("a generation is tuned to");
    [plain, tuned]
}

impl Case {
    /// The step's symbol.
    fn step(&self) -> String {
        format!("llmc_{}", self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
    }

    /// The kernel's symbol in the code for a GPU.
    pub fn symbol(&self) -> String {
        kernel_symbol(&self.step())
    }

    fn sync(&self) -> usize {
        (SYNC_PHASES + 8 * PHASES).next_multiple_of(ALIGN)
    }

    /// The step for a target.
    pub fn program(&self, target: &Target) -> Program {
        let scratch = Scratch {
            arena_bytes: self.memory.arena.len(),
            counters: self.sync(),
            shared: target.shared_bytes(),
            engine: target.has_copy_engine(),
            wgmma: target.has_wgmma(),
            ..Scratch::of_threads(target.threads)
        };
        let parts = (self.build)(scratch);
        let (mut functions, mut actions) = (Vec::new(), Vec::new());
        for (phase, part) in parts.into_iter().enumerate() {
            let (function, action): (Function, fn(String) -> Action) = match part {
                Part::Works(function) => (function, Action::Kernel),
                Part::Asks(function) => (function, Action::Ask),
            };
            actions.push(action(function.name.clone()));
            if matches!(actions.last(), Some(Action::Kernel(_))) {
                actions.push(Action::Barrier(phase as u32));
            }
            functions.push(function);
        }
        let run = Run { count: 1, weights: 0, weights_stride: 0, kv: 0, kv_stride: 0, actions, ahead: vec![] };
        functions.push(step::build(&self.step(), &[run]));
        Program { functions }
    }

    /// What it is tried on.
    pub fn input(&self) -> Try {
        let sync = vec![0; self.sync() + 4 * self.counters];
        let mut buffers = self.memory.buffers();
        buffers.push(("sync".into(), sync));
        Try { buffers, counts: self.memory.counts(), expected: self.expected.clone() }
    }

    /// Runs it in the interpreter: what buffers hold of which something is expected.
    ///
    /// # Errors
    /// What the interpreter refuses.
    pub fn interpret(&self, target: &Target, workers: usize, order: Order) -> Result<Vec<Vec<u8>>, String> {
        self.interpret_as(&self.program(target), target, (workers, order))
    }

    /// The same with a program in place of the case's own.
    ///
    /// # Errors
    /// What the interpreter refuses.
    pub fn interpret_as(
        &self,
        program: &Program,
        target: &Target,
        (workers, order): (usize, Order),
    ) -> Result<Vec<Vec<u8>>, String> {
        verify::verify(program).map_err(|e| e.to_string())?;
        let (mut machine, input) = (Machine::new(), self.input());
        let addresses: Vec<(String, Addr)> =
            input.buffers.iter().map(|(name, bytes)| (name.clone(), machine.alloc(bytes.clone()))).collect();
        let of = |field: &str| addresses.iter().find(|(name, _)| name == field).map(|(_, addr)| *addr);
        let args = machine.alloc_readonly(input.arguments(|field| of(field).map(|addr| addr.0)));
        let compiled = Compiled::new(program);
        machine.run_groups(&compiled, &self.step(), args, workers, target.threads, order).map_err(|e| e.to_string())?;
        let expected = self.expected.iter();
        Ok(expected.map(|e| machine.buffer(of(&e.buffer).expect("a buffer of the case")).clone()).collect())
    }
}

impl Case {
    /// Runs its machine code in this process, of a back end for a processor: what buffers hold of which something is
    /// expected.
    ///
    /// # Errors
    /// What the back end or the loader refuses.
    ///
    /// # Safety
    /// This processor has what the target says, and the interpreter has run the kernel.
    pub unsafe fn run(&self, backend: &dyn Backend, target: &Target, workers: usize) -> Result<Vec<Vec<u8>>, String> {
        let objects = backend.compile(&self.program(target), target).map_err(|e| e.to_string())?;
        let code = llmc_jit::load(&objects).map_err(|e| e.to_string())?;
        let input = self.input();
        let mut buffers: Vec<(&str, Vec<Line>)> = input.buffers.iter().map(|(n, b)| (n.as_str(), lines(b))).collect();
        let addresses: Vec<(&str, u64)> = buffers.iter_mut().map(|(n, b)| (*n, b.as_mut_ptr() as u64)).collect();
        let args = lines(&input.arguments(|field| addresses.iter().find(|(n, _)| *n == field).map(|(_, at)| *at)));
        // SAFETY: the caller's promise.
        unsafe { code.run(&self.step(), args.as_ptr().cast(), workers) }.map_err(|e| e.to_string())?;
        let bytes = |name: &str| buffers.iter().find(|(n, _)| *n == name).map(|(_, lines)| flat(lines));
        Ok(self.expected.iter().map(|e| bytes(&e.buffer).expect("a buffer of the case")).collect())
    }
}

/// Most barriers of a step.
const PHASES: usize = 8;
