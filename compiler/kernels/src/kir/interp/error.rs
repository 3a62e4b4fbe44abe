//! What can go wrong while a program runs.

use std::fmt;
use thiserror::Error;

/// An address in a [`super::Machine`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addr(pub u64);

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Who runs: a worker that is one thread, or a thread of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadId {
    /// The worker.
    pub worker: u32,
    /// The thread in the worker, where workers have several.
    pub thread: Option<u32>,
}

impl fmt::Display for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.thread {
            None => write!(f, "worker {}", self.worker),
            Some(thread) => write!(f, "worker {}, thread {thread}", self.worker),
        }
    }
}

/// Why an instruction cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The bytes are not all inside one living buffer.
    #[error("{bytes} bytes at {addr} are not in a buffer{}", .inside.as_ref().map(|s| format!(" ({s})")).unwrap_or_default())]
    OutOfBounds {
        /// First byte.
        addr: Addr,
        /// How many.
        bytes: usize,
        /// The buffer the address points near, in words.
        inside: Option<String>,
    },
    /// The address breaks the instruction's guarantee.
    #[error("{addr} is not aligned to {align}")]
    Misaligned {
        /// Accessed address.
        addr: Addr,
        /// Promised alignment in bytes.
        align: u32,
    },
    /// A byte is read before anything was written there.
    #[error("byte {addr} is read but was never written")]
    Uninitialized {
        /// The first such byte.
        addr: Addr,
    },
    /// A store to read-only memory.
    #[error("{addr} is read-only")]
    ReadOnly {
        /// Accessed address.
        addr: Addr,
    },
    /// Two threads access a byte, one of them writes, and no barrier stands between.
    #[error("data race: byte {addr} was {earlier} by {} since the last barrier between them", .other.map_or("several others".into(), |t| t.to_string()))]
    Race {
        /// The first such byte.
        addr: Addr,
        /// What the other thread did: `read` or `written`.
        earlier: &'static str,
        /// The other thread, if it is one.
        other: Option<ThreadId>,
    },
    /// A buffer is loaded from as constant and written in one run.
    #[error("{addr} is in a buffer that is loaded from as constant and written in this run")]
    Constant {
        /// Accessed address.
        addr: Addr,
    },
    /// Operands outside of what the instruction is defined for.
    #[error("{0}")]
    Operand(&'static str),
    /// More buffers than there are addresses.
    #[error("out of addresses")]
    OutOfAddresses,
}

/// Why a run ended early.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InterpError {
    /// The entry function is missing or has other parameters than `args, worker, workers`.
    #[error("@{0} is not a function of the program with the parameters ptr, i64, i64")]
    Entry(String),
    /// The number of workers is not supported.
    #[error("{0} workers; from 1 to 255 are supported, and to 65535 of several threads")]
    Workers(usize),
    /// The number of threads is not supported.
    #[error("{0} threads; 1 or a multiple of 32 up to 1024 is supported")]
    Threads(usize),
    /// An instruction cannot be carried out.
    #[error("{thread}: @{function}: `{instruction}`: {fault}")]
    Fault {
        /// Who runs it.
        thread: ThreadId,
        /// The function.
        function: String,
        /// The instruction, printed.
        instruction: String,
        /// Why.
        fault: Fault,
    },
    /// The workers' memory has no addresses left.
    #[error("out of addresses")]
    OutOfAddresses,
    /// Threads do not meet at the same barriers or other instructions that they run together.
    #[error("{first} {waits}, but {other} {differs}")]
    Apart {
        /// The first of those that should meet.
        first: ThreadId,
        /// Where it waits or that it has returned.
        waits: String,
        /// One that differs.
        other: ThreadId,
        /// What that one does.
        differs: String,
    },
}
