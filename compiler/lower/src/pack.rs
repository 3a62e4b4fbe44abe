//! Writes weights in the layout that kernels read, with memory bounded by a few chunks.

use crate::error::{Error, Result};
use crate::weights::{BoundItem, Item, PackLayout, Units, WeightExpr, WeightsPlan, params_of, type_of};
use llmc_ir::ops::select::places;
use llmc_ir::quant::Scheme;
use llmc_ir::{Block, Call, Module, ParamSource, Tensor, TensorType};
use llmc_kernels::WeightFormat;
use llmc_kernels::formats::quant::QuantLayout;
use llmc_kernels::layout::PANEL;
use rayon::prelude::*;

/// Receives packed bytes: offset in the weights section and the bytes. Offsets ascend.
pub type Sink<'a> = dyn FnMut(u64, &[u8]) -> std::io::Result<()> + 'a;

/// Bytes of packed weights that are in memory at a time.
const CHUNK_BYTES: usize = 16 << 20;

/// Packs every item of the plan into `sink`, in order of offset. Bytes between items are not
/// written and count as zero.
///
/// # Errors
/// If a parameter cannot be read or the sink fails.
pub fn pack(module: &Module, plan: &WeightsPlan, params: &dyn ParamSource, sink: &mut Sink<'_>) -> Result<()> {
    plan.items.iter().try_for_each(|bound| pack_item(module, bound, params, sink))
}

fn pack_item(module: &Module, bound: &BoundItem, params: &dyn ParamSource, sink: &mut Sink<'_>) -> Result<()> {
    let call = &module.calls[bound.call];
    let block = module.block(call.block);
    let sources: Vec<Source<'_>> =
        bound.item.sources.iter().map(|e| Source::open(e, block, call, module, params)).collect::<Result<_>>()?;
    match &bound.item.layout {
        PackLayout::Vector { units } => pack_vector(&bound.item, units, &sources, sink),
        PackLayout::Panels { format, k, units } => {
            pack_panels(&bound.item, &Panels { format: *format, k: *k, units, sources: &sources }, sink)
        }
        PackLayout::Table(scheme) => Ok(sink(bound.item.offset as u64, &QuantLayout::table(*scheme))?),
    }
}

fn pack_vector(item: &Item, units: &Units, sources: &[Source<'_>], sink: &mut Sink<'_>) -> Result<()> {
    let data: Vec<Tensor> = sources.iter().map(|s| s.load(0..units.n)).collect::<Result<_>>()?;
    let mut bytes = vec![0u8; item.layout.bytes()];
    for (i, out) in bytes.chunks_exact_mut(4).enumerate() {
        if let Some((source, row)) = units.row_of(i / PANEL, i % PANEL) {
            out.copy_from_slice(&data[source].as_f32()?[row].to_le_bytes());
        }
    }
    Ok(sink(item.offset as u64, &bytes)?)
}

/// A matrix to be packed in panels.
struct Panels<'a> {
    format: WeightFormat,
    k: usize,
    units: &'a Units,
    sources: &'a [Source<'a>],
}

fn pack_panels(item: &Item, matrix: &Panels<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let panel_bytes = matrix.format.panel_bytes(matrix.k);
    let panels = matrix.units.total_panels();
    let per_chunk = (CHUNK_BYTES / panel_bytes).max(1);
    let mut buffer = vec![0u8; per_chunk.min(panels) * panel_bytes];
    for first in (0..panels).step_by(per_chunk) {
        let count = per_chunk.min(panels - first);
        let out = &mut buffer[..count * panel_bytes];
        out.par_chunks_exact_mut(panel_bytes)
            .enumerate()
            .try_for_each(|(i, out)| pack_panel(matrix, first + i, out))?;
        sink((item.offset + first * panel_bytes) as u64, out)?;
    }
    Ok(())
}

