//! Which worker comes to a counter as the last one.

use super::error::{Addr, Fault, InterpError};
use super::grid::Grid;
use super::memory::Place;
use std::ops::Range;

impl Grid<'_> {
    /// Carries out a `LastOf` whose counter and number to add are at these places; the total is the number
    /// itself.
    pub fn last_of(
        &mut self,
        worker: Range<usize>,
        to: usize,
        (counter, add, total): (usize, usize, u32),
    ) -> Result<(), InterpError> {
        let first = worker.start;
        let operands = self.agreed(worker.clone(), [counter, add])?;
        let addr = Addr(operands[0]);
        self.access.begin_group();
        self.begin_warp();
        self.access.thread = first as u32;
        let last = self.count(addr, operands[1] as u32, total).map_err(|fault| self.fault_at_stop(first, fault))?;
        self.tell(addr, last);
        for thread in &mut self.threads[worker] {
            thread.places()[to] = u64::from(last);
        }
        Ok(())
    }

    /// The values at these places, which all threads of the worker share.
    fn agreed(&mut self, worker: Range<usize>, places: [usize; 2]) -> Result<[u64; 2], InterpError> {
        let values = places.map(|place| self.threads[worker.start].places()[place]);
        for thread in worker {
            if places.map(|place| self.threads[thread].places()[place]) != values {
                let fault = Fault::Operand("the threads of the worker differ in the counter or what they add");
                return Err(self.fault_at_stop(thread, fault));
            }
        }
        Ok(values)
    }

    /// Adds to the counter; whether that brings it to the total.
    fn count(&mut self, addr: Addr, add: u32, total: u32) -> Result<bool, Fault> {
        let counter = self.memory.update(Place { addr, len: 4, align: 4 }, &self.access)?;
        let before = counter.iter().rev().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        let sum = before.checked_add(add).filter(|sum| *sum <= total);
        let sum = sum.ok_or(Fault::Operand("the counter passes its total"))?;
        let last = sum == total;
        counter.copy_from_slice(&(if last { 0 } else { sum }).to_le_bytes());
        Ok(last)
    }

    /// Leaves what the worker knows at the counter, or takes what others have left there.
    fn tell(&mut self, addr: Addr, last: bool) {
        let left = self.counters.remove(&addr).unwrap_or_default();
        if last {
            self.access.learn(&left);
            return;
        }
        let mut known = self.access.knowledge();
        known.iter_mut().zip(left).for_each(|(known, left)| *known = (*known).max(left));
        self.counters.insert(addr, known);
    }
}
