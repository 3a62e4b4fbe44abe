//! Values to buffers: what shares memory, and where it lies in the arena.
//!
//! A class is a set of values in one buffer: reshapes of each other, and results written over an
//! operand that nobody reads any more. Named values that blocks hand on lie at fixed places, so
//! the hidden state is updated where it is.

use crate::error::{Error, Result};
use llmc_ir::ops::{Epilogue, Op};
use llmc_ir::{Block, DType, Dim, Graph, NodeId, Sym, Type, Value};
use llmc_kernels::env::{Count, Place, RowElem, Rows};
use llmc_kernels::layout::ALIGN;
use std::collections::BTreeMap;

/// Largest counts of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Tokens.
    pub tokens: usize,
    /// Rows whose logits are wanted.
    pub rows: usize,
}

impl StepLimits {
    /// The limit of a count.
    pub fn of(self, count: Count) -> usize {
        match count {
            Count::Tokens => self.tokens,
            Count::Rows => self.rows,
        }
    }
}

/// Rows and width of an activation: its first dimension and the product of the others.
pub fn rows_of(ty: &Type) -> Option<(Count, usize)> {
    let t = ty.tensor()?;
    let count = match t.shape.first()? {
        Dim::Sym(Sym::Tokens) => Count::Tokens,
        Dim::Sym(Sym::Rows) => Count::Rows,
        Dim::Const(_) => return None,
    };
    let width = t.shape[1..].iter().try_fold(1usize, |n, d| n.checked_mul(d.constant()?))?;
    Some((count, width))
}

/// How the elements of an activation of this type lie in memory.
pub fn row_elem(ty: &Type) -> RowElem {
    ty.tensor().map_or(RowElem::F32, |t| row_elem_of(t.dtype))
}

/// The same for an element type.
pub fn row_elem_of(dtype: DType) -> RowElem {
    match dtype {
        DType::Bf16 => RowElem::Bf16,
        DType::I8 => RowElem::Bytes,
        _ => RowElem::F32,
    }
}

/// Bytes of a buffer for an activation of this type.
pub fn buffer_bytes(ty: &Type, limits: StepLimits) -> Option<usize> {
    let (count, width) = rows_of(ty)?;
    limits.of(count).checked_mul(row_elem(ty).stride(width)).map(|b| b.next_multiple_of(ALIGN))
}

/// Whether rows of both types lie in memory alike.
fn same_rows(a: &Type, b: &Type) -> bool {
    rows_of(a) == rows_of(b) && row_elem(a) == row_elem(b)
}

/// Where named values lie: fixed for the whole step.
#[derive(Clone, Debug, Default)]
pub struct Globals {
    /// Arena offset and bytes of each name.
    pub places: BTreeMap<String, (usize, usize)>,
    /// Bytes of all of them.
    pub bytes: usize,
}

impl Globals {
    /// Places every named activation that blocks hand on.
    pub fn place(blocks: &[Block], limits: StepLimits) -> Globals {
        let mut globals = Globals::default();
        for block in blocks {
            for (name, v) in block.outputs.iter().zip(block.graph.outputs()) {
                let bytes = block.graph.ty(*v).ok().and_then(|ty| buffer_bytes(ty, limits));
                if let (Some(bytes), false) = (bytes, name == "logits" || globals.places.contains_key(name)) {
                    globals.places.insert(name.clone(), (globals.bytes, bytes));
                    globals.bytes += bytes;
                }
            }
        }
        globals
    }
}

/// Where a class lies.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Home {
    /// A named value's place.
    Global(String),
    /// The step's result.
    Logits,
    /// In the block's own part of the arena, live between two node positions.
    Local,
}

#[derive(Clone, Debug)]
struct Class {
    home: Home,
    values: Vec<Value>,
    bytes: usize,
    offset: usize,
}

/// Buffers of one block.
#[derive(Debug)]
pub struct Buffers {
    classes: Vec<Class>,
    class_of: BTreeMap<Value, usize>,
    temps: BTreeMap<NodeId, (usize, usize)>,
    /// Outputs whose value has to be copied to the named place in the end: (value, name).
    pub copies: Vec<(Value, String)>,
    /// End of the block's part of the arena.
    pub end: usize,
}

