//! Shared test support.

pub mod aligned;
pub mod amx;
pub mod artifact;
pub mod command;
pub mod cuda_tools;
pub mod emulated;
pub mod kernels;
pub mod kirgen;
pub mod reference;
pub mod step;
pub mod waits;
pub mod weights;

use llmc_ir::Scheme;

/// Every scheme that has kernels, groups of every size.
pub const SCHEMES: [Scheme; 14] = [
    Scheme::W8A8,
    Scheme::W8 { group: 32 },
    Scheme::W8 { group: 128 },
    Scheme::W6,
    Scheme::W5,
    Scheme::W4,
    Scheme::W3,
    Scheme::W2,
    Scheme::Int4 { group: 64 },
    Scheme::Int4Asym { group: 32 },
    Scheme::Int4Asym { group: 128 },
    Scheme::Nf4 { group: 32 },
    Scheme::Nf4 { group: 64 },
    Scheme::Fp8,
];
