//! A module cut into pieces, each a module of its own: the embedding, one layer, a layer up to its channels,
//! and the head.
//!
//! A piece reads the residual stream as a table whose rows its ids choose, in place of the embedding, and
//! gives as logits whatever is wanted of it.

use crate::{Error, Result};
use llmc_ir::{Block, BlockId, Call, DType, Dim, Graph, Module, Op, ParamId, ParamInfo, Sym, TensorType, Value};
use llmc_passes::prune::{Prunable, prunable};

/// Name of the table that holds the residual stream.
pub const STREAM: &str = "calibration.stream";
const HIDDEN: &str = "hidden";
const CHANNELS: &str = "channels";

/// The embedding: its ids are tokens, its result the residual stream.
///
/// # Errors
/// If the module has no residual stream.
pub fn embedding(module: &Module) -> Result<Module> {
    let first = module.calls.first().ok_or_else(|| Error::Module("the module has no calls".into()))?;
    let mut piece = Piece::new(module);
    piece.copy(module, first);
    let width = output_width(module.block(first.block), HIDDEN)?;
    piece.give(HIDDEN, width)?;
    Ok(piece.0)
}

/// A layer: from the residual stream, `rows` of it, to the residual stream.
///
/// # Errors
/// If the module has no residual stream.
pub fn layer(module: &Module, call: usize, rows: usize) -> Result<Module> {
    let mut piece = Piece::new(module);
    let width = piece.start(module, rows)?;
    piece.copy(module, &module.calls[call]);
    piece.give(HIDDEN, width)?;
    Ok(piece.0)
}

/// A layer up to the channels that its one prunable weight reads; `None` where it has none.
///
/// # Errors
/// If the module has no residual stream.
pub fn channels(module: &Module, call: usize, rows: usize) -> Result<Option<Module>> {
    let mut piece = Piece::new(module);
    piece.start(module, rows)?;
    piece.copy(module, &module.calls[call]);
    let block = piece.0.blocks.last_mut().ok_or_else(|| Error::Module("a piece has no layer".into()))?;
    let Some(channels) = channels_of(block) else { return Ok(None) };
    block.outputs.push(CHANNELS.into());
    let outputs = [block.graph.outputs(), &[channels]].concat();
    block.graph.set_outputs(outputs);
    let width = output_width(block, CHANNELS)?;
    piece.give(CHANNELS, width)?;
    Ok(Some(piece.0))
}

/// The head: from the residual stream to logits.
///
/// # Errors
/// If the module has no residual stream.
pub fn head(module: &Module, rows: usize) -> Result<Module> {
    let mut piece = Piece::new(module);
    piece.start(module, rows)?;
    let last = module.calls.last().ok_or_else(|| Error::Module("the module has no calls".into()))?;
    piece.copy(module, last);
    Ok(piece.0)
}

/// The f32 rows that the one prunable weight of a block reads.
fn channels_of(block: &Block) -> Option<Value> {
    let found = prunable(block);
    let [Prunable { rows, .. }] = found.as_slice() else { return None };
    Some(match block.graph.op(rows.node) {
        Op::Round { .. } => block.graph.operands(rows.node)[0],
        _ => *rows,
    })
}

fn output_width(block: &Block, name: &str) -> Result<usize> {
    let slot = block.outputs.iter().position(|o| o == name);
    let value = slot.and_then(|s| block.graph.outputs().get(s).copied());
    let ty = value.and_then(|v| block.graph.ty(v).ok()).and_then(|t| t.tensor()).and_then(TensorType::last);
    ty.ok_or_else(|| Error::Module(format!("block {} gives no {name}", block.name)))
}

/// A piece in the making.
struct Piece(Module);

impl Piece {
    /// No calls yet; the parameters of the whole.
    fn new(module: &Module) -> Piece {
        Piece(Module { params: module.params.clone(), ..Module::default() })
    }

    fn add(&mut self, block: Block, params: Vec<ParamId>, kv: Option<u32>) {
        self.0.blocks.push(block);
        let block = BlockId(self.0.blocks.len() as u32 - 1);
        self.0.calls.push(Call { block, params, kv });
    }

    /// A call as the whole has it.
    fn copy(&mut self, module: &Module, call: &Call) {
        self.0.kv = call.kv.map(|k| module.kv[k as usize]).into_iter().collect();
        self.add(module.block(call.block).clone(), call.params.clone(), call.kv.map(|_| 0));
    }

    /// The first block with its result read from a table of `rows` rows. The width of the stream.
    fn start(&mut self, module: &Module, rows: usize) -> Result<usize> {
        let call = module.calls.first().ok_or_else(|| Error::Module("the module has no calls".into()))?;
        let mut block = module.block(call.block).clone();
        let width = output_width(&block, HIDDEN)?;
        let ty = TensorType::new(DType::F32, [rows.into(), width.into()]);
        let formal = block.params.len() as u32;
        block.params.push(ParamInfo { name: STREAM.into(), ty: ty.clone() });
        let table = block.graph.push(Op::Param { index: formal, ty: ty.clone().into() }, &[])?;
        let ids = input(&mut block, "ids", TensorType::new(DType::I32, [Dim::Sym(Sym::Tokens)]))?;
        let stream = block.graph.push(Op::Embed {}, &[table, ids])?;
        let names = block.outputs.iter().zip(block.graph.outputs());
        let outputs = names.map(|(name, v)| if name == HIDDEN { stream } else { *v }).collect();
        block.graph.set_outputs(outputs);
        block.graph = block.graph.compact();
        self.0.params.push(ParamInfo { name: STREAM.into(), ty });
        let actual = ParamId(self.0.params.len() as u32 - 1);
        self.add(block, call.params.iter().copied().chain([actual]).collect(), None);
        Ok(width)
    }

    /// A last block that gives the wanted rows of `name` as logits.
    fn give(&mut self, name: &str, width: usize) -> Result<()> {
        let mut block = Block {
            name: "give".into(),
            inputs: vec![],
            params: vec![],
            outputs: vec!["logits".into()],
            graph: Graph::new(),
        };
        let value = input(&mut block, name, TensorType::new(DType::F32, [Dim::Sym(Sym::Tokens), width.into()]))?;
        let rows = input(&mut block, "rows", TensorType::new(DType::I32, [Dim::Sym(Sym::Rows)]))?;
        let logits = block.graph.push(Op::Gather {}, &[value, rows])?;
        block.graph.set_outputs(vec![logits]);
        self.add(block, vec![], None);
        Ok(())
    }
}

/// An input of a block, which is added if it is new.
fn input(block: &mut Block, name: &str, ty: TensorType) -> Result<Value> {
    let index = block.inputs.iter().position(|i| i == name).unwrap_or_else(|| {
        block.inputs.push(name.into());
        block.inputs.len() - 1
    });
    Ok(block.graph.push(Op::Input { index: index as u32, ty: ty.into() }, &[])?)
}
