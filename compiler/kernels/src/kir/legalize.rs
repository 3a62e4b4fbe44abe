//! legalize
