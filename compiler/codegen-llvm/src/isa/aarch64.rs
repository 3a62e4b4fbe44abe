//! AArch64 with its base vector instructions.

use super::Isa;
use inkwell::targets::{InitializationConfig, Target as LlvmTarget};
use llmc_kernels::kir::legalize::Limits;

/// The table.
pub const ISA: Isa = Isa {
    triple_prefix: "aarch64-",
    cpu: "generic",
    initialize: || LlvmTarget::initialize_aarch64(&InitializationConfig::default()),
    features: |_| "+neon".into(),
    tuning: |_| &[("tune-cpu", "generic")],
    limits: |_| Limits { native_dot2_bf16: false, native_dot4_i8: false, ..Limits::NONE },
    dot2_bf16: None,
    dot4_i8: None,
};
