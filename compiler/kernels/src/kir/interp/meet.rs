//! Instructions that several threads carry out together, and where threads stop for them.

use super::code::Compiled;
use super::step::Step;
use super::wgmma::Product;
use crate::kir::inst::Mma;
use crate::kir::print::line;

/// Threads of a warp.
pub(super) const WARP: usize = 32;

/// An instruction that threads carry out together. Numbers are places in the frame unless said
/// otherwise.
#[derive(Clone, Copy)]
pub(super) enum Meet {
    /// All threads of all workers.
    Barrier,
    /// All threads of the worker.
    Group(GroupMeet),
    /// All threads of the warp.
    Warp(WarpMeet),
}

/// What the threads of a worker do together.
#[derive(Clone, Copy)]
pub(super) enum GroupMeet {
    Barrier,
    /// `total` is the number itself.
    LastOf {
        to: usize,
        counter: usize,
        add: usize,
        total: u32,
    },
}

/// What the threads of a warp do together.
#[derive(Clone, Copy)]
pub(super) enum WarpMeet {
    Barrier,
    /// `mask` is the number itself.
    LaneXor {
        to: usize,
        from: usize,
        mask: usize,
    },
    /// Words of four matrices of halves, transposed in place.
    Transpose {
        to: usize,
    },
    Mma {
        kind: Mma,
        to: usize,
        acc: usize,
        a: usize,
        b: usize,
    },
    Wgmma(Product),
    /// `lanes` is the number itself.
    WgmmaWait {
        to: usize,
        from: usize,
        lanes: usize,
    },
}

/// Why a thread has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It has come to a [`Meet`]: its function and step.
    At { function: u32, step: u32 },
    /// It has returned from the entry function.
    Done,
}

impl Stop {
    /// The instruction that the thread waits to carry out.
    pub fn meet(self, program: &Compiled<'_>) -> Option<Meet> {
        let Stop::At { function, step } = self else { return None };
        match program.functions[function as usize].steps[step as usize] {
            Step::Meet(meet) => Some(meet),
            _ => unreachable!("threads stop where they meet"),
        }
    }

    /// What the thread does, in words.
    pub fn describe(self, program: &Compiled<'_>) -> String {
        let Stop::At { function, step } = self else { return "has returned".into() };
        let code = &program.functions[function as usize];
        let instruction = code.sources[step as usize].map(|inst| line(code.function, inst)).unwrap_or_default();
        format!("waits at {instruction} in step {step} of @{}", code.function.name)
    }
}