/// Packs the rows of one panel.
fn pack_panel(matrix: &Panels<'_>, panel: usize, out: &mut [u8]) -> Result<()> {
    out.fill(0);
    let units = matrix.units;
    let Some((source, first)) = units.row_of(panel, 0) else {
        return Ok(());
    };
    let rows = (0..PANEL).take_while(|l| units.row_of(panel, *l).is_some()).count();
    let source = &matrix.sources[source];
    match matrix.format {
        WeightFormat::Quant(scheme) => quantized_panel(matrix, scheme, source, first..first + rows, out),
        format => float_panel(matrix, format, source, first..first + rows, out),
    }
}

/// Rows beyond the weight's are encoded as zeros.
fn quantized_panel(
    matrix: &Panels<'_>,
    scheme: Scheme,
    source: &Source<'_>,
    rows: std::ops::Range<usize>,
    out: &mut [u8],
) -> Result<()> {
    let mut wide = source.load(rows)?.as_f32()?.to_vec();
    wide.resize(PANEL * matrix.k, 0.0);
    QuantLayout { scheme, k: matrix.k }.store(&scheme.encode(&wide, matrix.k), out);
    Ok(())
}

fn float_panel(
    matrix: &Panels<'_>,
    format: WeightFormat,
    source: &Source<'_>,
    rows: std::ops::Range<usize>,
    out: &mut [u8],
) -> Result<()> {
    let k = matrix.k;
    let ty = &source.ty;
    let stored_bytes = k * ty.dtype.size();
    if format.elem_bytes() == ty.dtype.size() {
        for (lane, row) in source.read(rows)?.chunks_exact(stored_bytes).enumerate() {
            scatter(format, lane, row, out);
        }
        return Ok(());
    }
    let wide = source.load(rows)?;
    for (lane, row) in wide.as_f32()?.chunks_exact(k).enumerate() {
        let row: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
        scatter(format, lane, &row, out);
    }
    Ok(())
}

/// Writes a row's elements into its lane of every step.
fn scatter(format: WeightFormat, lane: usize, row: &[u8], out: &mut [u8]) {
    let lane_bytes = format.k_step() * format.elem_bytes();
    let step = format.step_bytes();
    match lane_bytes {
        4 => scatter_lanes::<4>(lane, step, row, out),
        2 => scatter_lanes::<2>(lane, step, row, out),
        _ => unreachable!("lanes of every format have 2 or 4 bytes"),
    }
}

fn scatter_lanes<const N: usize>(lane: usize, step: usize, row: &[u8], out: &mut [u8]) {
    for (from, to) in row.chunks_exact(N).zip(out.chunks_exact_mut(step)) {
        to[lane * N..(lane + 1) * N].copy_from_slice(from);
    }
}

/// An expression with the parameters of a call: rows of stored bytes.
struct Source<'a> {
    expr: Rows<'a>,
    ty: TensorType,
}

enum Rows<'a> {
    Param {
        name: &'a str,
        params: &'a dyn ParamSource,
    },
    Bytes(Vec<u8>),
    Slice {
        of: Box<Source<'a>>,
        start: usize,
    },
    Concat(Vec<Source<'a>>),
    /// Rows (axis 0) or columns (axis 1) at these places.
    Select {
        of: Box<Source<'a>>,
        axis: usize,
        places: Vec<usize>,
    },
}

