//! CPU features that compiled code may need, as bits that are checked before its first instruction.

/// A CPU feature; the discriminant is its bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Feature {
    Sse42 = 0,
    Popcnt = 1,
    Avx = 2,
    Avx2 = 3,
    Fma = 4,
    F16c = 5,
    Bmi1 = 6,
    Bmi2 = 7,
    Lzcnt = 8,
    Movbe = 9,
    Avx512f = 10,
    Avx512bw = 11,
    Avx512cd = 12,
    Avx512dq = 13,
    Avx512vl = 14,
    Avx512Vnni = 15,
    Avx512Bf16 = 16,
    AmxTile = 17,
    AmxInt8 = 18,
    AmxBf16 = 19,
    AsimdDp = 20,
    I8mm = 21,
}

impl Feature {
    /// Every feature with its name as in /proc/cpuinfo and its name in LLVM.
    pub const TABLE: [(Feature, &'static str, &'static str); 22] = [
        (Feature::Sse42, "sse4_2", "sse4.2"),
        (Feature::Popcnt, "popcnt", "popcnt"),
        (Feature::Avx, "avx", "avx"),
        (Feature::Avx2, "avx2", "avx2"),
        (Feature::Fma, "fma", "fma"),
        (Feature::F16c, "f16c", "f16c"),
        (Feature::Bmi1, "bmi1", "bmi"),
        (Feature::Bmi2, "bmi2", "bmi2"),
        (Feature::Lzcnt, "abm", "lzcnt"),
        (Feature::Movbe, "movbe", "movbe"),
        (Feature::Avx512f, "avx512f", "avx512f"),
        (Feature::Avx512bw, "avx512bw", "avx512bw"),
        (Feature::Avx512cd, "avx512cd", "avx512cd"),
        (Feature::Avx512dq, "avx512dq", "avx512dq"),
        (Feature::Avx512vl, "avx512vl", "avx512vl"),
        (Feature::Avx512Vnni, "avx512_vnni", "avx512vnni"),
        (Feature::Avx512Bf16, "avx512_bf16", "avx512bf16"),
        (Feature::AmxTile, "amx_tile", "amx-tile"),
        (Feature::AmxInt8, "amx_int8", "amx-int8"),
        (Feature::AmxBf16, "amx_bf16", "amx-bf16"),
        (Feature::AsimdDp, "asimddp", "dotprod"),
        (Feature::I8mm, "i8mm", "i8mm"),
    ];

    /// The feature's bit in a mask.
    pub fn bit(self) -> u64 {
        1 << self as u8
    }

    /// Names, as in /proc/cpuinfo, of the features in `mask`.
    pub fn names(mask: u64) -> Vec<&'static str> {
        Self::TABLE.iter().filter(|(f, ..)| mask & f.bit() != 0).map(|(_, n, _)| *n).collect()
    }
}

/// Mask of the features that the CPU this runs on has (and the system saves the registers of).
pub fn detect() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        detect_x86()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        0
    }
}

#[cfg(target_arch = "x86_64")]
fn detect_x86() -> u64 {
    macro_rules! mask {
        ($($feature:ident $name:tt),* $(,)?) => {
            0 $(| if std::arch::is_x86_feature_detected!($name) { Feature::$feature.bit() } else { 0 })*
        };
    }
    let amx = amx_bits();
    amx | mask!(
        Sse42 "sse4.2", Popcnt "popcnt", Avx "avx", Avx2 "avx2", Fma "fma", F16c "f16c",
        Bmi1 "bmi1", Bmi2 "bmi2", Lzcnt "lzcnt", Movbe "movbe",
        Avx512f "avx512f", Avx512bw "avx512bw", Avx512cd "avx512cd", Avx512dq "avx512dq",
        Avx512vl "avx512vl", Avx512Vnni "avx512vnni", Avx512Bf16 "avx512bf16",
    )
}

/// AMX bits of CPUID leaf 7, if the system enables the tile state (XCR0 bits 17 and 18).
#[cfg(target_arch = "x86_64")]
fn amx_bits() -> u64 {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    #[target_feature(enable = "xsave")]
    fn xcr0() -> u64 {
        // SAFETY: reads a register; OSXSAVE was checked by the caller.
        unsafe { _xgetbv(0) }
    }
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & (1 << 27) == 0 {
        return 0;
    }
    // SAFETY: OSXSAVE is set, so xgetbv exists.
    if unsafe { xcr0() } & 0x6_0000 != 0x6_0000 {
        return 0;
    }
    let edx = __cpuid_count(7, 0).edx;
    [(22, Feature::AmxBf16), (24, Feature::AmxTile), (25, Feature::AmxInt8)]
        .iter()
        .filter(|(bit, _)| edx & (1 << bit) != 0)
        .fold(0, |m, (_, f)| m | f.bit())
}
