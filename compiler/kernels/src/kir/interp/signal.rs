//! Copies to the worker's memory that a signal tells of.
//!
//! As those in [`super::async_copy`] they take what was in their target away at once, and what they bring is
//! there only when somebody waits for their turn, which is the latest moment allowed. To make and to end a signal
//! counts as a write of its bytes, to use it as a read: a barrier has to be between where threads differ.

use super::access::Access;
use super::async_copy::Copy;
use super::error::{Addr, Fault};
use super::memory::{Memory, Place, same_buffer};
use std::collections::BTreeMap;

/// What a thread does about signals. Places in the frame, but for the numbers of bytes and copies.
pub(super) enum SignalStep {
    Begin { at: usize, copies: u32 },
    End { at: usize },
    Copy { to: usize, from: usize, bytes: u32, at: usize },
    Wait { at: usize, parity: usize },
}

/// A signal.
pub(super) struct Signal {
    /// The thread that made it.
    owner: u32,
    /// Copies of a turn.
    most: usize,
    copies: Vec<Copy>,
    /// That of the turn under way.
    parity: u64,
}

/// Signals by their address.
pub(super) type Signals = BTreeMap<u64, Signal>;

/// Bytes of a signal.
const BYTES: usize = 8;

const UNKNOWN: Fault = Fault::Operand("there is no signal at the address");

/// Carries out a step on the places of a frame.
pub(super) fn step(step: &SignalStep, places: &[u64], memory: &mut Memory, access: &Access) -> Result<(), Fault> {
    match step {
        SignalStep::Begin { at, copies } => begin(places[*at], *copies as usize, memory, access),
        SignalStep::End { at } => end(places[*at], memory, access),
        SignalStep::Copy { to, from, bytes, at } => {
            let copy = Copy::begin((places[*to], places[*from]), *bytes, 16, memory, access)?;
            memory.observe(place(places[*at]), access)?;
            let signal = memory.signals.get_mut(&places[*at]).ok_or(UNKNOWN)?;
            signal.copies.push(copy);
            if signal.copies.len() > signal.most {
                return Err(Fault::Operand("the turn of the signal has its copies already"));
            }
            Ok(())
        }
        SignalStep::Wait { at, parity } => wait(places[*at], places[*parity], memory, access),
    }
}

fn place(at: u64) -> Place {
    Place { addr: Addr(at), len: BYTES, align: BYTES as u32 }
}

fn begin(at: u64, most: usize, memory: &mut Memory, access: &Access) -> Result<(), Fault> {
    if !same_buffer(Addr(at), access.shared) {
        return Err(Fault::Operand("the signal is not in memory of the worker"));
    }
    memory.poison(place(at), access)?;
    let signal = Signal { owner: access.thread, most, copies: Vec::new(), parity: 0 };
    match memory.signals.insert(at, signal) {
        None => Ok(()),
        Some(_) => Err(Fault::Operand("there is a signal at the address already")),
    }
}

fn end(at: u64, memory: &mut Memory, access: &Access) -> Result<(), Fault> {
    if !memory.is_poisoned(place(at))? {
        return Err(Fault::Operand("the bytes of the signal were written"));
    }
    memory.poison(place(at), access)?;
    match memory.signals.remove(&at) {
        None => Err(UNKNOWN),
        Some(signal) if !signal.copies.is_empty() => Err(Fault::Operand("the signal ends with copies under way")),
        Some(_) => Ok(()),
    }
}

fn wait(at: u64, parity: u64, memory: &mut Memory, access: &Access) -> Result<(), Fault> {
    memory.observe(place(at), access)?;
    let signal = memory.signals.get_mut(&at).ok_or(UNKNOWN)?;
    if signal.parity != parity {
        return Ok(());
    }
    if signal.copies.len() < signal.most {
        return Err(Fault::Operand("the signal waited for is of copies that nobody has begun"));
    }
    signal.parity ^= 1;
    let copies = std::mem::take(&mut signal.copies);
    copies.iter().try_for_each(|copy| copy.deliver(memory, access))
}

/// A thread returns: its signals have ended.
pub(super) fn finish(memory: &Memory, access: &Access) -> Result<(), Fault> {
    match memory.signals.values().any(|s| s.owner == access.thread) {
        true => Err(Fault::Operand("the thread returns with a signal that has not ended")),
        false => Ok(()),
    }
}
