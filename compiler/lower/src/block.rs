//! One block: its graph's nodes become kernels over buffers, with barriers between them.

use crate::ahead::AheadPlaces;
use crate::buffers::{Buffers, rows_of};
use crate::error::{Error, Result};
use crate::phases::{Effects, Phases, Resource};
use crate::plan::{Context, SharedItems};
use crate::select::{self, Selected};
use crate::weights::{BlockWeights, BoundItem, Item, PackLayout, WeightExpr, type_of};
use llmc_ir::ops::{Op, Sizes};
use llmc_ir::{Block, Call, Graph, NodeId, TensorType, Type, Value};
use llmc_kernels::env::{Count, Place, Rows};
use llmc_kernels::kir::Function;
use llmc_kernels::ops::gpu::sample::SampleKernel;
use llmc_kernels::ops::kv::KvCache;
use llmc_kernels::ops::pointwise::{Pointwise, PointwiseKernel};
use llmc_kernels::ops::step::Action;

/// A lowered block.
#[derive(Debug)]
pub struct BlockPlan {
    /// What a call of the block does.
    pub actions: Vec<Action>,
    /// Weights at offsets from the call's base, where the block is called several times.
    pub weights: BlockWeights,
    /// Weights at absolute offsets that this block was the first to need, where it is called once.
    pub shared: Vec<BoundItem>,
    /// Bytes of the arena the block needs, named values included.
    pub arena_bytes: usize,
    /// Bytes of scratch of each worker.
    pub worker_bytes: usize,
    /// Counters that its kernels use.
    pub counters: usize,
    /// Shared memory of its kernels that are no products.
    pub between: usize,
    /// Kernel that asks for the first weights of a call.
    pub ahead: Vec<String>,
}

/// A block being lowered: what [`select`] asks for operands, weights and scratch.
pub struct Lowering<'a> {
    /// The whole plan's facts.
    pub cx: &'a Context<'a>,
    /// The block.
    pub block: &'a Block,
    /// Its buffers.
    pub buffers: Buffers,
    call: usize,
    layer: Option<u32>,
    weights: BlockWeights,
    shared: Option<&'a mut SharedItems>,
    /// Bytes of scratch of each worker so far.
    pub worker_bytes: usize,
    /// Counters of kernels so far.
    pub counters: usize,
    ahead: AheadPlaces,
    between: usize,
    /// Bytes of the arena that the choice of tokens needs.
    sample_bytes: usize,
}

/// Lowers `block`, one of whose calls is `call`. With `shared`, it is called only once.
///
/// # Errors
/// [`Error::Node`] if a node has no kernel in the form found.
pub fn lower_block(
    cx: &Context<'_>,
    block: &Block,
    call: &Call,
    shared: Option<&mut SharedItems>,
    functions: &mut Vec<Function>,
    phases: &mut Phases,
) -> Result<BlockPlan> {
    let graph = &block.graph;
    let order: Vec<NodeId> = graph.nodes().filter(|n| runs(graph, *n)).collect();
    let temp = |n: NodeId| select::temp_bytes(cx, graph, n);
    let buffers = Buffers::assign(block, &order, &cx.globals, cx.limits, temp)?;
    let first_shared = shared.as_ref().map_or(0, |s| s.items.len());
    let call_index = cx.module.calls.iter().position(|c| c == call).expect("a call of the module");
    let mut l = Lowering {
        cx,
        block,
        buffers,
        call: call_index,
        layer: call.kv,
        weights: BlockWeights::default(),
        shared,
        worker_bytes: 0,
        counters: 0,
        ahead: AheadPlaces::default(),
        between: 0,
        sample_bytes: 0,
    };
    let mut actions = Vec::new();
    for node in &order {
        if !matches!(graph.op(*node), Op::Reshape { .. }) {
            l.node(*node, &mut actions, functions, phases)?;
        }
    }
    l.copies(&mut actions, functions, phases);
    l.sample(&mut actions, functions, phases);
    if cx.is_gpu {
        l.ahead.finish(&mut actions);
    }
    phases.barrier(&mut actions);
    let shared = l.shared.as_ref().map_or(vec![], |s| s.items[first_shared..].iter().map(|(_, i)| i.clone()).collect());
    Ok(BlockPlan {
        actions,
        weights: l.weights,
        shared,
        arena_bytes: l.buffers.end.max(l.sample_bytes),
        worker_bytes: l.worker_bytes,
        counters: l.counters,
        between: l.between,
        ahead: l.ahead.first,
    })
}