/// Operands that a node may overwrite with its result.
fn overwritable(op: &Op, operands: &[Value]) -> Vec<usize> {
    match op {
        Op::Add {} | Op::Mul {} => vec![0, 1],
        Op::Bias {}
        | Op::Scale { .. }
        | Op::Round { .. }
        | Op::Act { .. }
        | Op::RmsNorm { .. }
        | Op::LayerNorm { .. }
        | Op::Rope { .. } => {
            vec![0]
        }
        Op::Linear { prologue, round, epilogue } => {
            let spec = llmc_ir::LinearSpec { prologue: *prologue, round: *round, epilogue: epilogue.clone() };
            let mut next = prologue.operands() + if spec.is_gated() { 2 } else { 1 };
            let mut found = Vec::new();
            for (step, n) in epilogue.iter().zip(spec.epilogue_operands()) {
                if matches!(step, Epilogue::Residual | Epilogue::Mul) && operands[next] != operands[0] {
                    found.push(next);
                }
                next += n;
            }
            found
        }
        _ => vec![],
    }
}

impl Buffers {
    /// Assigns buffers to the values that the nodes `order` compute. `temp` says how much scratch
    /// shared by the workers a node needs.
    ///
    /// # Errors
    /// If a value is neither an activation nor a KV cache.
    pub fn assign(
        block: &Block,
        order: &[NodeId],
        globals: &Globals,
        limits: StepLimits,
        temp: impl Fn(NodeId) -> usize,
    ) -> Result<Buffers> {
        let mut b =
            Buffers { classes: vec![], class_of: BTreeMap::new(), temps: BTreeMap::new(), copies: vec![], end: 0 };
        let position: BTreeMap<NodeId, usize> = order.iter().enumerate().map(|(i, n)| (*n, i)).collect();
        for node in block.graph.nodes() {
            if let Op::Input { index, .. } = block.graph.op(node) {
                let name = &block.inputs[*index as usize];
                if let Some((_, bytes)) = globals.places.get(name) {
                    b.new_class(Value { node, slot: 0 }, Home::Global(name.clone()), *bytes);
                }
            }
        }
        for (i, node) in order.iter().enumerate() {
            b.add_node(block, *node, i, &position, limits)?;
        }
        b.place_outputs(block, globals);
        b.allocate(block, order, &position, globals, temp);
        Ok(b)
    }

    fn new_class(&mut self, v: Value, home: Home, bytes: usize) {
        self.class_of.insert(v, self.classes.len());
        self.classes.push(Class { home, values: vec![v], bytes, offset: 0 });
    }

    fn join(&mut self, v: Value, class: usize) {
        self.class_of.insert(v, class);
        self.classes[class].values.push(v);
    }

    fn add_node(
        &mut self,
        block: &Block,
        node: NodeId,
        at: usize,
        position: &BTreeMap<NodeId, usize>,
        limits: StepLimits,
    ) -> Result<()> {
        let g = &block.graph;
        let operands = g.operands(node);
        for (slot, ty) in g.types(node).iter().enumerate() {
            let v = Value { node, slot: slot as u32 };
            if matches!(ty, Type::Kv(_)) {
                continue;
            }
            let bytes = buffer_bytes(ty, limits).ok_or_else(|| Error::Node {
                block: block.name.clone(),
                node: node.0,
                op: g.op(node).name(),
                message: format!("a result of type {ty} has no buffer; rows must follow T or R"),
            })?;
            let shared = match g.op(node) {
                Op::Reshape { .. } => self.class_of.get(&operands[0]).copied(),
                op => overwritable(op, &operands)
                    .into_iter()
                    .filter(|i| g.ty(operands[*i]).is_ok_and(|t| same_rows(t, ty)))
                    .filter_map(|i| self.class_of.get(&operands[i]).copied())
                    .find(|c| self.free_after(block, *c, at, position)),
            };
            match shared {
                Some(class) => self.join(v, class),
                None => self.new_class(v, Home::Local, bytes),
            }
        }
        Ok(())
    }

    /// Whether nobody reads the class after node position `at`, and it may be written.
    fn free_after(&self, block: &Block, class: usize, at: usize, position: &BTreeMap<NodeId, usize>) -> bool {
        let writable = match &self.classes[class].home {
            Home::Global(name) => block.outputs.contains(name),
            _ => true,
        };
        writable && self.last_use(block, class, position) <= at
    }

