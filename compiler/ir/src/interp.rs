//! The reference interpreter: every op's meaning, slowly and obviously.
//!
//! [`eval_graph`] runs one graph. [`Interp`] runs a whole module step by step over a
//! [`ParamSource`] and keeps the KV caches in between.

use crate::error::{Error, Result};
use crate::graph::{Graph, Value};
use crate::module::{Block, Call, Module, ParamId};
use crate::ops::Op;
use crate::params::ParamSource;
use crate::tensor::{Data, Tensor};
use crate::types::{DType, Dim, KvType, Sym, TensorType, Type};
use std::borrow::{Borrow, Cow};
use std::collections::BTreeMap;

/// A KV cache as a map from (sequence, position) to the key and value rows of all heads.
#[derive(Clone, Debug, PartialEq)]
pub struct KvCache {
    /// Type of the cache; stored elements are rounded to its dtype.
    pub ty: KvType,
    /// `heads * head_dim` key elements and as many value elements for each position.
    pub rows: BTreeMap<(i32, i32), (Vec<f32>, Vec<f32>)>,
}

impl KvCache {
    /// A cache without positions.
    pub fn new(ty: KvType) -> KvCache {
        KvCache { ty, rows: BTreeMap::new() }
    }
}

/// A value at run time.
#[derive(Clone, Debug, PartialEq)]
pub enum RtValue {
    /// A tensor.
    Tensor(Tensor),
    /// The KV cache of a layer.
    Kv(KvCache),
}

impl RtValue {
    /// The type of this value: constant dimensions, and f32 for every floating-point tensor.
    pub fn ty(&self) -> Type {
        match self {
            RtValue::Tensor(t) => t.ty().into(),
            RtValue::Kv(kv) => kv.ty.into(),
        }
    }

    /// The tensor, if it is one.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            RtValue::Tensor(t) => Some(t),
            RtValue::Kv(_) => None,
        }
    }
}

impl From<Tensor> for RtValue {
    fn from(t: Tensor) -> RtValue {
        RtValue::Tensor(t)
    }
}

/// The outputs of `graph`, where `Op::Input { index }` is `inputs[index]` and
/// `Op::Param { index }` is `params[index]`.
///
/// # Errors
/// [`Error::Interp`] if a value is missing or is not of the type the graph states, if two values
/// disagree about a symbolic dimension, or as [`Op::eval`].
pub fn eval_graph<V: Borrow<RtValue>>(graph: &Graph, inputs: &[V], params: &[V]) -> Result<Vec<RtValue>> {
    let mut sizes = Symbols::default();
    let mut values: BTreeMap<Value, Cow<'_, RtValue>> = BTreeMap::new();
    for node in graph.nodes() {
        let given = match graph.op(node) {
            Op::Input { index, ty } => Some(("input", inputs.get(*index as usize), *index, ty)),
            Op::Param { index, ty } => Some(("param", params.get(*index as usize), *index, ty)),
            _ => None,
        };
        if let Some((kind, value, index, ty)) = given {
            let value = value.ok_or_else(|| Error::Interp(format!("{kind} {index} is not given")))?.borrow();
            sizes.check(&format!("{kind} {index}"), value, ty)?;
            values.insert(Value { node, slot: 0 }, Cow::Borrowed(value));
            continue;
        }
        let uses = graph.operands(node);
        let operands: Vec<&RtValue> = uses.iter().map(|v| lookup(&values, *v)).collect::<Result<_>>()?;
        let results = graph.op(node).eval(&operands)?;
        for (slot, result) in results.into_iter().enumerate() {
            values.insert(Value { node, slot: slot as u32 }, Cow::Owned(result));
        }
    }
    graph.outputs().iter().map(|v| lookup(&values, *v).cloned()).collect()
}

fn lookup<'a>(values: &'a BTreeMap<Value, Cow<'_, RtValue>>, v: Value) -> Result<&'a RtValue> {
    let missing = || Error::Interp(format!("%{}.{} has no value", v.node.0, v.slot));
    values.get(&v).map(|v| v.as_ref()).ok_or_else(missing)
}

/// Values of the symbolic dimensions, fixed by the first tensor that has them.
#[derive(Default)]
struct Symbols(BTreeMap<Sym, usize>);

impl Symbols {
    fn check(&mut self, what: &str, value: &RtValue, ty: &Type) -> Result<()> {
        let fits = match (value, ty) {
            (RtValue::Tensor(t), Type::Tensor(ty)) => self.fits(t, ty),
            (RtValue::Kv(kv), Type::Kv(ty)) => kv.ty == *ty,
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let symbols: Vec<String> = self.0.iter().map(|(s, n)| format!("{} = {n}", Dim::Sym(*s))).collect();
        Err(Error::Interp(format!("{what} is {}, expected {ty} [{}]", value.ty(), symbols.join(", "))))
    }

    fn fits(&mut self, t: &Tensor, ty: &TensorType) -> bool {
        let kind = matches!(t.data, Data::I32(_)) == (ty.dtype == DType::I32);
        let dim = |(size, dim): (&usize, &Dim)| match dim {
            Dim::Const(n) => n == size,
            Dim::Sym(s) => self.0.entry(*s).or_insert(*size) == size,
        };
        kind && t.shape.len() == ty.shape.len() && t.shape.iter().zip(&ty.shape).all(dim)
    }
}

/// A module with its weights and its state between steps.
///
/// Parameters are loaded when a call first uses them and kept, widened to f32.
pub struct Interp<'a> {
    module: &'a Module,
    source: &'a dyn ParamSource,
    params: Vec<Option<RtValue>>,
    kv: Vec<RtValue>,
}

