//! The values an instruction reads.

use super::func::Val;
use super::inst::Op;

impl Op {
    /// The values this instruction reads itself, in order; not those its regions read.
    pub fn operands(&self) -> Vec<Val> {
        let mut copy = self.without_regions();
        copy.operands_mut().into_iter().map(|v| *v).collect()
    }

    /// A copy whose regions are empty.
    pub(super) fn without_regions(&self) -> Op {
        use super::func::Region;
        match self {
            Op::For { lo, hi, step, init, .. } => {
                Op::For { lo: *lo, hi: *hi, step: *step, init: init.clone(), body: Region::default() }
            }
            Op::If { cond, .. } => Op::If { cond: *cond, then: Region::default(), els: Region::default() },
            other => other.clone(),
        }
    }

    /// As [`Op::operands`], to be replaced.
    pub fn operands_mut(&mut self) -> Vec<&mut Val> {
        match self {
            Op::Int(_)
            | Op::Float(_)
            | Op::Stack { .. }
            | Op::Barrier { .. }
            | Op::Arrive
            | Op::Await { .. }
            | Op::Thread
            | Op::Shared { .. }
            | Op::GroupBarrier
            | Op::WarpBarrier
            | Op::SharedFence
            | Op::AsyncCommit
            | Op::AsyncWait { .. } => vec![],
            Op::Un(_, a) | Op::Cast(_, a) | Op::Splat(a) | Op::Extract(a, _) => vec![a],
            Op::Load { ptr, .. } | Op::Prefetch { ptr, .. } => vec![ptr],
            Op::If { cond, .. } => vec![cond],
            Op::Bin(_, a, b) | Op::Cmp(_, a, b) | Op::Shuffle(a, b, _) | Op::PtrAdd(a, b) | Op::Insert(a, _, b) => {
                vec![a, b]
            }
            Op::Store { ptr, value, .. } => vec![ptr, value],
            Op::LaneXor { value, .. } => vec![value],
            Op::LoadMatrix { ptr } | Op::Fetch { ptr, .. } => vec![ptr],
            Op::Mma { acc, a, b, .. } | Op::Wgmma { acc, a, b, .. } => vec![acc, a, b],
            Op::WgmmaWait { sums, kept } => std::iter::once(sums).chain(kept).collect(),
            Op::LastOf { counter, add, .. } => vec![counter, add],
            Op::AsyncCopy { to, from, .. } => vec![to, from],
            Op::SignalBegin { ptr, .. } | Op::SignalEnd { ptr } => vec![ptr],
            Op::SignalWait { ptr, parity } => vec![ptr, parity],
            Op::BulkCopy { to, from, signal, .. } => vec![to, from, signal],
            Op::Table16 { table, index } | Op::Lookup16 { table, index } => vec![table, index],
            Op::Fma(a, b, c) | Op::Select(a, b, c) => vec![a, b, c],
            Op::Dot2Bf16 { acc, a, b } | Op::Dot4I8 { acc, a, b } | Op::Dot2I8 { acc, a, b } => vec![acc, a, b],
            Op::AddHalves { acc, a } => vec![acc, a],
            Op::Tiles { x, panels, sums, rows, .. } => vec![x, panels, sums, rows],
            Op::For { lo, hi, step, init, .. } => [lo, hi, step].into_iter().chain(init).collect(),
            Op::Call { args, .. } => args.iter_mut().collect(),
        }
    }
}