/// Whether a node does something when a step runs.
fn runs(graph: &Graph, node: NodeId) -> bool {
    !matches!(graph.op(node), Op::Input { .. } | Op::Param { .. } | Op::Const { .. })
        && !WeightExpr::is_weight(graph, node)
}

impl<'a> Lowering<'a> {
    /// An error at a node.
    pub fn error(&self, node: NodeId, message: impl Into<String>) -> Error {
        Error::Node {
            block: self.block.name.clone(),
            node: node.0,
            op: self.block.graph.op(node).name(),
            message: message.into(),
        }
    }

    /// Symbol of a node's kernel.
    fn symbol(&self, what: &str, number: u32) -> String {
        format!("llmc_{}_{}_{number}_{what}", self.cx.prefix, self.block.name)
    }

    /// Rows of an activation.
    ///
    /// # Errors
    /// If the value is not one.
    pub fn rows(&self, node: NodeId, v: Value) -> Result<Rows> {
        self.buffers.rows(&self.block.graph, v).ok_or_else(|| {
            self.error(node, format!("operand %{} is not an activation with rows over T or R", v.node.0))
        })
    }

    /// The count that an activation's rows follow.
    ///
    /// # Errors
    /// If the value is not an activation.
    pub fn count(&self, node: NodeId, v: Value) -> Result<Count> {
        let ty = self.block.graph.ty(v)?;
        rows_of(ty).map(|(c, _)| c).ok_or_else(|| self.error(node, format!("{ty} has no rows over T or R")))
    }

