//! How kernels use a target's registers. Data, never part of the numbers: a schedule changes which
//! products are in flight together, not the order in which any of them is summed; `tile_sums` alone does, which
//! follows from the target's features.

use crate::env::Env;
use crate::formats::WeightFormat;
use crate::kir::{CacheLevel, Val};
use crate::layout::ALIGN;
use crate::target::Target;
use llmc_abi::Feature;

/// Register tiling of the products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// GEMM tiles, in the order in which a step's tokens are cut into them; what is left over goes
    /// through GEMV.
    pub gemm: &'static [Tile],
    /// Tile of an integer GEMM whose sums stay integers to the end of a row.
    pub int_gemm: &'static [Tile],
    /// Tile of an integer GEMM with scales for groups of k: two sums each.
    pub int_gemm_groups: &'static [Tile],
    /// Tiles of an integer GEMV for several rows that are too few for a GEMM, the largest first: of one panel each where
    /// one stream is read fastest.
    pub int_gemv: &'static [Tile],
    /// Least rows of an integer GEMM.
    pub int_gemm_rows: usize,
    /// How a GEMV reads weights in bytes with one scale for a row.
    pub byte_gemv: Streams,
    /// The same of floats.
    pub float_gemv: Streams,
    /// The same of codes of fewer than 8 bits with one scale for a row.
    pub packed_gemv: Streams,
    /// The same of codes whose groups have scales, and sums of their own.
    pub grouped_gemv: Streams,
    /// The same of codes that stand for floats.
    pub coded_gemv: Streams,
    /// Elements of k for which a GEMM keeps its input tile in the first-level cache.
    pub gemm_k_block: usize,
    /// The same for rows of bytes.
    pub int_gemm_k_block: usize,
    /// Query heads whose scores are in flight together in attention.
    pub attention_heads: usize,
    /// Elements of values that attention accumulates in registers, those of all heads in flight together.
    pub attention_values: usize,
    /// Positions, or elements of values, that attention of several tokens accumulates in registers.
    pub attention_rows: usize,
    /// Whether products of small codes are best summed in 16 bits first: where four byte products are no
    /// instruction, but two are.
    pub halves: bool,
    /// Whether numbers are looked up in a vector of 16 rather than byte by byte.
    pub lookup: bool,
    /// Whether products of many rows go through the processor's tiles.
    pub matrix: bool,
    /// Whether products of bf16 are summed as the processor's tiles sum them, be they made there or not.
    pub tile_sums: bool,
    /// Whether a group of threads multiplies by tiles in shared memory, for steps of many tokens.
    pub tiles: bool,
}

/// How a GEMV reads weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Panels that are read at once.
    pub panels: usize,
    /// Bytes that are asked for ahead in each panel: of packed codes always, of others where side regions or the panels
    /// that come next begin.
    pub prefetch: usize,
    /// Where they are brought.
    pub into: CacheLevel,
}

impl Streams {
    /// Asks for what stands so many bytes behind.
    pub fn ask(&self, bytes: usize) -> Ahead {
        Ahead { bytes, into: self.into }
    }
}

/// What is asked for before it is needed: a place so many bytes behind what is needed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Bytes behind.
    pub bytes: usize,
    /// Where it is brought.
    pub into: CacheLevel,
}

impl Ahead {
    /// Asks for the cache line so far behind `ptr`.
    pub fn emit(&self, env: &mut Env, ptr: Val) {
        self.emit_bytes(env, ptr, 1);
    }

    /// Asks for the cache lines of some bytes.
    pub fn emit_bytes(&self, env: &mut Env, ptr: Val, bytes: usize) {
        let wanted = env.b.ptr_add_const(ptr, self.bytes);
        (0..bytes).step_by(ALIGN).for_each(|line| env.b.prefetch(wanted, line as i32, self.into));
    }
}

const fn streams(panels: usize, prefetch: usize) -> Streams {
    Streams { panels, prefetch, into: CacheLevel::L1 }
}

const fn streams_into_l2(panels: usize, prefetch: usize) -> Streams {
    Streams { panels, prefetch, into: CacheLevel::L2 }
}

/// A tile of a GEMM, whose sums are held in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Tokens.
    pub tokens: usize,
    /// Panels.
    pub panels: usize,
}

const fn tile(tokens: usize, panels: usize) -> Tile {
    Tile { tokens, panels }
}

