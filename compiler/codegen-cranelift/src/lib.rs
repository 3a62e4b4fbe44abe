//! Kernel IR to object code through Cranelift.
