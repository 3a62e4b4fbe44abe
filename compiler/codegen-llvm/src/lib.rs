//! Kernel IR to object code through LLVM.
