//! Rows of an embedding table as f32. Tokens are shared out.

use crate::env::{Count, Env, Place, Rows, Scratch};
use crate::formats::WeightFormat;
use crate::kir::{Builder, Function, Val};
use crate::layout::PANEL;

/// Looks up a row for each token.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedKernel {
    /// Array of the step that holds the row numbers: `ids` or `positions`.
    pub index: &'static str,
    /// Offset of the table in the call's weights: packed in panels, as a product reads it.
    pub table: usize,
    /// Format of the table.
    pub format: WeightFormat,
    /// Result.
    pub out: Rows,
}

impl EmbedKernel {
    /// Emits the kernel.
    pub fn build(&self, name: &str, scratch: Scratch) -> Function {
        let mut env = Env::new(name, scratch);
        let n = env.count(Count::Tokens);
        env.own_rows(n, |env, t| {
            let id = env.step_index(self.index, t);
            let (from, to) = (self.lane(env, id), env.row(&self.out, t));
            env.for_const(self.out.width / self.format.k_step(), 1, |env, step| {
                let from = env.at(from, step, self.format.step_bytes());
                let to = env.at(to, step, 4 * self.format.k_step());
                for (k, v) in self.format.emit_decode_lane(&mut env.b, from).into_iter().enumerate() {
                    env.b.store(v, to, 4 * k as i32);
                }
            });
        });
        env.finish()
    }

    /// Address of the first element of row `id`: its lane of its panel.
    fn lane(&self, env: &mut Env, id: Val) -> Val {
        let (panel, lane) = div_rem(&mut env.b, id, PANEL);
        let table = env.ptr(Place::Weights(self.table));
        let panel = env.at(table, panel, self.format.panel_bytes(self.out.width));
        env.at(panel, lane, self.format.k_step() * self.format.elem_bytes())
    }
}

fn div_rem(b: &mut Builder, v: Val, by: usize) -> (Val, Val) {
    let by = b.index(by);
    (b.div(v, by), b.rem(v, by))
}
