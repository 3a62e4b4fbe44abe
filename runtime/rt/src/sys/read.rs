//! Reading memory as fast as it comes, with the widest loads of this CPU: bandwidth is measured
//! against this.
//!
//! Each line meets a word of a small row, as in a product with a row: a core whose window is full of nothing but loads
//! that wait for memory reads up to a tenth less.

/// Bytes of a line.
const LINE: usize = 64;
/// Lines by which a stream advances at a time.
const STEP: usize = 4;

/// Numbers of parallel streams that [`read_streams`] knows.
pub const STREAMS: [usize; 5] = [1, 2, 4, 8, 16];

/// The row: zeros, which the compiler does not know.
static ROW: [i32; STEP] = [0; STEP];

/// A line as it lies in memory.
type Line = [u8; LINE];

/// Reads all whole lines of `bytes` as so many parallel streams (one of [`STREAMS`]), each over a
/// part of its own, and returns the exclusive or of their words, so that no read can be left out.
pub fn read_streams(bytes: &[u8], streams: usize) -> u64 {
    let lines = bytes.as_chunks::<LINE>().0;
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has AVX-512F.
            return unsafe { x86::read_avx512(lines, streams) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has AVX2.
            return unsafe { x86::read_avx2(lines, streams) };
        }
    }
    lines.iter().fold(0, |sum, line| sum ^ fold(line))
}

/// Exclusive or of a line's words.
fn fold(line: &Line) -> u64 {
    line.as_chunks::<8>().0.iter().fold(0, |sum, word| sum ^ u64::from_ne_bytes(*word))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Line, ROW, STEP, fold};
    use std::arch::x86_64::*;

    macro_rules! reader {
        ($name:ident, $feature:literal, $vector:ty, $parts:literal, $load:expr, $splat:ident, $xor:ident, $zero:ident) => {
            #[target_feature(enable = $feature)]
            pub fn $name(lines: &[Line], streams: usize) -> u64 {
                #[target_feature(enable = $feature)]
                fn run<const N: usize>(lines: &[Line]) -> u64 {
                    let part = lines.len() / N / STEP * STEP;
                    let mut sums = [[$zero(); $parts]; N];
                    for i in (0..part).step_by(STEP) {
                        for (n, sum) in sums.iter_mut().enumerate() {
                            let first = n * part + i;
                            for (line, word) in lines[first..first + STEP].iter().zip(&ROW) {
                                // SAFETY: a reference may be read.
                                let zeros = $splat(unsafe { std::ptr::read_volatile(word) });
                                for (j, sum) in sum.iter_mut().enumerate() {
                                    // SAFETY: the line has 64 bytes, `$parts` vectors.
                                    let v = unsafe { $load(line.as_ptr().cast::<$vector>().add(j)) };
                                    *sum = $xor(*sum, $xor(v, zeros));
                                }
                            }
                        }
                    }
                    let rest = lines[part * N..].iter().fold(0, |sum, line| sum ^ fold(line));
                    sums.into_iter().fold(rest, |sum, stream| {
                        // SAFETY: vectors and bytes have one size, and every bit pattern is valid.
                        sum ^ fold(&unsafe { std::mem::transmute::<[$vector; $parts], Line>(stream) })
                    })
                }
                match streams {
                    16 => run::<16>(lines),
                    8 => run::<8>(lines),
                    4 => run::<4>(lines),
                    2 => run::<2>(lines),
                    _ => run::<1>(lines),
                }
            }
        };
    }

    reader!(
        read_avx512,
        "avx512f",
        __m512i,
        1,
        _mm512_loadu_si512,
        _mm512_set1_epi32,
        _mm512_xor_si512,
        _mm512_setzero_si512
    );
    reader!(
        read_avx2,
        "avx2",
        __m256i,
        2,
        _mm256_loadu_si256,
        _mm256_set1_epi32,
        _mm256_xor_si256,
        _mm256_setzero_si256
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_count_reads_every_line() {
        let bytes: Vec<u8> = (0..64 * 137 + 5).map(|i| (i * 31 % 251) as u8).collect();
        let words = bytes[..64 * 137].as_chunks::<8>().0;
        let expected = words.iter().fold(0, |sum, w| sum ^ u64::from_ne_bytes(*w));
        for streams in STREAMS {
            assert_eq!(read_streams(&bytes, streams), expected, "{streams} streams");
        }
    }
}
