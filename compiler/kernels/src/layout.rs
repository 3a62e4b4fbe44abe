//! How tensors lie in memory: facts shared by the kernels, the packer and the memory plan.
//!
//! - Activations: rows of f32, or of bf16 where only products read them; a row begins
//!   [`row_bytes`] after the one before. Reshapes that keep the outermost dimension are free.
//! - Weights `[N,K]`: panels of [`PANEL`] output rows in lanes, K running; see [`crate::formats`].
//! - KV cache: pages of [`PAGE`] positions. In a page, layers one after another; in a layer the
//!   keys as `[head][element][position]`, then the values as `[head][position][element]`. Keys lie
//!   transposed so that scores of 16 positions fill a vector. Behind the 8-bit integers of a head stand
//!   its positions' scales. Where attention is counted, each head's counts stand behind all values.

use llmc_abi::manifest::KvPlaces;

/// Output rows of a weight panel.
pub const PANEL: usize = 16;

/// Lanes of the f32 vectors that kernels are written with.
pub const LANES: u16 = 16;

/// Positions of a KV page, which is also a block of the attention kernel.
pub const PAGE: usize = llmc_abi::manifest::PAGE_POSITIONS;

/// Largest number of rows for which every worker runs a prologue redundantly, without a barrier.
pub const PROLOGUE_ROWS: usize = 8;

/// Alignment of buffers and weights in bytes.
pub const ALIGN: usize = 64;

/// Bytes from one row of `bytes` to the next: an odd number of cache lines, so that the same column
/// of several rows does not fall into one set of a cache.
pub const fn row_bytes(bytes: usize) -> usize {
    (bytes.div_ceil(ALIGN) | 1) * ALIGN
}

/// Panels that are handled together: their product lies in scratch when the epilogue runs. It
/// divides the number of panels, and depends on the shape alone since it orders packed weights.
pub fn unit_panels(panels: usize) -> usize {
    match panels {
        p if p % 4 == 0 && p >= 64 => 4,
        p if p % 2 == 0 && p >= 16 => 2,
        _ => 1,
    }
}

/// A layer's keys and values in a KV page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Key heads, and value heads.
    pub heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Bytes per element: 1 (with a scale for each position), 2 (binary16) or 4 (binary32).
    pub elem_bytes: usize,
    /// Whether elements of one byte are e4m3fn; else they are integers.
    pub is_e4m3: bool,
    /// Whether it is counted how much attention positions get.
    pub counted: bool,
}

impl KvLayout {
    /// Bytes of one head's keys (or values) in a page.
    pub fn head_bytes(&self) -> usize {
        self.head_dim * PAGE * self.elem_bytes + if self.has_scales() { 4 * PAGE } else { 0 }
    }

    /// Whether elements are bytes with a scale (f32) for each position.
    pub fn has_scales(&self) -> bool {
        self.elem_bytes == 1
    }

    /// Where the scales of a head's positions begin.
    pub fn scale_offset(&self) -> usize {
        self.head_dim * PAGE * self.elem_bytes
    }

    /// Bytes of all keys in a page: where the values begin.
    pub fn value_offset(&self) -> usize {
        self.heads * self.head_bytes()
    }

    /// Bytes of a head's counts.
    pub const HEAD_COUNTS: usize = 4 * PAGE;

    /// Where the counts begin.
    pub fn count_offset(&self) -> usize {
        (2 * self.value_offset()).next_multiple_of(ALIGN)
    }

    /// Bytes of the layer in a page.
    pub fn layer_bytes(&self) -> usize {
        self.count_offset() + if self.counted { self.heads * Self::HEAD_COUNTS } else { 0 }
    }

    /// Where the counts of one position lie, of a layer that begins at `offset` in a page.
    pub fn counts(&self, offset: usize) -> Option<KvPlaces> {
        let places = KvPlaces {
            offset: offset + self.count_offset(),
            heads: self.heads,
            stride: Self::HEAD_COUNTS,
            rows: 1,
            bytes: 4,
        };
        self.counted.then_some(places)
    }

    /// Where keys and values of one position lie, of a layer that begins at `offset` in a page.
    pub fn places(&self, offset: usize) -> Vec<KvPlaces> {
        let (heads, stride) = (self.heads, self.head_bytes());
        let of = |offset, rows, bytes| KvPlaces { offset, heads, stride, rows, bytes };
        let mut places = Vec::new();
        for part in [offset, offset + self.value_offset()] {
            let (rows, bytes) = match part == offset {
                true => (self.head_dim, self.elem_bytes),
                false => (1, self.head_dim * self.elem_bytes),
            };
            places.push(of(part, rows, bytes));
            places.extend(self.has_scales().then(|| of(part + self.scale_offset(), 1, 4)));
        }
        places
    }
}
