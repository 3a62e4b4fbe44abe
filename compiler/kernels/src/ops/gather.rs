//! The rows of a buffer whose logits are wanted. Rows are shared out.

use super::norm;
use crate::env::{Count, Env, Rows, Scratch};
use crate::kir::Function;

/// `y[r] = x[rows[r]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherKernel {
    /// A row for each token.
    pub x: Rows,
    /// A row for each wanted one.
    pub y: Rows,
}

impl GatherKernel {
    /// Emits the kernel.
    pub fn build(&self, name: &str, scratch: Scratch) -> Function {
        let mut env = Env::new(name, scratch);
        let n = env.count(Count::Rows);
        if env.group.threads > 1 {
            env.own_elements(n, self.y.width, |env, r, i, lanes| {
                let t = env.step_index("rows", r);
                let (x, y) = (env.row(&self.x, t), env.row(&self.y, r));
                let v = env.load_row(self.x.elem, x, i, lanes);
                env.store_row(self.y.elem, v, y, i);
            });
        } else {
            env.own_rows(n, |env, r| {
                let t = env.step_index("rows", r);
                let (x, y) = (env.row(&self.x, t), env.row(&self.y, r));
                norm::row(env, None, (x, self.x.elem), (y, self.y.elem), self.x.width);
            });
        }
        env.finish()
    }
}
