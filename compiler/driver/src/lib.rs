//! The llmc compiler.
