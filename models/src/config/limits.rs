//! Largest dimensions accepted from a config. Generous for every known model, and small enough
//! that no product of three of them overflows 64 bits.

/// Rows of the embedding.
pub const VOCAB: usize = 1 << 24;
/// Elements of the residual stream.
pub const WIDTH: usize = 1 << 18;
/// Elements between the projections of a feed-forward network.
pub const D_FF: usize = 1 << 21;
/// Layers.
pub const LAYERS: usize = 1 << 12;
/// Attention heads.
pub const HEADS: usize = 1 << 12;
/// Elements per attention head.
pub const HEAD_DIM: usize = 1 << 12;
/// Positions.
pub const CONTEXT: usize = 1 << 28;
