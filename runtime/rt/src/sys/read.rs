//! Reading memory as fast as it comes, with the widest loads of this CPU: bandwidth is measured
//! against this.

/// Bytes of a line; every stream advances by one at a time.
const LINE: usize = 64;

/// Reads all whole lines of `bytes` as `streams` (1, 4 or 8) parallel streams and returns their
/// exclusive or, so that no read can be left out.
pub fn read_streams(bytes: &[u8], streams: usize) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has AVX-512F.
            return unsafe { read_avx512(bytes, streams) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has AVX2.
            return unsafe { read_avx2(bytes, streams) };
        }
    }
    read_any(bytes, streams)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn read_avx512(bytes: &[u8], streams: usize) -> u64 {
    read_any(bytes, streams)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn read_avx2(bytes: &[u8], streams: usize) -> u64 {
    read_any(bytes, streams)
}

#[inline(always)]
fn read_any(bytes: &[u8], streams: usize) -> u64 {
    match streams {
        8 => read_n::<8>(bytes),
        4 => read_n::<4>(bytes),
        _ => read_n::<1>(bytes),
    }
}

/// `N` streams, each over its own contiguous part.
#[inline(always)]
fn read_n<const N: usize>(bytes: &[u8]) -> u64 {
    let lines = bytes.as_chunks::<LINE>().0;
    let part = lines.len() / N;
    let parts: [&[[u8; LINE]]; N] = std::array::from_fn(|n| &lines[n * part..(n + 1) * part]);
    let mut sums = [[0u64; LINE / 8]; N];
    for i in 0..part {
        for (sum, part) in sums.iter_mut().zip(&parts) {
            xor_line(sum, &part[i]);
        }
    }
    for line in &lines[part * N..] {
        xor_line(&mut sums[0], line);
    }
    sums.iter().flatten().fold(0, |a, b| a ^ b)
}

#[inline(always)]
fn xor_line(sum: &mut [u64; LINE / 8], line: &[u8; LINE]) {
    for (word, bytes) in sum.iter_mut().zip(line.as_chunks::<8>().0) {
        *word ^= u64::from_ne_bytes(*bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_count_reads_every_line() {
        let bytes: Vec<u8> = (0..64 * 37 + 5).map(|i| (i * 31 % 251) as u8).collect();
        let words = bytes[..64 * 37].as_chunks::<8>().0;
        let expected = words.iter().fold(0, |sum, w| sum ^ u64::from_ne_bytes(*w));
        for streams in [1, 4, 8] {
            assert_eq!(read_streams(&bytes, streams), expected, "{streams} streams");
        }
    }
}
