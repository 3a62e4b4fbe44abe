//! A warp: 32 threads, or the one of a worker that has no more.

use super::error::{Fault, InterpError};
use super::grid::Grid;
use super::meet::{Meet, WARP, WarpMeet};
use super::mma;
use super::thread::Thread;
use std::ops::Range;

impl Grid<'_> {
    /// Runs a warp up to what it does together with others, or the end.
    pub fn run_warp(&mut self, warp: Range<usize>) -> Result<(), InterpError> {
        self.begin_warp();
        loop {
            self.run_threads(warp.clone())?;
            let stop = self.met(warp.start, warp.end)?;
            let Some(Meet::Warp(meet)) = stop.meet(self.program) else { return Ok(()) };
            match meet {
                WarpMeet::Barrier => self.begin_warp(),
                WarpMeet::Wgmma(product) => self.begin_product(warp.clone(), product)?,
                WarpMeet::WgmmaWait { to, from, lanes } => self.end_products(warp.clone(), (to, from, lanes))?,
                _ => {
                    let done = together(meet, &mut self.threads[warp.clone()]);
                    done.map_err(|fault| self.fault_at_stop(warp.start, fault))?;
                }
            }
        }
    }

    /// Runs each thread as far as it can.
    fn run_threads(&mut self, warp: Range<usize>) -> Result<(), InterpError> {
        let turn = self.turns.lanes(warp.len());
        for i in 0..warp.len() {
            let index = warp.start + (i ^ turn);
            self.access.thread = index as u32;
            let thread = &mut self.threads[index];
            match thread.run(self.program, self.memory, &self.access) {
                Ok(stop) => self.stops[index] = stop,
                Err(fault) => {
                    let position = thread.position().expect("a thread at fault has not returned");
                    return Err(self.fault(index, position, fault));
                }
            }
        }
        Ok(())
    }
}

/// What the threads of a warp compute together.
fn together(meet: WarpMeet, threads: &mut [Thread]) -> Result<(), Fault> {
    let warp: &mut [Thread; WARP] =
        threads.try_into().map_err(|_| Fault::Operand("the worker has no warp of 32 threads"))?;
    match meet {
        WarpMeet::Barrier | WarpMeet::Wgmma(_) | WarpMeet::WgmmaWait { .. } => {}
        WarpMeet::LaneXor { to, from, mask } => {
            let values = warp.each_mut().map(|thread| thread.places()[from]);
            for (lane, thread) in warp.iter_mut().enumerate() {
                thread.places()[to] = values[lane ^ mask];
            }
        }
        WarpMeet::Transpose { to } => mma::transpose(warp, to),
        WarpMeet::Mma { kind, to, acc, a, b } => mma::run(kind, warp, to, (acc, a, b)),
    }
    Ok(())
}
