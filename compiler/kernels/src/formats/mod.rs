//! Weight formats: the packed layout of a panel and how a kernel decodes it.
//!
//! A panel holds [`PANEL`] output rows in lanes and runs over K. Float formats run in steps of
//! `k_step` elements, each step `step_bytes` long. bf16 stands in pairs (two consecutive k in one
//! 32-bit lane), the order that dot-product and tile instructions read; f32 and f16 have one k per
//! step. Quantized formats are in [`quant`].

pub mod at;
pub mod codes;
pub mod e4m3;
mod float;
pub mod float_codes;
pub mod float_rows;
pub mod pairs;
pub mod quant;
pub mod quant_row;

use crate::layout::PANEL;
use llmc_ir::quant::Scheme;
use quant::QuantLayout;
use std::fmt;

/// How weights are stored in an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WeightFormat {
    /// binary32.
    F32,
    /// binary16.
    F16,
    /// bfloat16, pairs of consecutive k together.
    Bf16,
    /// In few bits.
    Quant(Scheme),
}

/// Name, elements of k per step, bytes of an element.
const FLOATS: [(WeightFormat, &str, usize, usize); 3] =
    [(WeightFormat::F32, "f32", 1, 4), (WeightFormat::F16, "f16", 1, 2), (WeightFormat::Bf16, "bf16", 2, 2)];

impl fmt::Display for WeightFormat {
    /// As in the manifest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightFormat::Quant(scheme) => scheme.fmt(f),
            float => f.write_str(float.float().1),
        }
    }
}

impl WeightFormat {
    /// The row of a float format.
    fn float(self) -> (WeightFormat, &'static str, usize, usize) {
        *FLOATS.iter().find(|r| r.0 == self).expect("every float format is in FLOATS")
    }

    /// Elements of k in one step of a float format.
    pub fn k_step(self) -> usize {
        self.float().2
    }

    /// Bytes of an element of a float format.
    pub fn elem_bytes(self) -> usize {
        self.float().3
    }

    /// Bytes of one step of a panel of a float format.
    pub fn step_bytes(self) -> usize {
        PANEL * self.k_step() * self.elem_bytes()
    }

    /// Bytes of a panel with `k` elements per row; k is padded to whole steps with zeros.
    pub fn panel_bytes(self, k: usize) -> usize {
        match self {
            WeightFormat::Quant(scheme) => QuantLayout { scheme, k }.panel_bytes(),
            float => k.div_ceil(float.k_step()) * float.step_bytes(),
        }
    }

    /// Byte offset of element (row, k) of a packed float weight with `k_len` elements per row.
    pub fn offset(self, row: usize, k: usize, k_len: usize) -> usize {
        let lane = (row % PANEL) * self.k_step() + k % self.k_step();
        row / PANEL * self.panel_bytes(k_len) + k / self.k_step() * self.step_bytes() + lane * self.elem_bytes()
    }
}
