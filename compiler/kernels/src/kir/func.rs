//! Functions, regions and programs.

use super::inst::{Inst, Op};
use super::types::Ty;
use std::fmt;

/// An SSA value of one function; its type is `Function::types[index]`. Printed `%7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Val(pub u32);

impl fmt::Display for Val {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// Instructions with parameters and what they yield in the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Region {
    /// Values defined on entry.
    pub params: Vec<Val>,
    /// Instructions in order.
    pub body: Vec<Inst>,
    /// Values handed to the enclosing instruction.
    pub yields: Vec<Val>,
}

/// A function without results.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Symbol: letters, digits and `_`, not starting with a digit.
    pub name: String,
    /// Types of all values, indexed by [`Val`].
    pub types: Vec<Ty>,
    /// The body; its parameters are the function's, beginning with `args: ptr, worker: i64,
    /// workers: i64`; it yields nothing.
    pub body: Region,
}

impl Function {
    /// Bytes of shared memory that the function asks for.
    pub fn shared_bytes(&self) -> usize {
        let shared = |inst: &Inst| match inst.op {
            Op::Shared { bytes } => bytes as usize,
            _ => 0,
        };
        self.body.body.iter().map(shared).max().unwrap_or(0)
    }

    /// Type of a value.
    pub fn ty(&self, v: Val) -> Ty {
        self.types[v.0 as usize]
    }
}

/// Functions compiled together; the last one is the entry that others may call from outside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// Callees before callers.
    pub functions: Vec<Function>,
}

impl Program {
    /// Bytes of shared memory that the program asks for.
    pub fn shared_bytes(&self) -> usize {
        self.functions.iter().map(Function::shared_bytes).max().unwrap_or(0)
    }
}
