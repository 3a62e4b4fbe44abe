//! The kernels: one builder function for each, shapes as constants.

pub mod attention;
pub mod attention_counts;
mod attention_tiles;
pub mod byte_rows;
mod coded_product;
pub mod embed;
pub mod epilogue;
pub mod gather;
pub mod gpu;
mod int_product;
mod int_sums;
pub mod kv;
pub mod linear;
pub mod mac;
pub mod norm;
mod panel_ahead;
pub mod pointwise;
pub mod product;
pub mod prologue;
pub mod rope;
pub mod route;
pub mod step;
mod tile_product;
