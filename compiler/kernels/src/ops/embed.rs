//! Rows of an embedding table as f32. Tokens are shared out.

use crate::env::{Count, Env, Place, Rows, Scratch};
use crate::formats::WeightFormat;
use crate::formats::quant::QuantLayout;
use crate::formats::quant_row::QuantRow;
use crate::kir::{Function, Val};
use crate::layout::PANEL;
use llmc_ir::quant::Scheme;

/// Looks up a row for each token.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedKernel {
    /// Array of the step that holds the row numbers: `ids` or `positions`.
    pub index: &'static str,
    /// Offset of the table in the call's weights: packed in panels, as a product reads it.
    pub table: usize,
    /// Format of the table.
    pub format: WeightFormat,
    /// Offset of the value table of a format that has one.
    pub values: Option<usize>,
    /// Result.
    pub out: Rows,
}

impl EmbedKernel {
    /// Emits the kernel.
    pub fn build(&self, name: &str, scratch: Scratch) -> Function {
        let mut env = Env::new(name, scratch);
        let n = env.count(Count::Tokens);
        match self.format {
            WeightFormat::Quant(scheme) => env.own_rows(n, |env, t| self.quant_row(env, scheme, t)),
            float if env.group.threads > 1 => {
                env.own_elements(n, self.out.width / float.k_step(), |env, t, step, _| {
                    let (at, to) = (self.row_at(env, t), env.row(&self.out, t));
                    let from = env.at(at.0, at.1, float.k_step() * float.elem_bytes());
                    self.float_step(env, float, (from, to), step);
                });
            }
            float => env.own_rows(n, |env, t| {
                let (at, to) = (self.row_at(env, t), env.row(&self.out, t));
                let from = env.at(at.0, at.1, float.k_step() * float.elem_bytes());
                env.for_const(self.out.width / float.k_step(), 1, |env, step| {
                    self.float_step(env, float, (from, to), step);
                });
            }),
        }
        env.finish()
    }

    /// Panel address and lane of token `t`'s row.
    fn row_at(&self, env: &mut Env, t: Val) -> (Val, Val) {
        let id = env.step_index(self.index, t);
        let panels = env.b.index(PANEL);
        let (panel, lane) = (env.b.div(id, panels), env.b.rem(id, panels));
        let table = env.ptr(Place::Weights(self.table));
        (env.at(table, panel, self.format.panel_bytes(self.out.width)), lane)
    }

    fn quant_row(&self, env: &mut Env, scheme: Scheme, t: Val) {
        let ((panel, lane), to) = (self.row_at(env, t), env.row(&self.out, t));
        let layout = QuantLayout { scheme, k: self.out.width };
        let values = self.values.map(|offset| env.ptr(Place::Weights(offset)));
        QuantRow { layout, panel, lane, values }.emit(env, to);
    }

    /// The elements of one step of k.
    fn float_step(&self, env: &mut Env, format: WeightFormat, (from, to): (Val, Val), step: Val) {
        let from = env.at(from, step, format.step_bytes());
        let to = env.at(to, step, 4 * format.k_step());
        for (k, v) in format.emit_decode_lane(&mut env.b, from).into_iter().enumerate() {
            env.b.store(v, to, 4 * k as i32);
        }
    }
}
