//! What a fused op means: the graph of primitive ops that it stands for.
//!
//! Type rule, reference meaning and cost of the fused ops come from this graph, so a fused op
//! equals the unfused computation by construction.

use super::common::{bad, traffic};
use super::{Activation, Cost, Epilogue, LinearSpec, Op, Prologue, QkvSpec, Sizes};
use crate::error::{Error, Result};
use crate::graph::{Graph, Value};
use crate::interp::{RtValue, eval_graph};
use crate::types::{DType, Dim, Type};

/// The primitive ops that `op` stands for: `Op::Input { index }` is operand `index`, the outputs
/// are its results. A primitive op gives a graph of itself.
///
/// # Errors
/// [`Error::Op`] naming `op` if it is not defined for operands of these types.
pub fn expand(op: &Op, operands: &[&Type]) -> Result<Graph> {
    let mut expansion = Expansion { op, graph: Graph::new(), operands: Vec::new(), next: 0 };
    for (index, ty) in operands.iter().enumerate() {
        let input = Op::Input { index: index as u32, ty: (*ty).clone() };
        expansion.operands.push(expansion.graph.push(input, &[])?);
    }
    let outputs = expansion.build()?;
    expansion.graph.set_outputs(outputs);
    Ok(expansion.graph)
}

pub(super) fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>> {
    let graph = expand(op, operands)?;
    graph.outputs().iter().map(|v| graph.ty(*v).cloned()).collect()
}

pub(super) fn eval(op: &Op, operands: &[&RtValue]) -> Result<Vec<RtValue>> {
    let types: Vec<Type> = operands.iter().map(|v| v.ty()).collect();
    let graph = expand(op, &types.iter().collect::<Vec<_>>())?;
    eval_graph(&graph, operands, &[])
}

pub(super) fn cost(op: &Op, operands: &[&Type], sizes: Sizes) -> Cost {
    let Ok(graph) = expand(op, operands) else { return Cost::default() };
    let mut cost = Cost::default();
    for node in graph.nodes() {
        let types: Vec<&Type> = graph.operands(node).iter().filter_map(|v| graph.ty(*v).ok()).collect();
        cost += graph.op(node).cost(&types, sizes);
    }
    let results: Vec<Type> = graph.outputs().iter().filter_map(|v| graph.ty(*v).ok().cloned()).collect();
    Cost { activation_bytes: traffic(operands, &results, sizes).activation_bytes, ..cost }
}

/// An expansion under construction; `next` is the first operand not yet used.
struct Expansion<'a> {
    op: &'a Op,
    graph: Graph,
    operands: Vec<Value>,
    next: usize,
}

