//! Checks a module against the rules of the IR and reports every finding at once.
//!
//! - Names of parameters and of blocks are unique; every name is made of letters, digits, `_`, `.`.
//! - Parameters are constant, non-empty tensors of floats, or vectors of indices; KV caches hold floats.
//! - In a graph, operand slots are dense, producers stand before consumers, and the stored types
//!   of a node are those that its op infers from its operands.
//! - Inputs and formal parameters are within the block's lists and of the declared type; two nodes
//!   for one input agree. A graph has one output for each declared name, and no name twice.
//! - A call names an existing block, gives one parameter of the right type for each formal one,
//!   and a KV cache exactly where the block uses `kv`.
//! - Every value that a call reads was given by the step or written by an earlier call, with the
//!   type read; only `kv` is a KV cache, and it keeps the type of the cache.
//! - The last call writes `logits: f32[R,vocab]`.

use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Value};
use crate::module::{Block, Call, Module, ParamInfo};
use crate::ops::Op;
use crate::parse::is_name;
use crate::types::{DType, Dim, Sym, TensorType, Type};
use std::collections::{BTreeMap, BTreeSet};

/// What verification learned about a module; holding one is evidence that the rules hold.
#[derive(Clone, Debug)]
pub struct ModuleInfo {
    /// One for each block.
    pub blocks: Vec<BlockInfo>,
    /// One for each call.
    pub calls: Vec<CallInfo>,
    /// Type of the step's result: `f32[R,vocab]`.
    pub logits: TensorType,
}

impl ModuleInfo {
    /// Logits per row.
    pub fn vocab(&self) -> usize {
        self.logits.last().expect("verify checked that logits have a constant width")
    }
}

/// Facts about one block.
#[derive(Clone, Debug, Default)]
pub struct BlockInfo {
    /// How often the block is called in a step.
    pub calls: usize,
    /// How often each value is used, as an operand or as an output; unused ones count 0.
    pub uses: BTreeMap<Value, usize>,
}

/// The named values of one call, in the order of the block's lists.
#[derive(Clone, Debug, Default)]
pub struct CallInfo {
    /// Values read.
    pub reads: Vec<(String, Type)>,
    /// Values written.
    pub writes: Vec<(String, Type)>,
}

/// Checks a module.
///
/// # Errors
/// [`Error::Verify`] with every finding.
pub fn verify(module: &Module) -> Result<ModuleInfo> {
    let mut v = Verifier { module, findings: Vec::new() };
    v.declarations();
    let mut blocks: Vec<BlockInfo> = module.blocks.iter().map(|block| v.block(block)).collect();
    let mut values = step_values();
    let mut calls = Vec::with_capacity(module.calls.len());
    for (number, call) in module.calls.iter().enumerate() {
        if let Some(info) = blocks.get_mut(call.block.0 as usize) {
            info.calls += 1;
        }
        calls.push(v.call(number, call, &mut values));
    }
    let logits = v.logits(calls.last());
    match logits {
        Some(logits) if v.findings.is_empty() => Ok(ModuleInfo { blocks, calls, logits }),
        _ => Err(Error::Verify(v.findings)),
    }
}

/// Values that a step provides.
fn step_values() -> BTreeMap<String, Type> {
    let index = |s: Sym| Type::from(TensorType::new(DType::I32, [Dim::Sym(s)]));
    [("ids", Sym::Tokens), ("positions", Sym::Tokens), ("seqs", Sym::Tokens), ("rows", Sym::Rows)]
        .into_iter()
        .map(|(name, s)| (name.to_owned(), index(s)))
        .collect()
}

struct Verifier<'a> {
    module: &'a Module,
    findings: Vec<String>,
}

