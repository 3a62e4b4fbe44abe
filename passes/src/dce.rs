//! Removes nodes that no output depends on, and numbers the rest densely.

use crate::error::Result;
use crate::pass::{Ctx, Pass, PassReport};
use llmc_ir::Module;

/// The pass.
pub struct Dce;

impl Pass for Dce {
    fn name(&self) -> &'static str {
        "dce"
    }

    fn run(&self, module: &mut Module, _ctx: &Ctx) -> Result<PassReport> {
        let mut removed = 0;
        for block in &mut module.blocks {
            let before = block.graph.len();
            block.graph = block.graph.compact();
            removed += before - block.graph.len();
        }
        Ok(PassReport::new(self.name(), removed))
    }
}
