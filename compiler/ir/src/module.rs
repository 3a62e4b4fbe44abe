//! A whole model: parameters, blocks, and the order in which blocks are called.
//!
//! Identical layers share one block. A step runs `calls` in order; the values passed on are named:
//! a block's input `x` reads the value last written under `x`, and its output `x` writes it.

use crate::graph::Graph;
use crate::types::{KvType, TensorType};

/// Index of a parameter of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub u32);

/// Index of a block of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// A parameter: a canonical name (`layers.3.attn.q`) and the type it has in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    /// Canonical name, unique in the module.
    pub name: String,
    /// Stored element type and shape.
    pub ty: TensorType,
}

/// A graph with named inputs and outputs and formal parameters.
///
/// In the graph, `Op::Input { index }` is `inputs[index]` and `Op::Param { index }` is
/// `params[index]`. The names of inputs and outputs are the step's value names.
#[derive(Clone, Debug)]
pub struct Block {
    /// Name, unique in the module: `embed`, `layer0`, `head`.
    pub name: String,
    /// Names of the values read.
    pub inputs: Vec<String>,
    /// Formal parameters: name within the block (`attn.q`) and type.
    pub params: Vec<ParamInfo>,
    /// Names of the values written, one for each graph output.
    pub outputs: Vec<String>,
    /// The computation.
    pub graph: Graph,
}

/// One call of a block in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The block.
    pub block: BlockId,
    /// Actual parameters, one for each formal one, of the same type.
    pub params: Vec<ParamId>,
    /// Which layer's KV cache the value named `kv` is, where the block uses one.
    pub kv: Option<u32>,
}

/// A model as a program over blocks.
///
/// Names with a fixed meaning: the step provides `ids: i32[T]`, `positions: i32[T]`,
/// `seqs: i32[T]` (the sequence of each token) and `rows: i32[R]`; the last call writes
/// `logits: f32[R,vocab]`; `kv` is the KV cache of the layer named by the call.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Every parameter.
    pub params: Vec<ParamInfo>,
    /// Distinct blocks.
    pub blocks: Vec<Block>,
    /// One step of the model.
    pub calls: Vec<Call>,
    /// The KV cache of each layer.
    pub kv: Vec<KvType>,
}

impl Module {
    /// The block with this id.
    pub fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id.0 as usize]
    }

    /// The parameter with this id.
    pub fn param(&self, id: ParamId) -> &ParamInfo {
        &self.params[id.0 as usize]
    }
}
