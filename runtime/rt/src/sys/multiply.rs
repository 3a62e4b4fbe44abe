//! Multiplying and adding as fast as a unit of the processor can, from registers alone: prefill is measured
//! against this.

use llmc_abi::manifest::Unit;
use llmc_abi::{Feature, features};

/// Iterations of a call.
pub const ROUNDS: usize = 100_000;

/// A loop over one instruction.
#[derive(Clone, Copy)]
pub struct Loop {
    /// The instruction's name, or how it is helped.
    pub name: &'static str,
    /// Multiplications and additions of [`ROUNDS`] iterations.
    pub operations: usize,
    #[cfg(target_arch = "x86_64")]
    run: unsafe fn(),
}

impl Loop {
    /// The fastest loop of a unit for code that may use `mask`, if this processor has it.
    pub fn new(unit: Unit, mask: u64) -> Option<Loop> {
        let usable = mask & features::detect();
        let has = |needed: &[Feature]| needed.iter().all(|f| usable & f.bit() != 0);
        #[cfg(target_arch = "x86_64")]
        return x86::TABLE.iter().find(|row| row.unit == unit && has(row.needs)).map(|row| row.of());
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Runs it once.
    pub fn run(&self) {
        // SAFETY: `new` saw that the processor has what the loop needs.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            (self.run)();
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Loop, ROUNDS};
    use llmc_abi::Feature;
    use llmc_abi::manifest::Unit;
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// A loop and what it needs.
    pub struct Row {
        pub unit: Unit,
        pub needs: &'static [Feature],
        name: &'static str,
        /// Multiplications and additions of an iteration.
        operations: usize,
        run: unsafe fn(),
    }

    impl Row {
        pub fn of(&self) -> Loop {
            Loop { name: self.name, operations: self.operations * ROUNDS, run: self.run }
        }
    }

    /// Sums in flight, enough to hide the latency of any of these instructions.
    const SUMS: usize = 12;

    /// Multiplications and additions of an iteration over tiles.
    const TILE_OPERATIONS: usize = 4 * 2 * 16 * 16 * 64;

    /// Best first. Where bf16 has no instruction of its own it is multiplied as f32.
    #[rustfmt::skip]
    pub const TABLE: [Row; 14] = [
        Row { unit: Unit::Int8Tiles, needs: &[Feature::AmxInt8], name: "tdpbsud", operations: TILE_OPERATIONS, run: tiles_i8 },
        Row { unit: Unit::Bf16Tiles, needs: &[Feature::AmxBf16], name: "tdpbf16ps", operations: TILE_OPERATIONS / 2, run: tiles_bf16 },
        Row { unit: Unit::Int8, needs: &[Feature::Avx512Vnni], name: "vpdpbusd", operations: 128 * SUMS, run: vnni },
        Row { unit: Unit::Int8, needs: &[Feature::Avx2], name: "vpmaddwd, vpaddd", operations: 32 * SUMS, run: madd },
        Row { unit: Unit::Int8, needs: &[], name: "pmaddwd, paddd", operations: 16 * SUMS, run: madd_sse },
        Row { unit: Unit::SmallInt8, needs: &[Feature::Avx2], name: "vpmaddubsw, vpaddw", operations: 64 * SUMS, run: pairs },
        Row { unit: Unit::SmallInt8, needs: &[Feature::Sse42], name: "pmaddubsw, paddw", operations: 32 * SUMS, run: pairs_sse },
        Row { unit: Unit::Bf16, needs: &[Feature::Avx512Bf16], name: "vdpbf16ps", operations: 64 * SUMS, run: bf16 },
        Row { unit: Unit::Bf16, needs: &[Feature::Avx512f], name: "vfmadd, 512 bits", operations: 32 * SUMS, run: fma512 },
        Row { unit: Unit::Bf16, needs: &[Feature::Avx2, Feature::Fma], name: "vfmadd, 256 bits", operations: 16 * SUMS, run: fma256 },
        Row { unit: Unit::Bf16, needs: &[], name: "mulps, addps", operations: 8 * SUMS, run: sse },
        Row { unit: Unit::F32, needs: &[Feature::Avx512f], name: "vfmadd, 512 bits", operations: 32 * SUMS, run: fma512 },
        Row { unit: Unit::F32, needs: &[Feature::Avx2, Feature::Fma], name: "vfmadd, 256 bits", operations: 16 * SUMS, run: fma256 },
        Row { unit: Unit::F32, needs: &[], name: "mulps, addps", operations: 8 * SUMS, run: sse },
    ];

    macro_rules! multiplier {
        ($name:ident, $features:literal, $x:expr, $zero:expr, |$sum:ident, $v:ident| $step:expr) => {
            /// The loop over one instruction; needs the features of its row.
            #[target_feature(enable = $features)]
            fn $name() {
                let $v = black_box($x);
                let mut sums = [black_box($zero); SUMS];
                for _ in 0..ROUNDS {
                    for sum in &mut sums {
                        let $sum = *sum;
                        *sum = $step;
                    }
                }
                black_box(sums);
            }
        };
    }

    multiplier!(vnni, "avx512f,avx512vnni", _mm512_set1_epi8(1), _mm512_setzero_si512(), |s, v| _mm512_dpbusd_epi32(
        s, v, v
    ));
    multiplier!(madd, "avx2", _mm256_set1_epi16(1), _mm256_setzero_si256(), |s, v| _mm256_add_epi32(
        s,
        _mm256_madd_epi16(s, v)
    ));
    multiplier!(madd_sse, "sse2", _mm_set1_epi16(1), _mm_setzero_si128(), |s, v| _mm_add_epi32(
        s,
        _mm_madd_epi16(s, v)
    ));
    multiplier!(pairs, "avx2", _mm256_set1_epi8(1), _mm256_setzero_si256(), |s, v| _mm256_add_epi16(
        s,
        _mm256_maddubs_epi16(s, v)
    ));
    multiplier!(pairs_sse, "ssse3", _mm_set1_epi8(1), _mm_setzero_si128(), |s, v| _mm_add_epi16(
        s,
        _mm_maddubs_epi16(s, v)
    ));
    multiplier!(
        bf16,
        "avx512f,avx512bf16",
        // SAFETY: vectors of one size, and every bit pattern is a bf16.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi16(0x3F80)) },
        _mm512_setzero_ps(),
        |s, v| _mm512_dpbf16_ps(s, v, v)
    );
    multiplier!(fma512, "avx512f", _mm512_set1_ps(0.5), _mm512_setzero_ps(), |s, v| _mm512_fmadd_ps(v, v, s));
    multiplier!(fma256, "avx2,fma", _mm256_set1_ps(0.5), _mm256_setzero_ps(), |s, v| _mm256_fmadd_ps(v, v, s));
    multiplier!(sse, "sse2", _mm_set1_ps(0.5), _mm_setzero_ps(), |s, v| _mm_add_ps(s, _mm_mul_ps(s, v)));

    /// A configuration of eight full tiles (Intel SDM, volume 1, chapter 18).
    #[repr(C, align(64))]
    struct TileConfig {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    macro_rules! tile_multiplier {
        ($name:ident, $instruction:literal) => {
            /// The loop over one instruction; needs the features of its row, and the kernel's leave to use tiles.
            fn $name() {
                let eight = |full: u8| std::array::from_fn(|tile| if tile < 8 { full } else { 0 });
                let (rows, row_bytes) = (eight(16), eight(64).map(u16::from));
                let config = TileConfig { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows };
                // SAFETY: the processor has tiles and the configuration is valid; no memory is written.
                unsafe {
                    asm!(
                        "ldtilecfg [{config}]",
                        "2:",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        concat!($instruction, " tmm1, tmm4, tmm7"),
                        concat!($instruction, " tmm2, tmm5, tmm6"),
                        concat!($instruction, " tmm3, tmm5, tmm7"),
                        "dec {rounds}",
                        "jnz 2b",
                        "tilerelease",
                        config = in(reg) &raw const config,
                        rounds = inout(reg) ROUNDS => _,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack, readonly),
                    );
                }
            }
        };
    }

    tile_multiplier!(tiles_i8, "tdpbsud");
    tile_multiplier!(tiles_bf16, "tdpbf16ps");
}
