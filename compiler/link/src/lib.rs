//! Objects, weights and runtime to one ELF file.
