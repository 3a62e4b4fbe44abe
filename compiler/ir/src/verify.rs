//! Checks a module against the rules of the IR.

use crate::error::{Error, Result};
use crate::module::Module;
use crate::types::Type;

/// What verification learned about a module.
#[derive(Clone, Debug)]
pub struct ModuleInfo {}

/// Checks a module.
///
/// # Errors
/// [`Error::Verify`] with every finding.
pub fn verify(module: &Module) -> Result<ModuleInfo> {
    let mut findings = Vec::new();
    for block in &module.blocks {
        for node in block.graph.nodes() {
            let operands = block.graph.operands(node);
            let types: Vec<&Type> = operands.iter().map(|v| block.graph.ty(*v)).collect::<Result<_>>()?;
            match block.graph.op(node).infer(&types) {
                Ok(found) if found == block.graph.types(node) => {}
                Ok(_) => findings.push(format!("{}: %{}: stored types differ from its operands'", block.name, node.0)),
                Err(e) => findings.push(format!("{}: %{}: {e}", block.name, node.0)),
            }
        }
    }
    if findings.is_empty() { Ok(ModuleInfo {}) } else { Err(Error::Verify(findings)) }
}