    /// Position of the last node that reads a value of the class; past the end for outputs.
    fn last_use(&self, block: &Block, class: usize, position: &BTreeMap<NodeId, usize>) -> usize {
        let values = &self.classes[class].values;
        if values.iter().any(|v| block.graph.outputs().contains(v)) {
            return usize::MAX;
        }
        values
            .iter()
            .flat_map(|v| uses(&block.graph, *v))
            .filter_map(|n| position.get(&n).copied())
            .chain(values.iter().filter_map(|v| position.get(&v.node).copied()))
            .max()
            .unwrap_or(0)
    }

    fn place_outputs(&mut self, block: &Block, globals: &Globals) {
        for (name, v) in block.outputs.iter().zip(block.graph.outputs()) {
            let Some(class) = self.class_of.get(v).copied() else { continue };
            let home = if name == "logits" { Home::Logits } else { Home::Global(name.clone()) };
            if self.classes[class].home == home {
                continue;
            }
            let taken = self.classes.iter().any(|c| c.home == home);
            if self.classes[class].home == Home::Local && !taken {
                self.classes[class].home = home;
            } else if globals.places.contains_key(name) {
                self.copies.push((*v, name.clone()));
            }
        }
    }

    /// Gives local classes and temporaries offsets: first fit over the intervals in which they live.
    fn allocate(
        &mut self,
        block: &Block,
        order: &[NodeId],
        position: &BTreeMap<NodeId, usize>,
        globals: &Globals,
        temp: impl Fn(NodeId) -> usize,
    ) {
        let mut taken: Vec<(usize, usize, usize, usize)> = Vec::new();
        let mut fit = |first: usize, last: usize, bytes: usize| {
            let mut overlapping: Vec<(usize, usize)> =
                taken.iter().filter(|(f, l, ..)| *f <= last && first <= *l).map(|(.., o, n)| (*o, *n)).collect();
            overlapping.sort_unstable();
            let mut offset = globals.bytes;
            for (o, n) in overlapping {
                if offset + bytes <= o {
                    break;
                }
                offset = offset.max(o + n);
            }
            taken.push((first, last, offset, bytes));
            offset
        };
        for class in 0..self.classes.len() {
            let c = &self.classes[class];
            self.classes[class].offset = match &c.home {
                Home::Global(name) => globals.places[name].0,
                Home::Logits => 0,
                Home::Local => {
                    let first = c.values.iter().filter_map(|v| position.get(&v.node)).min().copied().unwrap_or(0);
                    fit(first, self.last_use(block, class, position), c.bytes)
                }
            };
        }
        for (i, node) in order.iter().enumerate() {
            let bytes = temp(*node).next_multiple_of(ALIGN);
            if bytes > 0 {
                self.temps.insert(*node, (fit(i, i, bytes), bytes));
            }
        }
        self.end = taken.iter().map(|(.., o, n)| o + n).max().unwrap_or(0).max(globals.bytes);
    }

    /// The rows in which an activation lies.
    pub fn rows(&self, graph: &Graph, v: Value) -> Option<Rows> {
        let class = &self.classes[*self.class_of.get(&v)?];
        let ty = graph.ty(v).ok()?;
        let (_, width) = rows_of(ty)?;
        let elem = row_elem(ty);
        Some(match class.home {
            Home::Logits => Rows { place: Place::Logits, stride: width * elem.bytes(), width, elem },
            _ => Rows::new(Place::Arena(class.offset), width, elem),
        })
    }

    /// Arena range of an activation, if it lies there.
    pub fn range(&self, v: Value) -> Option<(usize, usize)> {
        let class = &self.classes[*self.class_of.get(&v)?];
        (class.home != Home::Logits).then_some((class.offset, class.offset + class.bytes))
    }

    /// Whether an activation is the step's result.
    pub fn is_logits(&self, v: Value) -> bool {
        self.class_of.get(&v).is_some_and(|c| self.classes[*c].home == Home::Logits)
    }

    /// Arena range of a node's temporary.
    pub fn temp(&self, node: NodeId) -> Option<(usize, usize)> {
        self.temps.get(&node).map(|(o, n)| (*o, o + n))
    }
}

/// Nodes that read a value.
fn uses(graph: &Graph, v: Value) -> Vec<NodeId> {
    let reads = |n: &NodeId| graph.operands(*n).contains(&v);
    graph.users(v.node).into_iter().map(|(n, _)| n).filter(reads).collect()
}
