//! What a module leaves out: whole layers, and channels between two products of a layer.
//!
//! Nothing is cut here. [`specialize`] gives the blocks whose calls differ in what they leave out copies of
//! their own, and each block with fewer channels the parameter that lists those which stay; the e-graph then
//! decides under that assignment. [`remove_skipped`] drops the calls of blocks that have become nothing.

use crate::egraph::choices::Pruned;
use crate::egraph::offers::KEEP;
use crate::egraph::units::{hidden_weights, units};
use crate::error::{Error, Result};
use llmc_ir::{Block, BlockId, Call, DType, Module, Op, ParamId, ParamInfo, TensorType, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What is left out of a module. Layers are the calls that use a KV cache, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruning {
    /// Layers that are left out.
    pub layers: BTreeSet<usize>,
    /// Number of channels that stay in a layer's feed-forward part. Which ones is the value of the
    /// parameter that [`keep_name`] names.
    pub channels: BTreeMap<usize, usize>,
}

impl Pruning {
    fn of(&self, layer: usize) -> Pruned {
        let whole = self.layers.contains(&layer);
        Pruned { whole, columns: !whole && self.channels.contains_key(&layer) }
    }
}

/// A weight whose columns can be pruned: it alone reads channels that products of other weights make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prunable {
    /// Index among the block's formal parameters.
    pub param: usize,
    /// Whether it is stored by input: its columns are then rows of the parameter.
    pub by_input: bool,
    /// What meets its columns.
    pub rows: Value,
    /// Columns it has.
    pub channels: usize,
}

/// The weights of a block whose columns can be pruned.
pub fn prunable(block: &Block) -> Vec<Prunable> {
    let graph = &block.graph;
    let mut found = Vec::new();
    for unit in units(graph) {
        let ([w], Some(rows)) = (unit.weights.as_slice(), unit.rows) else { continue };
        let channels = graph.ty(rows).ok().and_then(|t| t.tensor()).and_then(TensorType::last);
        let (Some((param, by_input)), Some(channels)) = (param_of(block, *w), channels) else { continue };
        if !hidden_weights(graph, rows).is_empty() {
            found.push(Prunable { param, by_input, rows, channels });
        }
    }
    found
}

/// The one parameter that a weight is made of, and whether it is transposed.
fn param_of(block: &Block, w: Value) -> Option<(usize, bool)> {
    match block.graph.op(w.node) {
        Op::Param { index, .. } => Some((*index as usize, false)),
        Op::Transpose {} => param_of(block, block.graph.operands(w.node)[0]).map(|(p, by_input)| (p, !by_input)),
        _ => None,
    }
}

/// Name of the parameter that lists the columns of `weight` which stay.
pub fn keep_name(weight: &str) -> String {
    format!("{weight}{KEEP}")
}

/// The calls that are layers, in order.
pub fn layers(module: &Module) -> Vec<usize> {
    (0..module.calls.len()).filter(|c| module.calls[*c].kv.is_some()).collect()
}

/// Splits blocks by what their calls leave out, and says for each block what that is.
///
/// # Errors
/// [`Error::Pruning`] if a layer does not exist, has no channels to prune, or fewer than are to stay.
pub fn specialize(module: &mut Module, pruning: &Pruning) -> Result<Vec<Pruned>> {
    let layers = layers(module);
    let named = pruning.layers.iter().chain(pruning.channels.keys()).max();
    if let Some(layer) = named.filter(|l| **l >= layers.len()) {
        return Err(Error::Pruning(format!("layer {layer} of a model that has {}", layers.len())));
    }
    let mut pruned = vec![Pruned::default(); module.blocks.len()];
    let mut copies: BTreeMap<(BlockId, Pruned, Option<usize>), BlockId> = BTreeMap::new();
    for (layer, call) in layers.into_iter().enumerate() {
        let what = pruning.of(layer);
        if what == Pruned::default() {
            continue;
        }
        let kept = pruning.channels.get(&layer).copied().filter(|_| what.columns);
        let original = module.calls[call].block;
        let id = match copies.get(&(original, what, kept)) {
            Some(id) => *id,
            None => {
                let block = copy(module.block(original), what, kept, copies.len())?;
                module.blocks.push(block);
                pruned.push(what);
                let id = BlockId((module.blocks.len() - 1) as u32);
                copies.insert((original, what, kept), id);
                id
            }
        };
        rebind(module, call, id, kept);
    }
    retain_called(module, &mut pruned);
    Ok(pruned)
}

