//! Consecutive calls of one block, which a step runs as a loop.

use llmc_ir::{BlockId, Module};

/// Calls `first .. first + count` of the module, all of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallRun {
    /// The block.
    pub block: BlockId,
    /// Index of the first call.
    pub first: usize,
    /// Number of calls.
    pub count: usize,
}

/// Groups a module's calls. Calls whose KV layers do not follow one another start a new run.
pub fn group(module: &Module) -> Vec<CallRun> {
    let mut runs: Vec<CallRun> = Vec::new();
    for (i, call) in module.calls.iter().enumerate() {
        let follows = |run: &CallRun| {
            let before = &module.calls[i - 1];
            run.block == call.block && before.kv.map(|l| l + 1) == call.kv
        };
        match runs.last_mut() {
            Some(run) if follows(run) => run.count += 1,
            _ => runs.push(CallRun { block: call.block, first: i, count: 1 }),
        }
    }
    runs
}

/// Number of calls of each block.
pub fn calls_per_block(module: &Module) -> Vec<usize> {
    let mut counts = vec![0; module.blocks.len()];
    for call in &module.calls {
        counts[call.block.0 as usize] += 1;
    }
    counts
}
