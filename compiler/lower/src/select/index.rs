//! Embedding lookups, gathered rows, and the table of angles.

use super::Selected;
use crate::block::Lowering;
use crate::error::Result;
use crate::weights::{PackLayout, Units, format_for};
use llmc_ir::ops::Op;
use llmc_ir::{NodeId, Value};
use llmc_kernels::WeightFormat;
use llmc_kernels::formats::quant::QuantLayout;
use llmc_kernels::ops::embed::EmbedKernel;
use llmc_kernels::ops::gather::GatherKernel;
use llmc_kernels::ops::rope::RopeTableKernel;

/// The kernel of such a node.
///
/// # Errors
/// If an operand is not of the kind expected.
pub fn select(l: &mut Lowering<'_>, node: NodeId) -> Result<Selected> {
    let operands = l.block.graph.operands(node);
    let out = l.rows(node, Value { node, slot: 0 })?;
    match l.block.graph.op(node) {
        Op::Embed {} => {
            let (expr, ty) = l.weight(node, operands[0])?;
            let n = ty.shape[0].constant().unwrap_or(0);
            let format = format_for(&ty, out.width);
            let layout = PackLayout::Panels { format, k: out.width, units: Units::plain(n, 1) };
            let index = l.step_array(node, operands[1])?;
            let table = l.place(vec![expr], layout);
            let values = match format {
                WeightFormat::Quant(scheme) if QuantLayout::table_bytes(scheme).is_some() => {
                    Some(l.place(vec![], PackLayout::Table(scheme)))
                }
                _ => None,
            };
            Ok(Selected::Embed(EmbedKernel { index, table, format, values, out }))
        }
        Op::Gather {} => {
            if l.step_array(node, operands[1])? != "rows" {
                return Err(l.error(node, "gathers rows of the step only"));
            }
            Ok(Selected::Gather(GatherKernel { x: l.rows(node, operands[0])?, y: out }))
        }
        Op::RopeTable { scaling, period } => {
            let (scaling, period) = (scaling.get(), *period);
            let (expr, _) = l.weight(node, operands[1])?;
            let units = Units::vector(out.width / 2);
            let inv_freq = l.place(vec![expr], PackLayout::Vector { units });
            Ok(Selected::RopeTable(RopeTableKernel { inv_freq, table: out, scaling, period }))
        }
        _ => Err(l.error(node, "is not a lookup")),
    }
}
