//! The kernel IR and the kernels.
