//! The artifact's last segment: a header, the manifest, the tokenizer and the packed weights.
//!
//! The segment starts with a [`Header`] of 4096 bytes; sections follow at multiples of 4096, the
//! weights at a multiple of 2 MiB; what lies between is zero. All integers are little-endian.

use std::ops::Range;

/// First bytes of a payload.
pub const MAGIC: [u8; 8] = *b"LLMCPAY1";
/// Alignment of the payload in file and memory, and of the weights in the payload.
pub const ALIGN: u64 = 1 << 21;
/// Bytes of the header and alignment of the other sections.
pub const HEADER_BYTES: u64 = 4096;
/// Name of the ELF section that covers the payload.
pub const SECTION_NAME: &str = ".llmc.weights";

/// What a section of the payload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SectionKind {
    /// [`crate::Manifest`] as JSON.
    Manifest = 1,
    /// Tables of [`crate::tokenizer`]; absent where the model came without a tokenizer.
    Tokenizer = 2,
    /// Weights in the layout the kernels read.
    Weights = 3,
    /// Code for GPUs, [`crate::device`]; absent where there is none.
    Device = 4,
}

/// Where a section lies in the payload.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// A [`SectionKind`].
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// Byte offset from the payload's start.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// XXH3-64 of the bytes.
    pub checksum: u64,
}

/// The payload's first bytes; zero-padded to [`HEADER_BYTES`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// Bytes of the whole payload.
    pub len: u64,
    /// XXH3-64 of the bytes of all PT_LOAD segments before the payload, in order, as they lie in
    /// the file; the ELF header and program headers are left out, since `strip` rewrites them.
    pub code_checksum: u64,
    /// XXH3-64 of the header's bytes with this field zero.
    pub header_checksum: u64,
    /// Number of sections used.
    pub n_sections: u64,
    /// The sections.
    pub sections: [Section; 8],
    /// Bytes of the whole ELF file as it was written. `strip` makes a file shorter.
    pub file_len: u64,
    /// XXH3-64 of the file's bytes that neither `code_checksum` nor the payload covers, in order:
    /// headers, symbols, padding. Means something only while the file has `file_len` bytes.
    pub rest_checksum: u64,
}

impl Header {
    /// Bytes of the fields.
    pub const BYTES: usize = 40 + 8 * 32 + 16;

    /// The fields as they lie in the file.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let head = [self.len, self.code_checksum, self.header_checksum, self.n_sections];
        let section = |s: &Section| [u64::from(s.kind) | u64::from(s.reserved) << 32, s.offset, s.len, s.checksum];
        let words = head.into_iter().chain(self.sections.iter().flat_map(section));
        let words = words.chain([self.file_len, self.rest_checksum]);
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.magic);
        for (to, word) in bytes[8..].chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads the fields; checks nothing.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Header {
        let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|b| bytes[i * 8 + b]));
        let section = |s: usize| Section {
            kind: word(5 + s * 4) as u32,
            reserved: (word(5 + s * 4) >> 32) as u32,
            offset: word(6 + s * 4),
            len: word(7 + s * 4),
            checksum: word(8 + s * 4),
        };
        Header {
            magic: word(0).to_le_bytes(),
            len: word(1),
            code_checksum: word(2),
            header_checksum: word(3),
            n_sections: word(4),
            sections: std::array::from_fn(section),
            file_len: word(37),
            rest_checksum: word(38),
        }
    }
}

/// Ranges of the file that `code_checksum` covers: the PT_LOAD segments `loads` (file ranges, in
/// program header order, the payload left out) without the file's first `headers_end` bytes, where
/// the ELF header and the program headers lie.
pub fn code_ranges(loads: &[Range<u64>], headers_end: u64) -> Vec<Range<u64>> {
    loads.iter().map(|r| r.start.max(headers_end)..r.end).filter(|r| r.start < r.end).collect()
}

/// Ranges of a file of `file_len` bytes that `rest_checksum` covers: all that is in neither `code`
/// nor `payload`, in ascending order.
pub fn rest_ranges(code: &[Range<u64>], payload: Range<u64>, file_len: u64) -> Vec<Range<u64>> {
    let mut covered: Vec<Range<u64>> = code.iter().cloned().chain([payload, file_len..file_len]).collect();
    covered.sort_by_key(|r| (r.start, r.end));
    let mut at = 0;
    let mut rest = Vec::new();
    for range in covered {
        if at < range.start {
            rest.push(at..range.start);
        }
        at = at.max(range.end);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips() {
        let mut next = 0x0123_4567_89AB_CDEFu64;
        let mut word = || {
            next = next.rotate_left(9).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            next
        };
        let header = Header {
            magic: MAGIC,
            len: word(),
            code_checksum: word(),
            header_checksum: word(),
            n_sections: word(),
            sections: std::array::from_fn(|_| Section {
                kind: word() as u32,
                reserved: word() as u32,
                offset: word(),
                len: word(),
                checksum: word(),
            }),
            file_len: word(),
            rest_checksum: word(),
        };
        assert_eq!(Header::from_bytes(&header.to_bytes()), header);
        assert_eq!(size_of::<Header>(), Header::BYTES);
    }

    #[test]
    fn code_and_rest_cover_a_file_once() {
        let code = code_ranges(&[0..100, 200..300, 300..300], 64);
        assert_eq!(code, [64..100, 200..300]);
        assert_eq!(rest_ranges(&code, 400..500, 600), [0..64, 100..200, 300..400, 500..600]);
        assert_eq!(rest_ranges(&code, 300..500, 500), [0..64, 100..200]);
    }
}