    /// The array of the step that an operand is: `ids`, `positions`, `rows`.
    ///
    /// # Errors
    /// If the operand is not a step input of that kind.
    pub fn step_array(&self, node: NodeId, v: Value) -> Result<&'static str> {
        let name = match self.block.graph.op(v.node) {
            Op::Input { index, .. } => self.block.inputs[*index as usize].as_str(),
            _ => "",
        };
        ["ids", "positions", "seqs", "rows"]
            .into_iter()
            .find(|n| *n == name)
            .ok_or_else(|| self.error(node, "an index operand must be ids, positions, seqs or rows"))
    }

    /// The weight that an operand is.
    ///
    /// # Errors
    /// If it depends on anything but parameters and constants.
    pub fn weight(&self, node: NodeId, v: Value) -> Result<(WeightExpr, TensorType)> {
        let expr = WeightExpr::of(&self.block.graph, v)
            .ok_or_else(|| self.error(node, format!("operand %{} is not a weight", v.node.0)))?;
        let ty = type_of(&expr, self.block);
        Ok((expr, ty))
    }

    /// Offset of a packed weight.
    pub fn place(&mut self, sources: Vec<WeightExpr>, layout: PackLayout) -> usize {
        match &mut self.shared {
            Some(shared) => shared.place(self.cx.module, self.call, Item { sources, layout, offset: 0 }),
            None => self.weights.place(sources, layout),
        }
    }

    /// Numbers of `count` counters for a kernel: the first one.
    pub fn take_counters(&mut self, count: usize) -> usize {
        self.counters += count;
        self.counters - count
    }

    /// The layer's KV cache.
    ///
    /// # Errors
    /// If the call names no layer.
    pub fn cache(&self, node: NodeId) -> Result<KvCache> {
        let layer = self.layer.ok_or_else(|| self.error(node, "the call of this block names no KV cache"))?;
        Ok(KvCache { layout: self.cx.kv.layers[layer as usize].0, page_bytes: self.cx.kv.page_bytes })
    }

    fn node(
        &mut self,
        node: NodeId,
        actions: &mut Vec<Action>,
        functions: &mut Vec<Function>,
        phases: &mut Phases,
    ) -> Result<()> {
        let selected = select::select(self, node)?;
        let name = self.symbol(selected.name(), node.0);
        let effects = self.effects(node, &selected);
        let scratch = self.cx.scratch;
        let ask = selected.build_ask(&format!("{name}_ahead"), scratch);
        let asks = ask.as_ref().map(|f| f.name.clone());
        let is_product = selected.is_product();
        let meets = selected.meets_inside(scratch);
        phases.kernel(actions, &name, effects, meets, |phase| functions.push(selected.build(&name, scratch, phase)));
        if is_product {
            self.ahead.product(actions, asks);
        } else {
            self.ahead.pages(asks);
            self.between = self.between.max(functions.last().map_or(0, Function::shared_bytes));
        }
        functions.extend(ask);
        Ok(())
    }

    /// What a node's kernel reads and writes.
    fn effects(&self, node: NodeId, selected: &Selected) -> Effects {
        let g = &self.block.graph;
        let mut e = Effects { weight_bytes: selected.weight_bytes(), unit: selected.unit(), ..Effects::default() };
        let resource = |v: Value| match g.ty(v) {
            Ok(Type::Kv(_)) => Some(Resource::Kv),
            _ if self.buffers.is_logits(v) => Some(Resource::Logits),
            _ => self.buffers.range(v).map(|(a, b)| Resource::Arena(a, b)),
        };
        e.reads.extend(g.operands(node).into_iter().filter_map(resource));
        for slot in 0..g.types(node).len() as u32 {
            e.writes.extend(resource(Value { node, slot }));
        }
        if matches!(g.op(node), Op::SinkAttention { counted: true, .. }) {
            e.writes.push(Resource::Kv);
        }
        e.writes.extend(self.buffers.temp(node).map(|(a, b)| Resource::Arena(a, b)));
        let types: Vec<&Type> = g.operands(node).iter().filter_map(|v| g.ty(*v).ok()).collect();
        let cost = |tokens, rows, context| g.op(node).cost(&types, Sizes { tokens, rows, context });
        if matches!(g.op(node), Op::Attention { .. } | Op::SinkAttention { .. }) {
            e.kv_bytes_per_position = (cost(1, 0, 2).memory_bytes - cost(1, 0, 1).memory_bytes) as u64;
        } else {
            e.flops_per_token = cost(1, 0, 0).flops as u64;
            e.flops_per_row = cost(0, 1, 0).flops as u64;
        }
        e
    }

    /// Kernels that move outputs to their named places where no kernel could write there.
    fn copies(&mut self, actions: &mut Vec<Action>, functions: &mut Vec<Function>, phases: &mut Phases) {
        let graph = &self.block.graph;
        for (i, (v, name)) in self.buffers.copies.clone().into_iter().enumerate() {
            let Some(x) = self.buffers.rows(graph, v) else { continue };
            let Some((count, _)) = graph.ty(v).ok().and_then(rows_of) else { continue };
            let (offset, bytes) = self.cx.globals.places[&name];
            let y = Rows::new(Place::Arena(offset), x.width, x.elem);
            let symbol = self.symbol("copy", graph.len() as u32 + i as u32);
            let effects = Effects {
                reads: self.buffers.range(v).map(|(a, b)| Resource::Arena(a, b)).into_iter().collect(),
                writes: vec![Resource::Arena(offset, offset + bytes)],
                ..Effects::default()
            };
            let kernel = PointwiseKernel { count, x, x_start: 0, y, f: Pointwise::Copy };
            let scratch = self.cx.scratch;
            phases.kernel(actions, &symbol, effects, false, |_| functions.push(kernel.build(&symbol, scratch)));
        }
    }

    /// On a GPU, the choice of tokens behind the step's result, in forms for few tokens: prompts end on the host. Nothing
    /// else in the arena is needed any more.
    fn sample(&mut self, actions: &mut Vec<Action>, functions: &mut Vec<Function>, phases: &mut Phases) {
        let graph = &self.block.graph;
        let logits = graph.outputs().iter().find(|v| self.buffers.is_logits(**v));
        let chooses = self.cx.is_gpu && !self.cx.schedule.tiles;
        let Some(logits) = logits.and_then(|v| self.buffers.rows(graph, *v)).filter(|_| chooses) else { return };
        let (rows, number) = (self.cx.limits.rows, graph.len() as u32);
        self.sample_bytes = SampleKernel::bytes(logits.width, rows);
        let (pieces, counters) = (Place::Arena(0), self.take_counters(rows));
        let kernel = SampleKernel { vocab: logits.width, pieces, counters };
        let symbol = self.symbol("sample", number);
        let writes = vec![Resource::Arena(0, self.sample_bytes)];
        let effects = Effects { reads: vec![Resource::Logits], writes, ..Effects::default() };
        let scratch = self.cx.scratch;
        phases.kernel(actions, &symbol, effects, false, |_| functions.push(kernel.build(&symbol, scratch)));
    }
}