impl<'a> Source<'a> {
    fn open(
        expr: &WeightExpr,
        block: &Block,
        call: &Call,
        module: &'a Module,
        params: &'a dyn ParamSource,
    ) -> Result<Source<'a>> {
        let open = |e: &WeightExpr| Source::open(e, block, call, module, params);
        let rows = match expr {
            WeightExpr::Param(_) => {
                let name = params_of(expr, call, module)[0];
                Rows::Param { name, params }
            }
            WeightExpr::Const(data) => Rows::Bytes(data.iter().flat_map(|v| v.to_le_bytes()).collect()),
            // Codes are made when a panel is packed, from what is stored.
            WeightExpr::Quantize(e, _) => return open(e),
            WeightExpr::Transpose(e) => Rows::Bytes(open(e)?.transposed()?),
            WeightExpr::SliceRows(e, start, _) => Rows::Slice { of: Box::new(open(e)?), start: *start },
            WeightExpr::Concat(parts) => Rows::Concat(parts.iter().map(open).collect::<Result<_>>()?),
            WeightExpr::Select(e, axis, keep) => {
                let (of, keep) = (Box::new(open(e)?), open(keep)?);
                let size = of.ty.shape[*axis].constant().unwrap_or(0);
                let places = places(keep.load(0..keep.rows())?.as_i32()?, size)?;
                Rows::Select { of, axis: *axis, places }
            }
        };
        Ok(Source { expr: rows, ty: type_of(expr, block) })
    }

    /// Bytes of a row in the stored type.
    fn row_bytes(&self) -> usize {
        let width: usize = self.ty.shape[1..].iter().filter_map(|d| d.constant()).product();
        width * self.ty.dtype.size()
    }

    fn rows(&self) -> usize {
        self.ty.shape[0].constant().unwrap_or(0)
    }

    /// Rows as stored bytes.
    fn read(&self, rows: std::ops::Range<usize>) -> Result<Vec<u8>> {
        let width = self.row_bytes();
        match &self.expr {
            Rows::Param { name, params } => {
                let mut out = vec![0u8; rows.len() * width];
                params.read_rows(name, rows, &mut out)?;
                Ok(out)
            }
            Rows::Bytes(bytes) => Ok(bytes[rows.start * width..rows.end * width].to_vec()),
            Rows::Slice { of, start } => of.read(rows.start + start..rows.end + start),
            Rows::Concat(parts) => {
                let mut out = Vec::with_capacity(rows.len() * width);
                let mut first = 0;
                for part in parts {
                    let here = rows.start.max(first)..rows.end.min(first + part.rows());
                    if here.start < here.end {
                        out.extend(part.read(here.start - first..here.end - first)?);
                    }
                    first += part.rows();
                }
                Ok(out)
            }
            Rows::Select { of, axis: 0, places } => {
                let runs = places[rows].chunk_by(|a, b| a + 1 == *b);
                let parts: Vec<Vec<u8>> = runs.map(|run| of.read(run[0]..run[0] + run.len())).collect::<Result<_>>()?;
                Ok(parts.concat())
            }
            Rows::Select { of, places, .. } => {
                Ok(columns(&of.read(rows)?, of.row_bytes(), self.ty.dtype.size(), places))
            }
        }
    }

    /// Rows widened to f32.
    fn load(&self, rows: std::ops::Range<usize>) -> Result<Tensor> {
        let mut ty = self.ty.clone();
        ty.shape[0] = rows.len().into();
        Ok(Tensor::from_bytes(&ty, &self.read(rows)?)?)
    }

    /// All bytes with rows and columns swapped.
    fn transposed(&self) -> Result<Vec<u8>> {
        let bytes = self.read(0..self.rows())?;
        let (size, rows) = (self.ty.dtype.size(), self.rows());
        let columns = self.row_bytes() / size;
        let mut out = vec![0u8; bytes.len()];
        out.par_chunks_mut(rows * size).enumerate().for_each(|(c, row)| {
            for (r, to) in row.chunks_exact_mut(size).enumerate() {
                let at = (r * columns + c) * size;
                to.copy_from_slice(&bytes[at..at + size]);
            }
        });
        Ok(out)
    }
}

/// Elements of `size` bytes at these places of each row of `row_bytes`.
fn columns(rows: &[u8], row_bytes: usize, size: usize, places: &[usize]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() / row_bytes * places.len() * size);
    for row in rows.chunks_exact(row_bytes) {
        places.iter().for_each(|p| out.extend_from_slice(&row[p * size..(p + 1) * size]));
    }
    out
}

impl From<Error> for std::io::Error {
    fn from(e: Error) -> std::io::Error {
        std::io::Error::other(e.to_string())
    }
}