impl Expansion<'_> {
    fn build(&mut self) -> Result<Vec<Value>> {
        let outputs = match self.op {
            Op::Linear { prologue, round, epilogue } => {
                let spec = LinearSpec { prologue: *prologue, round: *round, epilogue: epilogue.clone() };
                self.linear(&spec)?
            }
            Op::Qkv { prologue, round, head_dim, q, k, v } => {
                let (q, k, v) = (q.clone(), k.clone(), v.clone());
                self.qkv(&QkvSpec { prologue: *prologue, round: *round, head_dim: *head_dim, q, k, v })?
            }
            other => {
                let operands = std::mem::take(&mut self.operands);
                let node = self.graph.add(other.clone(), &operands)?;
                let slots = self.graph.types(node).len() as u32;
                return Ok((0..slots).map(|slot| Value { node, slot }).collect());
            }
        };
        if self.next != self.operands.len() {
            return Err(bad(self.op, format!("{} operands given, {} used", self.operands.len(), self.next)));
        }
        Ok(outputs)
    }

    fn linear(&mut self, spec: &LinearSpec) -> Result<Vec<Value>> {
        let x = self.prologue(spec.prologue, spec.round)?;
        let Some(gate) = spec.epilogue.iter().position(|e| matches!(e, Epilogue::Gated(_))) else {
            let w = self.operand()?;
            let y = self.push(Op::MatMul {}, &[x, w])?;
            return Ok(vec![self.steps(y, &spec.epilogue)?]);
        };
        let weights = [self.operand()?, self.operand()?];
        self.one_type("gate and up", &weights, false)?;
        let mut pair = [self.push(Op::MatMul {}, &[x, weights[0]])?, self.push(Op::MatMul {}, &[x, weights[1]])?];
        for step in &spec.epilogue[..gate] {
            self.paired(step, &mut pair)?;
        }
        let Epilogue::Gated(kind) = &spec.epilogue[gate] else { return Err(bad(self.op, "has no gated step")) };
        let y = self.gated(*kind, pair)?;
        Ok(vec![self.steps(y, &spec.epilogue[gate + 1..])?])
    }

    fn qkv(&mut self, spec: &QkvSpec) -> Result<Vec<Value>> {
        let x = self.prologue(spec.prologue, spec.round)?;
        let weights = [self.operand()?, self.operand()?, self.operand()?];
        self.one_type("wq, wk and wv", &weights, true)?;
        let mut heads = Vec::with_capacity(3);
        for (w, steps) in weights.into_iter().zip([&spec.q, &spec.k, &spec.v]) {
            let y = self.push(Op::MatMul {}, &[x, w])?;
            let y = self.steps(y, steps)?;
            heads.push(self.split_heads(y, spec.head_dim)?);
        }
        let (kv, positions, seqs) = (self.operand()?, self.operand()?, self.operand()?);
        let kv = self.push(Op::KvAppend {}, &[kv, heads[1], heads[2], positions, seqs])?;
        Ok(vec![heads[0], kv])
    }

    fn prologue(&mut self, prologue: Prologue, round: Option<DType>) -> Result<Value> {
        let mut x = self.rows()?;
        match prologue {
            Prologue::None => {}
            Prologue::RmsNorm(eps) => {
                let scale = self.operand()?;
                x = self.push(Op::RmsNorm { eps }, &[x, scale])?;
            }
            Prologue::LayerNorm(eps) => {
                let (scale, bias) = (self.operand()?, self.operand()?);
                x = self.push(Op::LayerNorm { eps }, &[x, scale, bias])?;
            }
        }
        round.map_or(Ok(x), |dtype| self.push(Op::Round { dtype }, &[x]))
    }

    /// The operand x as rows `[n,K]`; heads `[n,H,hd]` are the rows they lie in.
    fn rows(&mut self) -> Result<Value> {
        let x = self.operand()?;
        match self.graph.ty(x)?.tensor().map(|t| t.shape.as_slice()) {
            Some([n, Dim::Const(heads), Dim::Const(head_dim)]) => {
                let width = heads.checked_mul(*head_dim).ok_or_else(|| bad(self.op, "rows of heads are too long"))?;
                let shape = vec![*n, Dim::Const(width)];
                self.push(Op::Reshape { shape }, &[x])
            }
            _ => Ok(x),
        }
    }

    fn steps(&mut self, mut y: Value, steps: &[Epilogue]) -> Result<Value> {
        for step in steps {
            y = self.step(y, step)?;
        }
        Ok(y)
    }

    fn step(&mut self, y: Value, step: &Epilogue) -> Result<Value> {
        if let Some(op) = pointwise(step) {
            return self.push(op, &[y]);
        }
        if matches!(step, Epilogue::Gated(_)) {
            return Err(bad(self.op, "gated stands where there is no pair of products"));
        }
        let other = self.operand()?;
        match step {
            Epilogue::Bias => self.push(Op::Bias {}, &[y, other]),
            Epilogue::Residual => self.push(Op::Add {}, &[y, other]),
            Epilogue::Mul => self.push(Op::Mul {}, &[y, other]),
            Epilogue::HeadNorm { eps, head_dim } => self.on_heads(y, *head_dim, Op::RmsNorm { eps: *eps }, other),
            Epilogue::Rope { head_dim, rotary_dim, interleaved } => {
                let op = Op::Rope { rotary_dim: *rotary_dim, interleaved: *interleaved };
                self.on_heads(y, *head_dim, op, other)
            }
            Epilogue::Act(_) | Epilogue::Scale(_) | Epilogue::Round(_) | Epilogue::Gated(_) => Ok(y),
        }
    }

    /// A step that stands before the gate: applied to both products.
    fn paired(&mut self, step: &Epilogue, pair: &mut [Value; 2]) -> Result<()> {
        if !matches!(step, Epilogue::Bias | Epilogue::Act(_) | Epilogue::Scale(_)) {
            return Err(bad(self.op, format!("{step:?} stands before gated, expected bias, act or scale")));
        }
        for y in pair {
            *y = self.step(*y, step)?;
        }
        Ok(())
    }

    fn gated(&mut self, kind: Activation, [gate, up]: [Value; 2]) -> Result<Value> {
        let gate = self.push(Op::Act { kind }, &[gate])?;
        self.push(Op::Mul {}, &[gate, up])
    }

    /// Rows `[n,N]` seen as `[n,N/head_dim,head_dim]`.
    fn split_heads(&mut self, y: Value, head_dim: usize) -> Result<Value> {
        let [rows, Dim::Const(width)] = self.shape(y)?[..] else { return Err(bad(self.op, "rows have no width")) };
        if head_dim == 0 || width % head_dim != 0 || width == 0 {
            return Err(bad(self.op, format!("rows of {width} elements are not made of heads of {head_dim}")));
        }
        self.push(Op::Reshape { shape: vec![rows, Dim::Const(width / head_dim), Dim::Const(head_dim)] }, &[y])
    }

    fn on_heads(&mut self, y: Value, head_dim: usize, op: Op, other: Value) -> Result<Value> {
        let shape = self.shape(y)?;
        let heads = self.split_heads(y, head_dim)?;
        let heads = self.push(op, &[heads, other])?;
        self.push(Op::Reshape { shape }, &[heads])
    }

    fn shape(&self, v: Value) -> Result<Vec<Dim>> {
        self.graph.ty(v)?.tensor().map(|t| t.shape.clone()).ok_or_else(|| bad(self.op, "a product is not a tensor"))
    }

    /// Checks that weights multiplied together have one type, or one element type.
    fn one_type(&self, what: &str, weights: &[Value], only_dtype: bool) -> Result<()> {
        let types: Vec<&Type> = weights.iter().map(|v| self.graph.ty(*v)).collect::<Result<_>>()?;
        let key = |t: &Type| t.tensor().map(|t| (t.dtype, (!only_dtype).then(|| t.shape.clone())));
        if types.iter().any(|t| key(t) != key(types[0])) {
            let list: Vec<String> = types.iter().map(|t| t.to_string()).collect();
            let expected = if only_dtype { "one element type" } else { "one type" };
            return Err(bad(self.op, format!("{what} are {}, expected {expected}", list.join(", "))));
        }
        Ok(())
    }

    fn operand(&mut self) -> Result<Value> {
        let missing = || bad(self.op, format!("{} operands given, expected more", self.operands.len()));
        let v = self.operands.get(self.next).copied().ok_or_else(missing)?;
        self.next += 1;
        Ok(v)
    }

    fn push(&mut self, op: Op, operands: &[Value]) -> Result<Value> {
        let rename = |e: Error| bad(self.op, e.to_string());
        self.graph.push(op, operands).map_err(rename)
    }
}

/// The primitive op of a step that takes no operand.
fn pointwise(step: &Epilogue) -> Option<Op> {
    match step {
        Epilogue::Act(kind) => Some(Op::Act { kind: *kind }),
        Epilogue::Scale(factor) => Some(Op::Scale { factor: *factor }),
        Epilogue::Round(dtype) => Some(Op::Round { dtype: *dtype }),
        _ => None,
    }
}
