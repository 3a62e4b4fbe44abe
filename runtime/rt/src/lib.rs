//! The engine in every artifact.
