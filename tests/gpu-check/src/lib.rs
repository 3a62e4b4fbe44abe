//! Models compiled on a machine without a GPU, checked and measured on one with: no compiler comes along.

pub mod agreement;
pub mod bundle;
pub mod kernels;
pub mod launch;
pub mod phases;
pub mod speed;