/// AVX-512 without tiles (Zen 4 and 5): such a processor reads one stream fastest, which it follows by itself, unless
/// decoding leaves too few loads in flight: packed codes are asked for ahead, into the second cache, since the
/// first has too few places for lines on their way from memory. More streams where one would leave too few sums of floats
/// in flight.
const AVX512: Schedule = Schedule {
    gemm: &[tile(12, 2), tile(4, 4), tile(2, 4)],
    int_gemm: &[tile(12, 2), tile(4, 4)],
    int_gemm_groups: &[tile(12, 1), tile(4, 2)],
    int_gemv: &[tile(8, 1), tile(4, 1), tile(2, 1)],
    int_gemm_rows: 12,
    byte_gemv: streams(1, 0),
    float_gemv: streams(2, 0),
    packed_gemv: streams_into_l2(1, 8192),
    grouped_gemv: streams_into_l2(1, 8192),
    coded_gemv: streams_into_l2(4, 8192),
    gemm_k_block: 512,
    int_gemm_k_block: 1024,
    attention_heads: 4,
    attention_values: 256,
    attention_rows: 16,
    halves: false,
    lookup: true,
    matrix: false,
    tile_sums: false,
    tiles: false,
};

/// AVX-512 with tiles (Sapphire Rapids and later): several streams read a third more than one.
const AMX: Schedule = Schedule {
    byte_gemv: streams(4, 2048),
    float_gemv: streams(4, 2048),
    packed_gemv: streams(4, 2048),
    grouped_gemv: streams(4, 2048),
    coded_gemv: streams(4, 2048),
    int_gemv: &[],
    matrix: true,
    ..AVX512
};

/// AVX2.
const AVX2: Schedule = Schedule {
    gemm: &[tile(5, 1)],
    int_gemm: &[tile(4, 1)],
    int_gemm_groups: &[tile(2, 1)],
    int_gemv: &[],
    int_gemm_rows: 1,
    lookup: false,
    byte_gemv: streams(2, 2048),
    float_gemv: streams(2, 2048),
    packed_gemv: streams_into_l2(2, 8192),
    grouped_gemv: streams_into_l2(2, 8192),
    coded_gemv: streams(2, 2048),
    int_gemm_k_block: 512,
    attention_heads: 2,
    attention_values: 64,
    attention_rows: 4,
    ..AVX512
};

/// Vectors of 128 bits.
const NARROW: Schedule = Schedule {
    gemm: &[tile(2, 1)],
    int_gemm: &[tile(2, 1)],
    int_gemm_groups: &[tile(1, 1)],
    byte_gemv: streams(1, 2048),
    float_gemv: streams(1, 2048),
    packed_gemv: streams(1, 2048),
    grouped_gemv: streams(1, 2048),
    coded_gemv: streams(1, 2048),
    attention_heads: 1,
    attention_values: 32,
    attention_rows: 2,
    ..AVX2
};

impl Schedule {
    /// The tiling for code with vectors of at most `max_vector_bytes` on this target.
    pub fn new(target: &Target, max_vector_bytes: usize) -> Schedule {
        let width = if target.has(Feature::Avx512f) {
            64
        } else if target.has(Feature::Avx2) {
            32
        } else {
            16
        };
        let width = width.min(max_vector_bytes);
        let tile_sums = target.has(Feature::AmxInt8) && target.has(Feature::AmxBf16);
        // A code generator of narrow vectors has no VPDPBUSD either.
        let fours = target.has(Feature::Avx512Vnni) && width == 64;
        let halves = target.has_byte_pairs() && !fours;
        let schedule = match width {
            64 if tile_sums => AMX,
            64 => AVX512,
            32 => AVX2,
            _ => NARROW,
        };
        Schedule { halves, tile_sums, ..schedule }
    }

    /// How a GEMV reads weights of a format.
    pub fn streams(&self, format: WeightFormat) -> Streams {
        match format {
            WeightFormat::Quant(scheme) if scheme.is_float() => self.coded_gemv,
            WeightFormat::Quant(scheme) if scheme.group().is_some() => self.grouped_gemv,
            WeightFormat::Quant(scheme) if scheme.code_bits() < 8 => self.packed_gemv,
            WeightFormat::Quant(_) => self.byte_gemv,
            _ => self.float_gemv,
        }
    }
}
