//! A worker: its warps run one after the other up to the next barrier of the worker.

use super::error::InterpError;
use super::grid::Grid;
use super::meet::{GroupMeet, Meet, Stop, WARP};
use std::ops::Range;

impl Grid<'_> {
    /// Runs the threads of a worker up to a barrier of all or the end.
    pub fn run_worker(&mut self, worker: Range<usize>) -> Result<(), InterpError> {
        loop {
            let stop = self.run_warps(worker.clone())?;
            match stop.meet(self.program) {
                None | Some(Meet::Barrier) => return Ok(()),
                Some(Meet::Group(GroupMeet::Barrier)) => {}
                Some(Meet::Group(GroupMeet::LastOf { to, counter, add, total })) => {
                    self.last_of(worker.clone(), to, (counter, add, total))?;
                }
                Some(Meet::Warp(_)) => unreachable!("a warp does not stop at what it does alone"),
            }
            self.access.begin_group();
        }
    }

    /// Runs each warp as far as it can; all of their threads must have come to one place.
    fn run_warps(&mut self, worker: Range<usize>) -> Result<Stop, InterpError> {
        for warp in self.turns.all(worker.len().div_ceil(WARP)) {
            let first = worker.start + warp * WARP;
            self.run_warp(first..worker.end.min(first + WARP))?;
        }
        self.met(worker.start, worker.end)
    }
}
