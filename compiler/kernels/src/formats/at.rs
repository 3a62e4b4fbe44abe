//! Where a thread's parts of packed weights are.

use crate::env::Env;
use crate::kir::{Hint, Ty, Val};

/// A vector in memory.
#[derive(Clone, Copy)]
pub struct VectorAt {
    /// An address.
    pub base: Val,
    /// Bytes behind it.
    pub offset: usize,
}

/// A value that stands beside codes: scales, zero points, the number of a table.
#[derive(Clone, Copy)]
pub struct Side {
    /// Where it is.
    pub at: VectorAt,
    /// What it is.
    pub ty: Ty,
    /// What its address is a multiple of.
    pub align: u32,
}

impl Side {
    /// Its value; the hint says whether it is in the weights or has been copied.
    pub fn load(&self, env: &mut Env, hint: Hint) -> Val {
        env.b.load_with(self.ty, self.at.base, self.at.offset as i32, self.align, hint)
    }
}
