//! Hashes of the lookup and merge tables, the same where they are written and where they are read.

const K: u64 = 0x9E37_79B9_7F4A_7C15;

/// Hash of a token's bytes.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u32 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let mut h = (bytes.len() as u64).wrapping_mul(K);
    for chunk in chunks {
        h = mix(h ^ u64::from_le_bytes(*chunk));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    (mix(h ^ u64::from_le_bytes(last)) >> 32) as u32
}

/// Hash of a pair of token ids.
#[inline]
pub fn hash_pair(left: u32, right: u32) -> u32 {
    (mix((left as u64) << 24 ^ right as u64) >> 32) as u32
}

#[inline]
fn mix(x: u64) -> u64 {
    let x = x.wrapping_mul(K);
    (x ^ (x >> 32)).wrapping_mul(K)
}

/// First slot to probe, in a table of `slots`.
#[inline]
pub fn slot_of(hash: u32, slots: u32) -> u32 {
    ((hash as u64 * slots as u64) >> 32) as u32
}