/// A block under another name, with a parameter for the columns that stay.
fn copy(block: &Block, what: Pruned, kept: Option<usize>, number: usize) -> Result<Block> {
    let mut copy = block.clone();
    let kind = if what.whole { "skipped" } else { "pruned" };
    copy.name = format!("{}_{kind}{number}", block.name);
    let Some(kept) = kept else { return Ok(copy) };
    let found = prunable(block);
    let [Prunable { param, channels, .. }] = found.as_slice() else {
        let message = format!("block {}: {} weights whose columns can be pruned, expected 1", block.name, found.len());
        return Err(Error::Pruning(message));
    };
    if kept == 0 || kept > *channels {
        return Err(Error::Pruning(format!("block {}: {kept} of {channels} channels cannot stay", block.name)));
    }
    let ty = TensorType::new(DType::I32, [kept.into()]);
    let index = copy.params.len() as u32;
    copy.params.push(ParamInfo { name: keep_name(&block.params[*param].name), ty: ty.clone() });
    copy.graph.push(Op::Param { index, ty: ty.into() }, &[])?;
    Ok(copy)
}

/// Makes a call one of `block`, with the list of its own layer's columns.
fn rebind(module: &mut Module, call: usize, block: BlockId, kept: Option<usize>) {
    module.calls[call].block = block;
    let Some(kept) = kept else { return };
    let formal = prunable(module.block(block))[0].param;
    let weight = module.calls[call].params[formal];
    let name = keep_name(&module.param(weight).name);
    module.params.push(ParamInfo { name, ty: TensorType::new(DType::I32, [kept.into()]) });
    let id = ParamId((module.params.len() - 1) as u32);
    module.calls[call].params.push(id);
}

/// Drops the calls of blocks that give their inputs on, with their KV caches and parameters.
pub fn remove_skipped(module: &mut Module, pruned: &[Pruned]) {
    if !pruned.iter().any(|p| p.whole) {
        return;
    }
    module.calls.retain(|c| !pruned[c.block.0 as usize].whole);
    let kept: Vec<u32> = module.calls.iter().filter_map(|c| c.kv).collect();
    module.kv = kept.iter().map(|k| module.kv[*k as usize]).collect();
    for call in &mut module.calls {
        call.kv = call.kv.and_then(|k| kept.iter().position(|other| *other == k)).map(|k| k as u32);
    }
    retain_params(module);
    retain_called(module, &mut pruned.to_vec());
}

fn retain_params(module: &mut Module) {
    let used: BTreeSet<ParamId> = module.calls.iter().flat_map(|c| c.params.iter().copied()).collect();
    let renamed: BTreeMap<ParamId, ParamId> = used.iter().enumerate().map(|(i, id)| (*id, ParamId(i as u32))).collect();
    module.params = used.iter().map(|id| module.params[id.0 as usize].clone()).collect();
    let rename = |call: &mut Call| call.params.iter_mut().for_each(|p| *p = renamed[p]);
    module.calls.iter_mut().for_each(rename);
}

/// Drops blocks that nothing calls; `pruned` has an entry for each block.
fn retain_called(module: &mut Module, pruned: &mut Vec<Pruned>) {
    let called: BTreeSet<BlockId> = module.calls.iter().map(|c| c.block).collect();
    let renamed: BTreeMap<BlockId, BlockId> =
        called.iter().enumerate().map(|(i, id)| (*id, BlockId(i as u32))).collect();
    let is_called = |i: usize| called.contains(&BlockId(i as u32));
    *pruned = pruned.iter().enumerate().filter(|(i, _)| is_called(*i)).map(|(_, p)| *p).collect();
    let blocks = std::mem::take(&mut module.blocks);
    module.blocks = blocks.into_iter().enumerate().filter(|(i, _)| is_called(*i)).map(|(_, b)| b).collect();
    module.calls.iter_mut().for_each(|c| c.block = renamed[&c.block]);
}
