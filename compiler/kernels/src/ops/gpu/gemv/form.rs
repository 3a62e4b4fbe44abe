//! How a kernel's tiles are multiplied.

use super::COARSE;
use crate::env::RowElem;
use crate::formats::WeightFormat;
use crate::formats::float_rows::FloatRows;
use crate::formats::quant::QuantLayout;
use crate::kir::Elem;
use crate::layout::PANEL;
use crate::ops::gpu::coded::Coded;
use crate::ops::gpu::fragments::{Ahead, Fragments};
use crate::ops::gpu::integers::Integers;
use crate::ops::gpu::rows::Staged;
use crate::ops::gpu::scalars::Scalars;
use crate::ops::linear::LinearKernel;

/// What a kernel's tiles are made of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    Matrix(Fragments),
    Integer(Integers),
    Coded(Coded),
    Scalar(Scalars),
}

impl Form {
    /// The product, if its weights are loaded ahead.
    pub(super) fn ahead(&self) -> Option<&dyn Ahead> {
        match self {
            Form::Matrix(f) => Some(f),
            Form::Integer(f) => Some(f),
            Form::Coded(f) => Some(f),
            Form::Scalar(_) => None,
        }
    }

    /// What the sums of a warp are.
    pub(super) fn sum_elem(&self) -> Elem {
        match self {
            Form::Integer(f) => f.sum_elem(),
            _ => Elem::F32,
        }
    }
}

/// How a kernel's tiles are multiplied, what is staged for it, and panels of a tile.
pub(super) fn form_for(kernel: &LinearKernel, warps: usize) -> (Form, Staged, usize) {
    let first = &kernel.segments[0].product;
    if let WeightFormat::Quant(scheme) = first.format
        && !scheme.is_float()
    {
        let panels = tile_panels(kernel, true);
        let integers = Integers::new(QuantLayout { scheme, k: first.k }, first.coded, panels, (warps, kernel.single));
        return (Form::Integer(integers), Staged::Bytes(integers.sums()), panels);
    }
    let staged = staged_for(first.format, kernel);
    if !matches!(staged, Staged::Bf16 | Staged::Bf16Split) {
        return (scalar_form_for(kernel).0, staged, tile_panels(kernel, false));
    }
    let panels = tile_panels(kernel, true);
    let form = match FloatRows::takes(first.format) {
        true => Form::Coded(Coded::new(first.format, first.k, panels, warps)),
        false => Form::Matrix(Fragments::new(first.k, panels, warps)),
    };
    (form, staged, panels)
}

/// The same by multiply-adds in f32, whose rows take less room than those in several parts.
pub(super) fn scalar_form_for(kernel: &LinearKernel) -> (Form, Staged, usize) {
    let (first, panels) = (&kernel.segments[0].product, tile_panels(kernel, false));
    let table = first.coded.and_then(|weights| weights.table);
    let scalars = Scalars { format: first.format, table, k: first.k, columns: 1, rows: panels * PANEL };
    (Form::Scalar(scalars), Staged::F32, panels)
}

/// What is staged for weights of a float format.
fn staged_for(format: WeightFormat, kernel: &LinearKernel) -> Staged {
    let elem = kernel.prologue.as_ref().map_or(kernel.x.elem, |p| p.elem);
    match (format, elem) {
        (WeightFormat::F32, RowElem::Bf16InF32) => Staged::Bf16InF32,
        (WeightFormat::F32, _) => Staged::F32,
        (_, RowElem::F32) => Staged::Bf16Split,
        _ => Staged::Bf16,
    }
}

/// Whether a tile has a panel of a unit's first half and the one as far in its second.
pub(super) fn in_halves(kernel: &LinearKernel) -> bool {
    let waits = kernel.segments.iter().any(|s| !s.epilogue.is_pointwise());
    waits && kernel.segments.iter().all(|s| s.epilogue.is_in_halves())
}

/// Panels of a tile: two where a gate goes with its up or half a head with the other, or where there are so many that
/// the workers are still evenly busy.
fn tile_panels(kernel: &LinearKernel, matrix: bool) -> usize {
    if in_halves(kernel) || kernel.segments.iter().any(|s| s.epilogue.is_gated()) {
        return 2;
    }
    let total: usize = kernel.segments.iter().map(|s| s.units * s.product.panels).sum();
    let even = kernel.segments.iter().all(|s| {
        let panels = s.product.panels;
        panels.is_multiple_of(2) || (panels == 1 && s.epilogue.is_pointwise() && s.units.is_multiple_of(2))
    });
    if matrix && even && total / 2 >= COARSE { 2 } else { 1 }
}
