//! One step of the model: a compiled function that every worker runs.

use core::ffi::{c_char, c_void};

/// What a step reads and writes. Ragged: the tokens of all sequences stand one after another.
///
/// Every pointer is valid for the whole step and, but for `sync`, aligned to 64 bytes. A token's
/// position must already have a page in its sequence's row of the page table.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StepArgs {
    /// Packed weights, the payload section of that name.
    pub weights: *const u8,
    /// `arena_bytes + workers * worker_bytes` bytes of scratch.
    pub arena: *mut u8,
    /// KV pages: page `p` starts at `kv + p * page_bytes`.
    pub kv: *mut u8,
    /// `n_rows * vocab` results, row-major.
    pub logits: *mut f32,
    /// Token ids, `n_tokens` of them, each below the vocabulary's size.
    pub ids: *const i32,
    /// Position of each token in its sequence.
    pub positions: *const i32,
    /// Sequence of each token, below `n_seqs`.
    pub seqs: *const i32,
    /// Indices of the tokens whose logits are wanted, `n_rows` of them.
    pub rows: *const i32,
    /// Page of block `b` of sequence `s` at `page_table[s * page_table_stride + b]`.
    pub page_table: *const i32,
    /// Blocks per row of the page table.
    pub page_table_stride: i64,
    /// Tokens in this step, 1..=`tokens_per_step`.
    pub n_tokens: i64,
    /// Rows wanted, 0..=`rows_per_step`.
    pub n_rows: i64,
    /// Sequences in this step.
    pub n_seqs: i64,
    /// The runtime's barrier state; compiled code only passes it on.
    pub sync: *mut c_void,
    /// On a GPU, `2 * n_rows` tokens chosen where [`Sampling`] asks for it: first those of the rows, 0 where no
    /// logit is a number, so that a next step may read them as its ids; then the same with -1 there.
    /// Null on a CPU.
    pub sampled: *mut i32,
    /// On a GPU, how tokens are chosen. Null on a CPU.
    pub sampling: *const Sampling,
}

/// How a step on a GPU chooses a token for each of its rows. The form of a step for many tokens chooses none.
///
/// The token is the one with the largest `logit + temperature * noise`, the first of equal ones, among those
/// that are kept: of all tokens the `top_k` with the largest logits; of these the ones with the largest logits that
/// together reach the share `top_p` of their probability at this temperature; of these the ones whose logit is at most
/// `margin` below the largest. Tokens with equal logits are all kept, or none of them. The noise of a token at a position is standard Gumbel:
/// `-ln(-ln(1 - (n + 1/2) / 2^31))` where n is the upper 31 bits of output `token` of SplitMix64 seeded with
/// output `position` of SplitMix64 seeded with `seed`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the largest logit.
    pub temperature: f32,
    /// `-temperature * ln(min_p)`; infinite keeps all.
    pub margin: f32,
    /// 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// Seed of the noise.
    pub seed: u64,
    /// 1: tokens are chosen; 0: they are not.
    pub choose: i64,
}

impl Sampling {
    /// Chooses no tokens.
    pub const NONE: Sampling =
        Sampling { temperature: 0.0, margin: f32::INFINITY, top_p: 1.0, top_k: 0, seed: 0, choose: 0 };

    /// It as it lies in memory.
    pub fn words(&self) -> [u64; 4] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let first = pair(self.temperature.to_bits(), self.margin.to_bits());
        [first, pair(self.top_p.to_bits(), self.top_k), self.seed, self.choose as u64]
    }
}

/// Byte offsets of the fields of [`StepArgs`], for code generation: (name, offset).
pub const STEP_FIELDS: [(&str, usize); 16] = [
    ("weights", core::mem::offset_of!(StepArgs, weights)),
    ("arena", core::mem::offset_of!(StepArgs, arena)),
    ("kv", core::mem::offset_of!(StepArgs, kv)),
    ("logits", core::mem::offset_of!(StepArgs, logits)),
    ("ids", core::mem::offset_of!(StepArgs, ids)),
    ("positions", core::mem::offset_of!(StepArgs, positions)),
    ("seqs", core::mem::offset_of!(StepArgs, seqs)),
    ("rows", core::mem::offset_of!(StepArgs, rows)),
    ("page_table", core::mem::offset_of!(StepArgs, page_table)),
    ("page_table_stride", core::mem::offset_of!(StepArgs, page_table_stride)),
    ("n_tokens", core::mem::offset_of!(StepArgs, n_tokens)),
    ("n_rows", core::mem::offset_of!(StepArgs, n_rows)),
    ("n_seqs", core::mem::offset_of!(StepArgs, n_seqs)),
    ("sync", core::mem::offset_of!(StepArgs, sync)),
    ("sampled", core::mem::offset_of!(StepArgs, sampled)),
    ("sampling", core::mem::offset_of!(StepArgs, sampling)),
];

/// A compiled step. All of `workers` threads call it with the same arguments and their own
/// `worker` in `0..workers`; it returns in each when the step is done.
pub type StepFn = unsafe extern "C" fn(args: *const StepArgs, worker: i64, workers: i64);

/// Symbol that compiled code calls between phases: `fn(args, worker, workers, phase)`. It returns
/// when every worker has called it. `phase` is the index in the variant's list of the phase that
/// has just ended.
pub const BARRIER_SYMBOL: &str = "llmc_barrier";

/// Symbol of the table of [`Variant`]s in an artifact; as many as the manifest lists, in its order.
pub const VARIANTS_SYMBOL: &str = "llmc_variants";

/// Symbol of a `u64`, the number of entries of that table.
pub const VARIANTS_LEN_SYMBOL: &str = "llmc_variants_len";

/// Symbol of a compiled step for the target with this name; `-` in it becomes `_`.
pub fn step_symbol(target: &str) -> String {
    format!("llmc_step_{}", target.replace(['-', ':'], "_"))
}

/// Symbol of the kernel that runs a step on a GPU, given the step's symbol. Its parameter is the address of
/// [`StepArgs`] on the device; every block is a worker.
pub fn kernel_symbol(step: &str) -> String {
    format!("{step}_kernel")
}

/// On a GPU `StepArgs::sync` is memory of the device, zero at first: a counter of 8 bytes for barriers, from
/// here on the clock ticks that worker 0 spent in each phase (8 bytes each), then counters of kernels.
pub const SYNC_PHASES: usize = 128;

/// One entry of the artifact's table of compiled steps.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// The step.
    pub step: StepFn,
    /// CPU features it needs, bits of [`crate::features::Feature`].
    pub features: u64,
    /// Name of its target, NUL-terminated.
    pub target: *const c_char,
}
