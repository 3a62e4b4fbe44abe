//! What can go wrong while a program runs.

use std::fmt;
use thiserror::Error;

/// An address in a [`super::Machine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addr(pub u64);

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
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
    /// Two workers access a byte between two barriers and one of them writes.
    #[error("data race: byte {addr} was {earlier} by {} since the last barrier", .other.map_or("several workers".into(), |w| format!("worker {w}")))]
    Race {
        /// The first such byte.
        addr: Addr,
        /// What the other worker did: `read` or `written`.
        earlier: &'static str,
        /// The other worker, if it is one.
        other: Option<u32>,
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
    #[error("{0} workers; from 1 to 255 are supported")]
    Workers(usize),
    /// An instruction cannot be carried out.
    #[error("worker {worker}: @{function}: `{instruction}`: {fault}")]
    Fault {
        /// The worker.
        worker: u32,
        /// The function.
        function: String,
        /// The instruction, printed.
        instruction: String,
        /// Why.
        fault: Fault,
    },
    /// Workers do not meet at the same barriers.
    #[error("worker 0 {first}, but worker {worker} {second}")]
    Barrier {
        /// Where worker 0 waits or that it has returned.
        first: String,
        /// A worker that differs.
        worker: u32,
        /// What it does.
        second: String,
    },
}
