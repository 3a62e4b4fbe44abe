//! Memory aligned as KIR's buffers are.

use llmc_kernels::layout::ALIGN;

/// A cache line.
#[repr(C, align(64))]
#[derive(Clone)]
pub struct Line([u8; ALIGN]);

/// Bytes in lines, the last one filled up with zeros.
pub fn lines(bytes: &[u8]) -> Vec<Line> {
    bytes.chunks(ALIGN).map(|c| Line(std::array::from_fn(|i| c.get(i).copied().unwrap_or(0)))).collect()
}

/// The bytes of lines.
pub fn flat(lines: &[Line]) -> Vec<u8> {
    lines.iter().flat_map(|l| l.0).collect()
}
