//! The text form of modules, blocks and graphs: what [`crate::parse`] reads back exactly.
//!
//! One line for each parameter, cache, node and call. The type after a node is what the op infers;
//! it is there for the reader, and a parser only compares it. An example:
//!
//! ```text
//! param layers.0.attn.q: bf16[256,256]
//! kv 0: kv<f16,2,64>
//! block layer0(hidden, kv; attn.q: bf16[256,256]) -> (hidden, kv) {
//!   %0 = input{index=0, ty=f32[T,256]}
//!   %1 = add(%0, %0) : f32[T,256]
//!   return %1, %2
//! }
//! call layer0(layers.0.attn.q) kv=0
//! ```

use crate::graph::{Graph, NodeId, Value};
use crate::module::{Block, Call, Module, ParamInfo};
use crate::ops::Op;
use std::fmt::{Display, Formatter, Result};

/// Headers longer than this are printed with one parameter on a line.
const HEADER_WIDTH: usize = 100;

impl Display for Module {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for p in &self.params {
            writeln!(f, "param {}: {}", p.name, p.ty)?;
        }
        for (i, kv) in self.kv.iter().enumerate() {
            writeln!(f, "kv {i}: {}", crate::types::Type::Kv(*kv))?;
        }
        for block in &self.blocks {
            writeln!(f, "\n{block}")?;
        }
        self.calls.iter().try_for_each(|call| self.print_call(call, f))
    }
}

impl Module {
    fn print_call(&self, call: &Call, f: &mut Formatter<'_>) -> Result {
        let name = |i: usize| self.params.get(i).map_or("?", |p| p.name.as_str());
        let params: Vec<&str> = call.params.iter().map(|p| name(p.0 as usize)).collect();
        let block = self.blocks.get(call.block.0 as usize).map_or("?", |b| b.name.as_str());
        write!(f, "call {block}({})", params.join(", "))?;
        match call.kv {
            Some(kv) => writeln!(f, " kv={kv}"),
            None => writeln!(f),
        }
    }
}

impl Display for Block {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let formal = |p: &ParamInfo| format!("{}: {}", p.name, p.ty);
        let params: Vec<String> = self.params.iter().map(formal).collect();
        let inputs = self.inputs.join(", ");
        let one_line = if params.is_empty() { inputs.clone() } else { format!("{inputs}; {}", params.join(", ")) };
        let outputs = self.outputs.join(", ");
        if one_line.len() + outputs.len() + self.name.len() <= HEADER_WIDTH {
            writeln!(f, "block {}({one_line}) -> ({outputs}) {{", self.name)?;
        } else {
            let params = params.join(",\n  ");
            writeln!(f, "block {}(\n  {inputs};\n  {params}\n) -> ({outputs}) {{", self.name)?;
        }
        self.graph.print("  ", f)?;
        writeln!(f, "}}")
    }
}

impl Display for Graph {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.print("", f)
    }
}

impl Graph {
    fn print(&self, indent: &str, f: &mut Formatter<'_>) -> Result {
        for node in self.nodes() {
            self.print_node(node, indent, f)?;
        }
        writeln!(f, "{indent}{}", format!("return {}", self.list(self.outputs())).trim_end())
    }

    fn print_node(&self, node: NodeId, indent: &str, f: &mut Formatter<'_>) -> Result {
        let (op, types) = (self.op(node), self.types(node));
        let count = if types.len() == 1 { String::new() } else { format!(":{}", types.len()) };
        write!(f, "{indent}%{}{count} = {op}", node.0)?;
        let operands = self.operands(node);
        if !operands.is_empty() {
            write!(f, "({})", self.list(&operands))?;
        }
        if !matches!(op, Op::Input { .. } | Op::Param { .. } | Op::Const { .. }) {
            let types: Vec<String> = types.iter().map(ToString::to_string).collect();
            write!(f, " : {}", types.join(", "))?;
        }
        writeln!(f)
    }

    fn list(&self, values: &[Value]) -> String {
        let name = |v: &Value| match self.ty(Value { node: v.node, slot: 1 }) {
            Err(_) if v.slot == 0 => format!("%{}", v.node.0),
            _ => format!("%{}.{}", v.node.0, v.slot),
        };
        values.iter().map(name).collect::<Vec<_>>().join(", ")
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(self.name())?;
        let attrs: Vec<String> = self.attrs().iter().map(|(name, value)| format!("{name}={value}")).collect();
        if attrs.is_empty() { Ok(()) } else { write!(f, "{{{}}}", attrs.join(", ")) }
    }
}
