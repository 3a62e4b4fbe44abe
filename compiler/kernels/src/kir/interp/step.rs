//! What a thread does at a time.

use super::async_copy::AsyncStep;
use super::meet::Meet;
use super::scalar::{Fn1, Fn2, Fn3};
use super::signal::SignalStep;
use super::tiles::TileStep;

/// One step. Numbers are places in the frame unless said otherwise.
pub(super) enum Step {
    Fill {
        to: usize,
        lanes: usize,
        bits: u64,
    },
    Map1 {
        f: Fn1,
        to: usize,
        lanes: usize,
        a: usize,
    },
    Map2 {
        f: Fn2,
        to: usize,
        lanes: usize,
        a: usize,
        b: usize,
    },
    /// `a_stride` is 0 where one lane of `a` serves all.
    Map3 {
        f: Fn3,
        to: usize,
        lanes: usize,
        a: usize,
        a_stride: usize,
        b: usize,
        c: usize,
    },
    /// The same bits in lanes of another width.
    Repack {
        to: usize,
        lanes: usize,
        bytes: usize,
        a: usize,
        a_bytes: usize,
    },
    /// The lane at each source, side by side. Sources and targets do not overlap.
    Pick {
        to: usize,
        from: Vec<usize>,
    },
    /// Bytes looked up in tables of 16.
    Table {
        to: usize,
        lanes: usize,
        table: usize,
        index: usize,
    },
    /// Numbers looked up in one table of 16.
    Lookup {
        to: usize,
        lanes: usize,
        table: usize,
        index: usize,
    },
    /// All sources are read before targets are written.
    Move {
        to: Vec<usize>,
        from: Vec<usize>,
    },
    Load {
        to: usize,
        lanes: usize,
        bytes: usize,
        ptr: usize,
        offset: i32,
        align: u32,
        constant: bool,
    },
    Store {
        from: usize,
        lanes: usize,
        bytes: usize,
        ptr: usize,
        offset: i32,
        align: u32,
    },
    Stack {
        to: usize,
        bytes: u32,
    },
    /// Leaves the loop unless `i < hi`.
    LoopTest {
        i: usize,
        hi: usize,
        step: usize,
        exit: usize,
    },
    LoopNext {
        i: usize,
        step: usize,
        head: usize,
    },
    /// Jumps unless the truth value holds.
    Unless {
        cond: usize,
        target: usize,
    },
    Jump {
        target: usize,
    },
    Call {
        function: usize,
        args: Vec<usize>,
    },
    /// This thread's number in its worker.
    Thread {
        to: usize,
    },
    /// Memory of the worker.
    Shared {
        to: usize,
    },
    Tiles(TileStep),
    Async(AsyncStep),
    Signal(SignalStep),
    /// Lets products see what this thread has written to shared memory.
    Fence,
    Meet(Meet),
    Return,
}
