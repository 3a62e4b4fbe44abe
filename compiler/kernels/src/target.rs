//! What a target processor offers.

use crate::ops::gpu::SHARED_BYTES;
use llmc_abi::Feature;

/// A processor level that code is generated for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name as on the command line: `x86-64-v3`.
    pub name: String,
    /// LLVM's triple.
    pub triple: &'static str,
    /// Mask of the CPU features that code may use; see [`llmc_abi::features`].
    pub features: u64,
    /// Threads of a worker: 1 on a CPU, a block's on a GPU.
    pub threads: usize,
    /// Compute capability of a GPU that code is for: major times ten plus minor. Code for 9.0 runs there alone.
    pub gpu_arch: u32,
    /// Whether the GPU's assembler may unroll loops: not in code that each phase of a step runs once or twice, all
    /// of which comes from far away.
    pub unrolls: bool,
}

use Feature::*;

const V2: &[Feature] = &[Sse42, Popcnt];
const V3: &[Feature] = &[Avx, Avx2, Fma, F16c, Bmi1, Bmi2, Lzcnt, Movbe];
const V4: &[Feature] = &[Avx512f, Avx512bw, Avx512cd, Avx512dq, Avx512vl];
const V4_DOT: &[Feature] = &[Avx512Vnni, Avx512Bf16];
const AMX: &[Feature] = &[AmxTile, AmxInt8, AmxBf16];
const ARM_DOT: &[Feature] = &[AsimdDp];
const ARM_I8MM: &[Feature] = &[I8mm];

/// Name, triple and features of every level. Features of a level include those above it.
/// `x86-64-v4` is the psABI level and the dot products that all its servers of interest have.
const LEVELS: &[(&str, &str, &[&[Feature]])] = &[
    ("x86-64-v2", "x86_64-unknown-linux-gnu", &[V2]),
    ("x86-64-v3", "x86_64-unknown-linux-gnu", &[V2, V3]),
    ("x86-64-v4", "x86_64-unknown-linux-gnu", &[V2, V3, V4, V4_DOT]),
    ("x86-64-amx", "x86_64-unknown-linux-gnu", &[V2, V3, V4, V4_DOT, AMX]),
    ("aarch64", "aarch64-unknown-linux-gnu", &[]),
    ("aarch64-dotprod", "aarch64-unknown-linux-gnu", &[ARM_DOT]),
    ("aarch64-i8mm", "aarch64-unknown-linux-gnu", &[ARM_DOT, ARM_I8MM]),
    ("cuda", "nvptx64-nvidia-cuda", &[]),
    ("cuda:sm_90a", "nvptx64-nvidia-cuda", &[]),
];

/// Shared memory of a block on a GPU of compute capability 9.0: 227 KiB, but for what barriers need.
const HOPPER_SHARED_BYTES: usize = 226 * 1024;
/// Threads of a worker on a GPU.
const GROUP: usize = 256;

impl Target {
    /// The target with this name, if llmc knows it.
    pub fn from_name(name: &str) -> Option<Target> {
        let (name, triple, sets) = LEVELS.iter().find(|(n, ..)| *n == name)?;
        let features = sets.iter().flat_map(|s| s.iter()).fold(0, |m, f| m | f.bit());
        let gpu_arch = match *name {
            "cuda" => 80,
            "cuda:sm_90a" => 90,
            _ => 0,
        };
        let threads = if triple.starts_with("nvptx") { GROUP } else { 1 };
        Some(Target { name: (*name).into(), triple, features, threads, gpu_arch, unrolls: true })
    }

    /// Names of all targets, weakest first within an architecture.
    pub fn names() -> impl DoubleEndedIterator<Item = &'static str> {
        LEVELS.iter().map(|(n, ..)| *n)
    }

    /// The best x86-64 level whose features are all in `available`.
    pub fn best(available: u64) -> Option<Target> {
        Target::names()
            .filter(|n| n.starts_with("x86-64"))
            .filter_map(Target::from_name)
            .rfind(|t| t.features & !available == 0)
    }

    /// Of a GPU, the target whose code is tuned to a generation and runs there alone.
    pub fn tuned(&self) -> Option<Target> {
        (self.name == "cuda").then(|| Target { name: "cuda:sm_90a".into(), gpu_arch: 90, ..self.clone() })
    }

    /// Shared memory of a worker that kernels may use, on a GPU.
    pub fn shared_bytes(&self) -> usize {
        if self.gpu_arch == 90 { HOPPER_SHARED_BYTES } else { SHARED_BYTES }
    }

    /// Whether this is a GPU with an engine that copies to shared memory.
    pub fn has_copy_engine(&self) -> bool {
        self.gpu_arch == 90
    }

    /// Whether this is a GPU on which the matrix units of four warps work together, with a factor in shared memory.
    pub fn has_wgmma(&self) -> bool {
        self.gpu_arch == 90
    }

    /// Whether this is a GPU.
    pub fn is_gpu(&self) -> bool {
        self.threads > 1
    }

    /// Whether code may use `feature`.
    pub fn has(&self, feature: Feature) -> bool {
        self.features & feature.bit() != 0
    }

    /// Whether products of unsigned and signed bytes are added in pairs by an instruction (SSSE3, which every level
    /// with SSE 4.2 has).
    pub fn has_byte_pairs(&self) -> bool {
        self.has(Feature::Sse42)
    }

    /// Whether a single-rounded multiply-add is an instruction.
    pub fn has_fma(&self) -> bool {
        self.has(Fma) || self.triple.starts_with("aarch64-")
    }
}
