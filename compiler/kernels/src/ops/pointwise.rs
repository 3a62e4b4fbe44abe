//! Pointwise ops on whole rows, for what no product has taken into its epilogue. Rows are shared out.

use super::epilogue::Activation;
use crate::env::{Count, Env, Rows, Scratch};
use crate::kir::{Elem, Function, Ty, Val};

/// What is done to each element.
#[derive(Clone, Debug, PartialEq)]
pub enum Pointwise {
    /// Copied; rounded where the result's rows hold less.
    Copy,
    /// Other rows added.
    Add(Rows),
    /// Multiplied by other rows.
    Mul(Rows),
    /// A vector at this offset of the call's weights added.
    Bias(usize),
    /// Multiplied by a constant.
    Scale(f32),
    /// Nonlinearity.
    Act(Activation),
}

/// `y = f(x)`.
#[derive(Clone, Debug, PartialEq)]
pub struct PointwiseKernel {
    /// Which count the rows follow.
    pub count: Count,
    /// Input.
    pub x: Rows,
    /// Elements of x's rows to begin at.
    pub x_start: usize,
    /// Result; may be x.
    pub y: Rows,
    /// The function.
    pub f: Pointwise,
}

impl PointwiseKernel {
    /// Emits the kernel.
    pub fn build(&self, name: &str, scratch: Scratch) -> Function {
        let mut env = Env::new(name, scratch);
        let n = env.count(self.count);
        env.own_elements(n, self.y.width, |env, r, i, lanes| {
            let (x, y) = (env.row(&self.x, r), env.row(&self.y, r));
            self.element(env, lanes, (x, y, r), i);
        });
        env.finish()
    }

    /// `lanes` elements from column `i`.
    fn element(&self, env: &mut Env, lanes: u16, (x, y, r): (Val, Val, Val), i: Val) {
        let ty = Ty { elem: Elem::F32, lanes };
        let from = if self.x_start == 0 { i } else { env.b.add_const(i, self.x_start as i64) };
        let v = env.load_row(self.x.elem, x, from, lanes);
        let v = match &self.f {
            Pointwise::Copy => v,
            Pointwise::Add(rows) | Pointwise::Mul(rows) => {
                let row = env.row(rows, r);
                let other = env.load_row(rows.elem, row, i, lanes);
                if matches!(self.f, Pointwise::Add(_)) { env.b.add(v, other) } else { env.b.mul(v, other) }
            }
            Pointwise::Bias(offset) => {
                let base = env.b.ptr_add_const(env.weights, *offset);
                let p = env.at(base, i, 4);
                let bias = env.b.load(ty, p, 0);
                env.b.add(v, bias)
            }
            Pointwise::Scale(s) => {
                let s = env.b.float(ty, f64::from(*s));
                env.b.mul(v, s)
            }
            Pointwise::Act(a) => a.emit(env, v),
        };
        env.store_row(self.y.elem, v, y, i);
    }
}
