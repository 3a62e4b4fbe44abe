//! Where every packed weight lies.
//!
//! A block's weights are items at offsets from the call's base; calls of one block follow each
//! other at a fixed stride. A block that is called once has absolute offsets and may share an item
//! with another such block, so a tied embedding is stored once.

use llmc_ir::ops::Op;
use llmc_ir::quant::Scheme;
use llmc_ir::{Block, DType, Graph, NodeId, TensorType, Value};
use llmc_kernels::WeightFormat;
use llmc_kernels::formats::quant::QuantLayout;
use llmc_kernels::layout::{ALIGN, PANEL};

/// A weight as a function of a block's formal parameters, evaluated when weights are packed.
#[derive(Clone, Debug, PartialEq)]
pub enum WeightExpr {
    /// Formal parameter.
    Param(usize),
    /// Constant vector.
    Const(Vec<f32>),
    /// Rows and columns swapped.
    Transpose(Box<WeightExpr>),
    /// Rows `start..start + len`.
    SliceRows(Box<WeightExpr>, usize, usize),
    /// Rows of several.
    Concat(Vec<WeightExpr>),
    /// Rows (axis 0) or columns (axis 1) that an index lists: the weight, the axis and the index.
    Select(Box<WeightExpr>, usize, Box<WeightExpr>),
    /// Stored in few bits; always outermost.
    Quantize(Box<WeightExpr>, Scheme),
}

impl WeightExpr {
    /// The expression that computes `v`, if it depends on parameters and constants alone.
    pub fn of(graph: &Graph, v: Value) -> Option<WeightExpr> {
        let operand = |i: usize| WeightExpr::of(graph, graph.operands(v.node)[i]);
        match graph.op(v.node) {
            Op::Param { index, .. } => Some(WeightExpr::Param(*index as usize)),
            Op::Const { data, .. } => Some(WeightExpr::Const(data.iter().map(|r| r.get()).collect())),
            Op::Transpose {} => Some(WeightExpr::Transpose(Box::new(operand(0)?))),
            Op::Quantize { scheme } => Some(WeightExpr::Quantize(Box::new(operand(0)?), *scheme)),
            Op::Select { axis } => Some(WeightExpr::Select(Box::new(operand(0)?), *axis, Box::new(operand(1)?))),
            Op::SliceRows { start, len } => Some(WeightExpr::SliceRows(Box::new(operand(0)?), *start, *len)),
            Op::Concat {} => {
                let parts = graph.operands(v.node);
                Some(WeightExpr::Concat(parts.iter().map(|p| WeightExpr::of(graph, *p)).collect::<Option<_>>()?))
            }
            _ => None,
        }
    }

    /// True for a node that is evaluated when weights are packed.
    pub fn is_weight(graph: &Graph, node: NodeId) -> bool {
        WeightExpr::of(graph, Value { node, slot: 0 }).is_some()
    }
}

/// How an item lies in memory.
#[derive(Clone, Debug, PartialEq)]
pub enum PackLayout {
    /// Panels of a matrix `[n, k]`, or of a gate and up pair.
    Panels {
        /// Format of the panels.
        format: WeightFormat,
        /// Elements per row.
        k: usize,
        /// How rows are cut into units.
        units: Units,
    },
    /// The table that a scheme looks its values up in.
    Table(Scheme),
    /// f32 elements of a vector, in the order in which a unit's panels have their rows.
    Vector {
        /// How elements are cut into units.
        units: Units,
    },
}

/// A result's rows cut into units of panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units {
    /// Rows of the result (of one of a pair).
    pub n: usize,
    /// Rows of the result in a unit.
    pub rows: usize,
    /// Panels of a unit, both of a pair counted.
    pub panels: usize,
    /// Sources: 1, or 2 for a gate and up pair.
    pub sources: usize,
}

impl Units {
    /// Units for rows that need not stay together.
    pub fn plain(n: usize, sources: usize) -> Units {
        let panels = llmc_kernels::layout::unit_panels(n.div_ceil(PANEL));
        Units { n, rows: panels * PANEL, panels: panels * sources, sources }
    }

    /// One unit for each head.
    pub fn heads(n: usize, head_dim: usize) -> Units {
        Units { n, rows: head_dim, panels: head_dim.div_ceil(PANEL), sources: 1 }
    }

    /// A vector that is read element by element.
    pub fn vector(n: usize) -> Units {
        Units { n, rows: n, panels: n.div_ceil(PANEL), sources: 1 }
    }

    /// Number of units.
    pub fn count(&self) -> usize {
        self.n.div_ceil(self.rows)
    }

    /// Panels of all units.
    pub fn total_panels(&self) -> usize {
        self.count() * self.panels
    }

    /// Source and row that lane `lane` of panel `panel` holds, if any.
    pub fn row_of(&self, panel: usize, lane: usize) -> Option<(usize, usize)> {
        let (unit, in_unit) = (panel / self.panels, panel % self.panels);
        let each = self.panels / self.sources;
        let (source, offset) = (in_unit / each, in_unit % each * PANEL + lane);
        let row = unit * self.rows + offset;
        (offset < self.rows && row < self.n).then_some((source, row))
    }
}