impl<'a> Interp<'a> {
    /// An interpreter with empty KV caches. The module should have passed [`crate::verify()`];
    /// otherwise a step ends in an error at the first thing that does not fit.
    pub fn new(module: &'a Module, source: &'a dyn ParamSource) -> Interp<'a> {
        let kv = module.kv.iter().map(|ty| RtValue::Kv(KvCache::new(*ty))).collect();
        Interp { module, source, params: vec![None; module.params.len()], kv }
    }

    /// Runs one ragged step: token `ids[t]` stands at `positions[t]` of sequence `seqs[t]`, and the
    /// logits `[rows.len(), vocab]` of the tokens `rows` come back.
    ///
    /// # Errors
    /// [`Error::Interp`] if the arguments do not fit each other or the model, [`Error::Param`] if
    /// a weight cannot be read.
    pub fn step(&mut self, ids: &[i32], positions: &[i32], seqs: &[i32], rows: &[i32]) -> Result<Tensor> {
        self.step_observed(ids, positions, seqs, rows, &mut |_, _, _| ())
    }

    /// As [`Interp::step`]; `observe(call, name, tensor)` sees every named tensor that a call
    /// writes, such as `hidden` after each layer.
    ///
    /// # Errors
    /// As [`Interp::step`].
    pub fn step_observed(
        &mut self,
        ids: &[i32],
        positions: &[i32],
        seqs: &[i32],
        rows: &[i32],
        observe: &mut dyn FnMut(usize, &str, &Tensor),
    ) -> Result<Tensor> {
        if positions.len() != ids.len() || seqs.len() != ids.len() {
            let found = format!("{} ids, {} positions, {} seqs", ids.len(), positions.len(), seqs.len());
            return Err(Error::Interp(format!("{found}: expected one of each for each token")));
        }
        let given = [("ids", ids), ("positions", positions), ("seqs", seqs), ("rows", rows)];
        let mut values: BTreeMap<&str, RtValue> =
            given.into_iter().map(|(name, v)| (name, RtValue::Tensor(Tensor::i32s(v.to_vec())))).collect();
        let module = self.module;
        for (number, call) in module.calls.iter().enumerate() {
            let missing = || Error::Interp(format!("call {number}: there is no block {}", call.block.0));
            let block = module.blocks.get(call.block.0 as usize).ok_or_else(missing)?;
            let outputs = self.call(call, block, &values)?;
            for (name, value) in block.outputs.iter().zip(outputs) {
                match value {
                    RtValue::Kv(_) => self.store_kv(call, value)?,
                    RtValue::Tensor(t) => {
                        observe(number, name, &t);
                        values.insert(name, RtValue::Tensor(t));
                    }
                }
            }
        }
        match values.remove("logits") {
            Some(RtValue::Tensor(t)) => Ok(t),
            _ => Err(Error::Interp("no call writes the tensor logits".into())),
        }
    }

    /// Forgets every cached position.
    pub fn reset(&mut self) {
        self.kv = self.module.kv.iter().map(|ty| RtValue::Kv(KvCache::new(*ty))).collect();
    }

    fn call(&mut self, call: &Call, block: &Block, values: &BTreeMap<&str, RtValue>) -> Result<Vec<RtValue>> {
        for id in &call.params {
            self.load(*id)?;
        }
        let wrong = |message: String| Error::Interp(format!("call of {}: {message}", block.name));
        let input = |name: &String| {
            if name == "kv" { self.kv.get(call.kv? as usize) } else { values.get(name.as_str()) }
        };
        let inputs: Vec<&RtValue> = block
            .inputs
            .iter()
            .map(|name| input(name).ok_or_else(|| wrong(format!("{name} has no value"))))
            .collect::<Result<_>>()?;
        let params: Vec<&RtValue> = call.params.iter().filter_map(|id| self.params[id.0 as usize].as_ref()).collect();
        eval_graph(&block.graph, &inputs, &params).map_err(|e| wrong(e.to_string()))
    }

    fn load(&mut self, id: ParamId) -> Result<()> {
        let slot = self.params.get_mut(id.0 as usize);
        let slot = slot.ok_or_else(|| Error::Interp(format!("the module has no parameter {}", id.0)))?;
        if slot.is_none() {
            *slot = Some(RtValue::Tensor(self.source.load(&self.module.param(id).name)?));
        }
        Ok(())
    }

    fn store_kv(&mut self, call: &Call, value: RtValue) -> Result<()> {
        let slot = call.kv.and_then(|index| self.kv.get_mut(index as usize));
        *slot.ok_or_else(|| Error::Interp("a KV cache is written by a call without kv".into()))? = value;
        Ok(())
    }
}
