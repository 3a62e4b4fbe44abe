//! The tensor IR: what a model computes, independent of checkpoints, targets and kernels.
//!
//! A [`Module`] holds formal parameters, blocks (one [`Graph`] per distinct layer shape) and the
//! order in which blocks are called. Four verbs work on it: print (`Display`), [`parse`],
//! [`mod@verify`] and [`interp`]. The interpreter defines the meaning of every op.

pub mod error;
pub mod graph;
pub mod interp;
pub mod module;
pub mod ops;
pub mod params;
pub mod parse;
pub mod print;
pub mod quant;
pub mod tensor;
pub mod types;
pub mod verify;

pub use error::{Error, Result};
pub use graph::{Graph, NodeId, Value};
pub use interp::{Interp, KvCache, RtValue, eval_graph};
pub use module::{Block, BlockId, Call, Module, ParamId, ParamInfo};
pub use ops::{Activation, Epilogue, LinearSpec, Op, Prologue, QkvSpec};
pub use params::{MemoryParams, Overlay, ParamSource};
pub use parse::{parse_block, parse_graph, parse_module};
pub use quant::{Encoded, Scheme};
pub use tensor::Tensor;
pub use types::{DType, Dim, KvType, Shape, Sym, TensorType, Type};
pub use verify::{ModuleInfo, verify};