impl Verifier<'_> {
    fn require(&mut self, holds: bool, finding: impl FnOnce() -> String) {
        if !holds {
            self.findings.push(finding());
        }
    }

    fn declarations(&mut self) {
        let module = self.module;
        self.params("the module", &module.params);
        self.names("the module", "block", module.blocks.iter().map(|b| b.name.as_str()));
        for (i, kv) in module.kv.iter().enumerate() {
            let holds = kv.dtype.is_float() && kv.heads > 0 && kv.head_dim > 0;
            let ty = Type::Kv(*kv);
            self.require(holds, || format!("kv {i} is {ty}, expected a floating-point cache that is not empty"));
        }
    }

    fn params(&mut self, whose: &str, params: &[ParamInfo]) {
        self.names(whose, "parameter", params.iter().map(|p| p.name.as_str()));
        for p in params {
            let is_index = p.ty.dtype == DType::I32 && p.ty.shape.len() == 1;
            let holds = (p.ty.dtype.is_float() || is_index) && !p.ty.shape.is_empty();
            let holds = holds && p.ty.elements().is_some_and(|n| n > 0);
            self.require(holds, || {
                format!("{whose}: parameter {} is {}, expected constant floats or a vector of indices", p.name, p.ty)
            });
        }
    }

    fn names<'n>(&mut self, whose: &str, kind: &str, names: impl Iterator<Item = &'n str>) {
        let mut seen = BTreeSet::new();
        for name in names {
            self.require(is_name(name), || format!("{whose}: {kind} {name:?} is not made of letters, digits, _ and ."));
            self.require(seen.insert(name), || format!("{whose}: a second {kind} is called {name}"));
        }
    }

    fn block(&mut self, block: &Block) -> BlockInfo {
        let whose = format!("block {}", block.name);
        self.params(&whose, &block.params);
        self.names(&whose, "input", block.inputs.iter().map(String::as_str));
        self.names(&whose, "output", block.outputs.iter().map(String::as_str));
        let mut info = BlockInfo::default();
        let mut inputs: BTreeMap<u32, &Type> = BTreeMap::new();
        for node in block.graph.nodes() {
            self.node(block, node, &mut info);
            if let Op::Input { index, ty } = block.graph.op(node) {
                let first = *inputs.entry(*index).or_insert(ty);
                self.require(first == ty, || format!("{whose}: input {index} is both {first} and {ty}"));
            }
        }
        self.outputs(block, &mut info);
        info
    }

    fn node(&mut self, block: &Block, node: NodeId, info: &mut BlockInfo) {
        let graph = &block.graph;
        let at = || format!("block {}: %{} {}", block.name, node.0, graph.op(node).name());
        for slot in 0..graph.types(node).len() as u32 {
            info.uses.entry(Value { node, slot }).or_insert(0);
        }
        let slots = graph.operand_slots(node);
        let dense = slots.iter().enumerate().all(|(i, s)| i == *s as usize);
        self.require(dense, || format!("{} has operands at {slots:?}, expected 0, 1, ..", at()));
        let operands = graph.operands(node);
        for v in &operands {
            *info.uses.entry(*v).or_insert(0) += 1;
            self.require(v.node < node, || format!("{} uses %{}, which stands below it", at(), v.node.0));
        }
        match infer(graph, node, &operands) {
            Err(e) => self.findings.push(format!("{}: {e}", at())),
            Ok(types) => self.require(types == graph.types(node), || {
                format!("{} has types {}, expected {}", at(), list(graph.types(node)), list(&types))
            }),
        }
        self.declared(block, node);
    }

    /// Inputs and formal parameters against the block's lists.
    fn declared(&mut self, block: &Block, node: NodeId) {
        let at = || format!("block {}: %{}", block.name, node.0);
        match block.graph.op(node) {
            Op::Input { index, .. } => self.require((*index as usize) < block.inputs.len(), || {
                format!("{} is input {index}, the block has {}", at(), block.inputs.len())
            }),
            Op::Param { index, ty } => match block.params.get(*index as usize) {
                None => self.findings.push(format!("{} is param {index}, the block has {}", at(), block.params.len())),
                Some(p) => self.require(*ty == Type::Tensor(p.ty.clone()), || {
                    format!("{} is {ty}, the block declares {}: {}", at(), p.name, p.ty)
                }),
            },
            _ => {}
        }
    }

    fn outputs(&mut self, block: &Block, info: &mut BlockInfo) {
        let outputs = block.graph.outputs();
        let (found, expected) = (outputs.len(), block.outputs.len());
        self.require(found == expected, || {
            format!("block {} returns {found} values, expected {expected}: {}", block.name, block.outputs.join(", "))
        });
        for v in outputs {
            let exists = block.graph.ty(*v).is_ok();
            self.require(exists, || {
                format!("block {} returns %{}.{}, which is no value", block.name, v.node.0, v.slot)
            });
            *info.uses.entry(*v).or_insert(0) += 1;
        }
    }

    fn call(&mut self, number: usize, call: &Call, values: &mut BTreeMap<String, Type>) -> CallInfo {
        let Some(block) = self.module.blocks.get(call.block.0 as usize) else {
            self.findings.push(format!("call {number}: there is no block {}", call.block.0));
            return CallInfo::default();
        };
        let at = format!("call {number} of {}", block.name);
        self.arguments(&at, call, block);
        let kv = self.cache(&at, call, block);
        let mut info = CallInfo::default();
        for (name, ty) in input_types(block) {
            let value = if name == "kv" { kv.as_ref() } else { values.get(name) };
            match (value, ty) {
                (Some(found), Some(ty)) => {
                    self.require(found == ty, || format!("{at}: {name} is {found}, the block expects {ty}"));
                }
                (Some(_), None) => {}
                (None, _) => self.findings.push(format!("{at}: nothing has written {name}, which the block reads")),
            }
            info.reads.extend(value.map(|ty| (name.to_owned(), ty.clone())));
        }
        for (name, v) in block.outputs.iter().zip(block.graph.outputs()) {
            let Ok(ty) = block.graph.ty(*v) else { continue };
            let is_kv = matches!(ty, Type::Kv(_));
            self.require(is_kv == (name == "kv"), || format!("{at}: {name} is {ty}; kv, and only kv, is a cache"));
            let keeps = !is_kv || kv.as_ref().is_none_or(|kv| kv == ty);
            self.require(keeps, || format!("{at}: writes a {ty} to another type of cache"));
            if !is_kv {
                values.insert(name.clone(), ty.clone());
            }
            info.writes.push((name.clone(), ty.clone()));
        }
        info
    }

    /// Actual parameters against formal ones.
    fn arguments(&mut self, at: &str, call: &Call, block: &Block) {
        let (found, expected) = (call.params.len(), block.params.len());
        self.require(found == expected, || format!("{at}: {found} parameters given, expected {expected}"));
        for (id, formal) in call.params.iter().zip(&block.params) {
            match self.module.params.get(id.0 as usize) {
                None => self.findings.push(format!("{at}: there is no parameter {}", id.0)),
                Some(actual) => self.require(actual.ty == formal.ty, || {
                    format!("{at}: {} is {}, expected {} as {}", actual.name, actual.ty, formal.ty, formal.name)
                }),
            }
        }
    }

    /// The type of the call's KV cache, which is there exactly where the block uses one.
    fn cache(&mut self, at: &str, call: &Call, block: &Block) -> Option<Type> {
        let used = block.inputs.iter().chain(&block.outputs).any(|name| name == "kv");
        let given = call.kv.is_some();
        self.require(used || !given, || format!("{at}: kv is given, the block uses none"));
        self.require(given || !used, || format!("{at}: no kv is given, the block uses one"));
        let index = call.kv?;
        let kv = self.module.kv.get(index as usize).map(|kv| Type::Kv(*kv));
        self.require(kv.is_some(), || format!("{at}: there is no kv {index}"));
        kv
    }

    fn logits(&mut self, last: Option<&CallInfo>) -> Option<TensorType> {
        let ty = last.and_then(|info| info.writes.iter().find(|(name, _)| name == "logits")).map(|(_, ty)| ty);
        match ty {
            Some(Type::Tensor(t))
                if t.dtype == DType::F32 && matches!(t.shape[..], [Dim::Sym(Sym::Rows), Dim::Const(1..)]) =>
            {
                return Some(t.clone());
            }
            Some(ty) => self.findings.push(format!("logits are {ty}, expected f32[R,vocab]")),
            None => self.findings.push("the last call does not write logits".into()),
        }
        None
    }
}

/// Names of the inputs, each with its type if the graph has a node for it.
fn input_types(block: &Block) -> Vec<(&str, Option<&Type>)> {
    let mut types: BTreeMap<u32, &Type> = BTreeMap::new();
    for node in block.graph.nodes() {
        if let Op::Input { index, ty } = block.graph.op(node) {
            types.entry(*index).or_insert(ty);
        }
    }
    let names = block.inputs.iter().enumerate();
    names.map(|(i, name)| (name.as_str(), types.get(&(i as u32)).copied())).collect()
}

fn infer(graph: &Graph, node: NodeId, operands: &[Value]) -> Result<Vec<Type>> {
    let types: Vec<&Type> = operands.iter().map(|v| graph.ty(*v)).collect::<Result<_>>()?;
    graph.op(node).infer(&types)
}

fn list(types: &[Type]) -> String {
    types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
