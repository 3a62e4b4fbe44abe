//! A model made of a few lines of Rust in place of compiled code: it keeps its tokens in the KV
//! pages, meets the barrier twice a step, and its logits depend on every token of the sequence.

use llmc_abi::manifest::{KvInfo, ModelInfo, PhaseInfo, StepInfo, VariantInfo};
use llmc_abi::{Manifest, StepArgs};
use llmc_rt::engine::{Engine, Options};
use llmc_rt::error::Result;
use llmc_rt::sys::step::llmc_barrier;

pub const VOCAB: usize = 97;
pub const PAGE_POSITIONS: usize = 4;

pub fn manifest() -> Manifest {
    let phase = |name: &str| PhaseInfo { kernels: vec![name.into()], count: 1, ..Default::default() };
    Manifest {
        version: llmc_abi::manifest::VERSION,
        name: "fake".into(),
        architecture: "fake".into(),
        model: ModelInfo { vocab: VOCAB, context: 50, ..Default::default() },
        step: StepInfo { tokens: 16, rows: 8 },
        kv: KvInfo { dtype: "f32".into(), page_positions: PAGE_POSITIONS, page_bytes: 64, ..KvInfo::default() },
        variants: vec![VariantInfo {
            target: "fake".into(),
            arena_bytes: 64,
            worker_bytes: 64,
            phases: vec![phase("store"), phase("logits")],
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub fn engine(options: Options) -> Result<Engine> {
    // SAFETY: the step below matches the manifest above, needs no CPU feature and reads no weights.
    unsafe { Engine::new(&manifest(), llmc_rt::engine::Runner::Cpu(step), &[], &options) }
}

/// Address of the KV slot of a position.
unsafe fn slot(args: &StepArgs, seq: i32, position: i32) -> *mut u32 {
    let (block, within) = (position as usize / PAGE_POSITIONS, position as usize % PAGE_POSITIONS);
    // SAFETY: the engine gave the position a page.
    unsafe {
        let page = *args.page_table.add(seq as usize * args.page_table_stride as usize + block);
        args.kv.add(page as usize * 64).cast::<u32>().add(within)
    }
}

unsafe extern "C" fn step(args: *const StepArgs, worker: i64, workers: i64) {
    // SAFETY: the engine fulfils the contract of StepArgs.
    unsafe {
        let a = &*args;
        for i in (worker..a.n_tokens).step_by(workers as usize) {
            let i = i as usize;
            *slot(a, *a.seqs.add(i), *a.positions.add(i)) = *a.ids.add(i) as u32;
        }
        llmc_barrier(args, worker, workers, 0);
        for r in (worker..a.n_rows).step_by(workers as usize) {
            let row = *a.rows.add(r as usize) as usize;
            let (seq, position) = (*a.seqs.add(row), *a.positions.add(row));
            let hash = (0..=position).fold(7u32, |h, p| (h * 31 + *slot(a, seq, p) + 1) % VOCAB as u32);
            for token in 0..VOCAB {
                *a.logits.add(r as usize * VOCAB + token) = -((token as f32 - hash as f32).abs());
            }
        }
        llmc_barrier(args, worker, workers, 1);
    }
}
