//! The artifact's last segment: a header, the manifest, the tokenizer and the packed weights.
//!
//! The segment starts with a [`Header`] of 4096 bytes; sections follow at multiples of 4096, the
//! weights at a multiple of 2 MiB. All integers are little-endian.

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
}