impl PackLayout {
    /// Bytes of the packed item.
    pub fn bytes(&self) -> usize {
        match self {
            PackLayout::Panels { format, k, units } => units.total_panels() * format.panel_bytes(*k),
            PackLayout::Vector { units } => units.total_panels() * PANEL * 4,
            PackLayout::Table(scheme) => QuantLayout::table_bytes(*scheme).unwrap_or(0),
        }
    }

    /// How rows are cut into units, where there are rows.
    pub fn units(&self) -> Option<&Units> {
        match self {
            PackLayout::Panels { units, .. } | PackLayout::Vector { units } => Some(units),
            PackLayout::Table(_) => None,
        }
    }
}

/// A packed weight of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What is packed: one expression, or a gate and up pair.
    pub sources: Vec<WeightExpr>,
    /// How it lies.
    pub layout: PackLayout,
    /// Byte offset from the call's base.
    pub offset: usize,
}

/// The format that a weight of this stored type and row length is packed in.
pub fn format_for(ty: &TensorType, k: usize) -> WeightFormat {
    match ty.dtype {
        DType::Quant(scheme) => WeightFormat::Quant(scheme),
        DType::F16 => WeightFormat::F16,
        DType::Bf16 if k.is_multiple_of(2) => WeightFormat::Bf16,
        _ => WeightFormat::F32,
    }
}

/// Weights of one block, in the order in which kernels first read them.
#[derive(Clone, Debug, Default)]
pub struct BlockWeights {
    /// The items.
    pub items: Vec<Item>,
    /// Bytes of all of them.
    pub bytes: usize,
}

impl BlockWeights {
    /// Offset of an item, which is added if it is new.
    pub fn place(&mut self, sources: Vec<WeightExpr>, layout: PackLayout) -> usize {
        if let Some(item) = self.items.iter().find(|i| i.sources == sources && i.layout == layout) {
            return item.offset;
        }
        let offset = self.bytes;
        self.bytes += layout.bytes().next_multiple_of(ALIGN);
        self.items.push(Item { sources, layout, offset });
        offset
    }
}

/// An item bound to the parameters of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundItem {
    /// Index of the call in the module.
    pub call: usize,
    /// The item, its offset absolute.
    pub item: Item,
}

/// All packed weights in ascending order of offset.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightsPlan {
    /// The items.
    pub items: Vec<BoundItem>,
    /// Bytes of the weights section.
    pub bytes: usize,
}

/// Canonical names of the actual weights that an expression reads in a call; an index is none.
pub fn params_of<'a>(expr: &WeightExpr, call: &llmc_ir::Call, module: &'a llmc_ir::Module) -> Vec<&'a str> {
    match expr {
        WeightExpr::Param(i) => vec![module.param(call.params[*i]).name.as_str()],
        WeightExpr::Const(_) => vec![],
        WeightExpr::Transpose(e)
        | WeightExpr::SliceRows(e, ..)
        | WeightExpr::Select(e, ..)
        | WeightExpr::Quantize(e, _) => params_of(e, call, module),
        WeightExpr::Concat(parts) => parts.iter().flat_map(|p| params_of(p, call, module)).collect(),
    }
}

/// Type of an expression over a block's formal parameters.
pub fn type_of(expr: &WeightExpr, block: &Block) -> TensorType {
    match expr {
        WeightExpr::Param(i) => block.params[*i].ty.clone(),
        WeightExpr::Const(data) => TensorType::new(DType::F32, [data.len().into()]),
        WeightExpr::Transpose(e) => {
            let mut ty = type_of(e, block);
            ty.shape.reverse();
            ty
        }
        WeightExpr::Quantize(e, scheme) => TensorType { dtype: DType::Quant(*scheme), ..type_of(e, block) },
        WeightExpr::Select(e, axis, keep) => {
            let mut ty = type_of(e, block);
            ty.shape[*axis] = type_of(keep, block).shape[0];
            ty
        }
        WeightExpr::SliceRows(e, _, len) => {
            let mut ty = type_of(e, block);
            ty.shape[0] = (*len).into();
            ty
        }
        WeightExpr::Concat(parts) => {
            let types: Vec<TensorType> = parts.iter().map(|p| type_of(p, block)).collect();
            let rows: usize = types.iter().filter_map(|t| t.shape[0].constant()).sum();
            let mut ty = types[0].clone();
            ty.shape[0] = rows.into();
            ty
        }
    }
}

/// An expression with the actual parameters of a call in it, equal exactly for equal weights.
pub fn describe(expr: &WeightExpr, call: &llmc_ir::Call, module: &llmc_ir::Module) -> String {
    match expr {
        WeightExpr::Param(_) => params_of(expr, call, module)[0].into(),
        WeightExpr::Const(data) => format!("{:?}", data.iter().map(|v| v.to_bits()).collect::<Vec<_>>()),
        WeightExpr::Transpose(e) => format!("transpose({})", describe(e, call, module)),
        WeightExpr::Quantize(e, scheme) => format!("{scheme}({})", describe(e, call, module)),
        WeightExpr::Select(e, axis, keep) => {
            format!("select({axis},{},{})", describe(e, call, module), describe(keep, call, module))
        }
        WeightExpr::SliceRows(e, start, len) => format!("slice({start},{len},{})", describe(e, call, module)),
        WeightExpr::Concat(parts) => {
            format!("concat({})", parts.iter().map(|p| describe(p, call, module)).collect::<Vec<_>>().join(","))
        }
    }
}
