//! All threads: workers run one after the other up to the next barrier of all.

use super::access::Access;
use super::code::Compiled;
use super::error::{Addr, Fault, InterpError, ThreadId};
use super::meet::Stop;
use super::memory::Memory;
use super::order::{Order, Turns};
use super::thread::Thread;
use super::wgmma::Columns;
use crate::kir::print::line;
use std::collections::BTreeMap;

/// A run.
pub(super) struct Grid<'a> {
    pub program: &'a Compiled<'a>,
    pub memory: &'a mut Memory,
    pub access: Access,
    pub turns: Turns,
    /// Threads of all workers, one worker after the other.
    pub threads: Vec<Thread>,
    /// Where each thread has stopped.
    pub stops: Vec<Stop>,
    /// Number of workers, and of the threads of each.
    counts: (usize, usize),
    /// The memory of each worker; nowhere if there is none.
    shared: Vec<Addr>,
    /// What workers that were not the last one have left at counters since the last barrier of all: the
    /// moments before which they know what each worker did.
    pub counters: BTreeMap<Addr, Vec<u32>>,
    /// What products under way read, by the first thread of their warp.
    pub products: BTreeMap<usize, Vec<Columns>>,
}

impl<'a> Grid<'a> {
    /// Workers and threads of each; `moment` is the last one of the run before.
    pub fn new(
        program: &'a Compiled<'a>,
        memory: &'a mut Memory,
        counts: (usize, usize),
        order: Order,
        moment: u32,
    ) -> Grid<'a> {
        Grid {
            program,
            memory,
            access: Access::new(counts.1, moment),
            turns: Turns::new(order),
            threads: Vec::new(),
            stops: vec![Stop::Done; counts.0 * counts.1],
            counts,
            shared: vec![Addr::default(); counts.0],
            counters: BTreeMap::new(),
            products: BTreeMap::new(),
        }
    }

    /// Makes the workers' memory and sets all threads before the entry function.
    pub fn enter(&mut self, function: usize, args: Addr) -> Result<(), InterpError> {
        let (workers, threads) = self.counts;
        if let Some(bytes) = self.program.shared {
            for shared in &mut self.shared {
                *shared = self
                    .memory
                    .alloc_shared(bytes as usize, self.program.fenced)
                    .map_err(|_| InterpError::OutOfAddresses)?;
            }
        }
        for worker in 0..workers as u64 {
            let thread = || Thread::new(self.program, function, &[args.0, worker, workers as u64]);
            self.threads.extend(std::iter::repeat_with(thread).take(threads));
        }
        Ok(())
    }

    /// Runs until all threads have returned.
    pub fn run(&mut self) -> Result<(), InterpError> {
        let (workers, threads) = self.counts;
        loop {
            self.access.begin_all(|| self.memory.forget_accesses());
            self.counters.clear();
            for worker in self.turns.all(workers) {
                self.access.begin_worker(worker * threads, self.shared[worker]);
                self.run_worker(worker * threads..(worker + 1) * threads)?;
            }
            if self.met(0, workers * threads)? == Stop::Done {
                return Ok(());
            }
        }
    }

    /// The last moment of the run.
    pub fn latest(&self) -> u32 {
        self.access.latest()
    }

    /// Begins a moment for a warp, if there is anybody to race with.
    pub fn begin_warp(&mut self) {
        if self.threads.len() > 1 {
            self.access.begin_warp();
        }
    }

    /// Where all threads from `first` to before `end` have stopped.
    pub fn met(&self, first: usize, end: usize) -> Result<Stop, InterpError> {
        let stop = self.stops[first];
        match self.stops[first..end].iter().position(|s| *s != stop) {
            None => Ok(stop),
            Some(i) => Err(self.apart(first, first + i)),
        }
    }

    fn apart(&self, first: usize, other: usize) -> InterpError {
        InterpError::Apart {
            first: self.name(first),
            waits: self.stops[first].describe(self.program),
            other: self.name(other),
            differs: self.stops[other].describe(self.program),
        }
    }

    fn name(&self, thread: usize) -> ThreadId {
        self.access.name(thread as u32).expect("a thread's number is no mark")
    }

    /// The fault of a thread at a step of a function.
    pub fn fault(&self, thread: usize, (function, step): (usize, usize), fault: Fault) -> InterpError {
        let code = &self.program.functions[function];
        let instruction = code.sources[step].map(|inst| line(code.function, inst)).unwrap_or_default();
        InterpError::Fault { thread: self.name(thread), function: code.function.name.clone(), instruction, fault }
    }

    /// The fault of a thread where it has stopped.
    pub fn fault_at_stop(&self, thread: usize, fault: Fault) -> InterpError {
        let Stop::At { function, step } = self.stops[thread] else { unreachable!("the thread has not returned") };
        self.fault(thread, (function as usize, step as usize), fault)
    }
}
