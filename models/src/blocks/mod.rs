//! From spec to graph: one function for each enum of the spec.
//!
//! [`BlockBuilder`] makes one block: it declares inputs and formal parameters as they are first
//! used, and turns the transforms of a weight into ops.

pub mod attention;
pub mod ends;
pub mod ffn;
pub mod layer;
pub mod rope;

use crate::bind::{Transform, WeightRef};
use crate::build::{Activations, BuildOptions};
use crate::error::{Error, Result};
use crate::spec::NormSpec;
use llmc_abi::manifest::Keep;
use llmc_ir::ops::Real;
use llmc_ir::{Block, DType, Dim, Graph, KvType, Op, ParamInfo, Sym, TensorType, Type, Value};
use std::collections::BTreeMap;

/// Weights of a model, by canonical name.
pub type Weights = BTreeMap<String, WeightRef>;

/// A finished block and the parameters its first caller binds to the formal ones.
#[derive(Clone, Debug)]
pub struct Built {
    /// The block.
    pub block: Block,
    /// Canonical parameter for each formal one.
    pub actual: Vec<String>,
}

/// Makes one block.
pub struct BlockBuilder<'a> {
    name: String,
    prefix: String,
    weights: &'a Weights,
    options: &'a BuildOptions,
    graph: Graph,
    inputs: Vec<String>,
    input_values: Vec<Value>,
    params: Vec<ParamInfo>,
    actual: Vec<String>,
    param_values: Vec<Value>,
    outputs: Vec<String>,
    output_values: Vec<Value>,
}

impl<'a> BlockBuilder<'a> {
    /// An empty block whose weights are those named `prefix..`.
    pub fn new(name: &str, prefix: &str, weights: &'a Weights, options: &'a BuildOptions) -> BlockBuilder<'a> {
        BlockBuilder {
            name: name.into(),
            prefix: prefix.into(),
            weights,
            options,
            graph: Graph::new(),
            inputs: Vec::new(),
            input_values: Vec::new(),
            params: Vec::new(),
            actual: Vec::new(),
            param_values: Vec::new(),
            outputs: Vec::new(),
            output_values: Vec::new(),
        }
    }

    /// What sequences of any length keep of their cache.
    pub fn keep(&self) -> Option<Keep> {
        self.options.keep
    }

    /// The step's value `name`.
    pub fn input(&mut self, name: &str, ty: Type) -> Result<Value> {
        if let Some(i) = self.inputs.iter().position(|n| n == name) {
            return Ok(self.input_values[i]);
        }
        let value = self.graph.push(Op::Input { index: self.inputs.len() as u32, ty }, &[])?;
        self.inputs.push(name.into());
        self.input_values.push(value);
        Ok(value)
    }

    /// A vector of one i32 for each token.
    pub fn token_input(&mut self, name: &str) -> Result<Value> {
        self.input(name, TensorType::new(DType::I32, [Dim::Sym(Sym::Tokens)]).into())
    }

    /// The KV cache of the layer.
    pub fn kv_input(&mut self, heads: usize, head_dim: usize) -> Result<Value> {
        self.input("kv", KvType { dtype: self.options.kv, heads, head_dim }.into())
    }

    /// Writes the step's value `name`.
    pub fn output(&mut self, name: &str, value: Value) {
        self.outputs.push(name.into());
        self.output_values.push(value);
    }

    /// A node with one result.
    pub fn push(&mut self, op: Op, operands: &[Value]) -> Result<Value> {
        Ok(self.graph.push(op, operands)?)
    }

    /// The weight `name` within the block's prefix: the parameter as stored, then its transforms.
    pub fn weight(&mut self, name: &str) -> Result<Value> {
        let full = format!("{}{name}", self.prefix);
        let reference = self
            .weights
            .get(&full)
            .ok_or_else(|| Error::Options(format!("the checkpoint gives no weight {full}; this is a bug of llmc")))?;
        let shared = reference.transforms.iter().any(|t| matches!(t, Transform::Rows { .. }));
        let formal = match reference.param.strip_prefix(&self.prefix) {
            Some(stored) if shared => stored,
            _ => name,
        };
        let mut value = self.param(formal, reference)?;
        for transform in &reference.transforms {
            let op = match *transform {
                Transform::Transpose => Op::Transpose {},
                Transform::Rows { start, len } => Op::SliceRows { start, len },
            };
            value = self.push(op, &[value])?;
        }
        Ok(value)
    }

    fn param(&mut self, formal: &str, reference: &WeightRef) -> Result<Value> {
        if let Some(i) = self.params.iter().position(|p| p.name == formal) {
            return Ok(self.param_values[i]);
        }
        let op = Op::Param { index: self.params.len() as u32, ty: reference.ty.clone().into() };
        let value = self.graph.push(op, &[])?;
        self.params.push(ParamInfo { name: formal.into(), ty: reference.ty.clone() });
        self.actual.push(reference.param.clone());
        self.param_values.push(value);
        Ok(value)
    }

    /// `norm(x)` with the weights `name.scale` and, where the norm has one, `name.bias`.
    pub fn norm(&mut self, norm: NormSpec, name: &str, x: Value) -> Result<Value> {
        let scale = self.weight(&format!("{name}.scale"))?;
        match norm {
            NormSpec::Rms { eps } => self.push(Op::RmsNorm { eps: Real::new(eps) }, &[x, scale]),
            NormSpec::Layer { eps } => {
                let bias = self.weight(&format!("{name}.bias"))?;
                self.push(Op::LayerNorm { eps: Real::new(eps) }, &[x, scale, bias])
            }
        }
    }

    /// What a product reads of `x`: `x` itself, or rounded where activations are narrow.
    pub fn round(&mut self, x: Value) -> Result<Value> {
        match self.options.activations {
            Activations::F32 => Ok(x),
            Activations::Bf16 => self.push(Op::Round { dtype: DType::Bf16 }, &[x]),
        }
    }

    /// `x . weight^T + bias` with the weights `name.weight` and, with `bias`, `name.bias`.
    pub fn project(&mut self, name: &str, bias: bool, x: Value) -> Result<Value> {
        let weight = self.weight(&format!("{name}.weight"))?;
        let y = self.push(Op::MatMul {}, &[x, weight])?;
        if !bias {
            return Ok(y);
        }
        let bias = self.weight(&format!("{name}.bias"))?;
        self.push(Op::Bias {}, &[y, bias])
    }

    /// The block.
    pub fn finish(mut self) -> Built {
        self.graph.set_outputs(self.output_values);
        let block = Block {
            name: self.name,
            inputs: self.inputs,
            params: self.params,
            outputs: self.outputs,
            graph: self.graph,
        };
        Built { block, actual: self.actual }
    }
}

/// `f32[T, width..]`.
pub fn per_token(shape: &[usize]) -> TensorType {
    let dims = std::iter::once(Dim::Sym(Sym::Tokens)).chain(shape.iter().map(|&n| Dim::Const(n)));
    TensorType::new(DType::F32, dims)
}
