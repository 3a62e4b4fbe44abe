//! Reads the text form that [`crate::print`] writes.
//!
//! White space is free; `//` starts a comment, and so does `;` outside of a block's header.
//! Nodes may have any name of letters, digits and `_` after the `%`; they are numbered in the order
//! in which they stand. The result count `:2` and the types after a node may be left out.

mod cursor;

use crate::error::{Error, Result};
use crate::graph::{Graph, Value};
use crate::module::{Block, BlockId, Call, Module, ParamId, ParamInfo};
use crate::ops::Op;
use crate::ops::attr::split_top;
use crate::types::Type;
use cursor::Cursor;
pub(crate) use cursor::is_name_char;
use std::collections::BTreeMap;

/// Reads a module. What it says is not verified beyond the type rules of the ops.
///
/// # Errors
/// [`Error::Parse`] with the line, what was found and what was expected.
pub fn parse_module(text: &str) -> Result<Module> {
    let mut c = Cursor::new(text);
    let mut reader = ModuleReader::default();
    while !c.at_end() {
        reader.item(&mut c)?;
    }
    Ok(reader.module)
}

/// Reads one block.
///
/// # Errors
/// As [`parse_module`].
pub fn parse_block(text: &str) -> Result<Block> {
    let mut c = Cursor::new(text);
    if !c.eat_word("block") {
        return Err(c.expected("`block`"));
    }
    let block = block(&mut c)?;
    if c.at_end() { Ok(block) } else { Err(c.expected("the end of the text after the block")) }
}

/// Reads a graph: lines of nodes, then `return`.
///
/// # Errors
/// As [`parse_module`].
pub fn parse_graph(text: &str) -> Result<Graph> {
    let mut c = Cursor::new(text);
    let graph = graph(&mut c)?;
    if c.at_end() { Ok(graph) } else { Err(c.expected("the end of the text after the graph")) }
}

/// Reads one op with its attributes: `rms_norm{eps=1e-5}`.
///
/// # Errors
/// As [`parse_module`].
pub fn parse_op(text: &str) -> Result<Op> {
    let mut c = Cursor::new(text);
    let op = op(&mut c)?;
    if c.at_end() { Ok(op) } else { Err(c.expected("the end of the text after the op")) }
}

/// Reads one type: `f32[T,256]` or `kv<f16,2,64>`.
///
/// # Errors
/// As [`parse_module`].
pub fn parse_type(text: &str) -> Result<Type> {
    let mut c = Cursor::new(text);
    let ty = c.ty()?;
    if c.at_end() { Ok(ty) } else { Err(c.expected("the end of the text after the type")) }
}

#[derive(Default)]
struct ModuleReader<'a> {
    module: Module,
    params: BTreeMap<&'a str, ParamId>,
    blocks: BTreeMap<String, BlockId>,
}

impl<'a> ModuleReader<'a> {
    fn item(&mut self, c: &mut Cursor<'a>) -> Result<()> {
        if c.eat_word("param") {
            self.param(c)
        } else if c.eat_word("kv") {
            self.kv(c)
        } else if c.eat_word("block") {
            let line = c.line();
            let block = block(c)?;
            let id = BlockId(self.module.blocks.len() as u32);
            if self.blocks.insert(block.name.clone(), id).is_some() {
                return Err(Error::Parse { line, message: format!("a second block is called {}", block.name) });
            }
            self.module.blocks.push(block);
            Ok(())
        } else if c.eat_word("call") {
            self.call(c)
        } else {
            Err(c.expected("`param`, `kv`, `block` or `call`"))
        }
    }

    fn param(&mut self, c: &mut Cursor<'a>) -> Result<()> {
        let line = c.line();
        let name = c.name("the name of a parameter")?;
        if self.params.insert(name, ParamId(self.module.params.len() as u32)).is_some() {
            return Err(Error::Parse { line, message: format!("a second parameter is called {name}") });
        }
        self.module.params.push(formal(c, name)?);
        Ok(())
    }

    fn kv(&mut self, c: &mut Cursor<'a>) -> Result<()> {
        let (line, next) = (c.line(), self.module.kv.len());
        if c.number("the number of a KV cache")? as usize != next {
            return Err(Error::Parse { line, message: format!("expected `kv {next}`: caches are listed in order") });
        }
        c.expect(":")?;
        match c.ty()? {
            Type::Kv(kv) => self.module.kv.push(kv),
            Type::Tensor(t) => {
                return Err(Error::Parse { line, message: format!("expected the type of a KV cache, found {t}") });
            }
        }
        Ok(())
    }

    fn call(&mut self, c: &mut Cursor<'a>) -> Result<()> {
        let line = c.line();
        let name = c.name("the name of a block")?;
        let unknown = || Error::Parse { line, message: format!("no block above is called {name}") };
        let block = self.blocks.get(name).copied().ok_or_else(unknown)?;
        c.expect("(")?;
        let params = c.list(")", |c| {
            let line = c.line();
            let name = c.name("the name of a parameter")?;
            let unknown = || Error::Parse { line, message: format!("no parameter above is called {name}") };
            self.params.get(name).copied().ok_or_else(unknown)
        })?;
        let kv = c.setting("kv")?;
        self.module.calls.push(Call { block, params, kv });
        Ok(())
    }
}

/// `: f32[2,3]` after the name of a parameter.
fn formal(c: &mut Cursor<'_>, name: &str) -> Result<ParamInfo> {
    c.expect(":")?;
    let line = c.line();
    match c.ty()? {
        Type::Tensor(ty) => Ok(ParamInfo { name: name.into(), ty }),
        Type::Kv(_) => {
            Err(Error::Parse { line, message: format!("parameter {name} is a KV cache, expected a tensor") })
        }
    }
}

fn block(c: &mut Cursor<'_>) -> Result<Block> {
    let name = c.name("the name of a block")?.to_owned();
    c.semicolon_comments = false;
    c.expect("(")?;
    let (mut inputs, mut params) = (Vec::new(), Vec::new());
    loop {
        if c.eat(";") {
            params = c.list(")", |c| c.name("the name of a parameter").and_then(|name| formal(c, name)))?;
            break;
        }
        if c.eat(")") {
            break;
        }
        inputs.push(c.name("the name of an input, `;` or `)`")?.to_owned());
        c.eat(",");
    }
    c.expect("->")?;
    c.expect("(")?;
    let outputs = c.list(")", |c| c.name("the name of an output").map(ToOwned::to_owned))?;
    c.expect("{")?;
    c.semicolon_comments = true;
    let graph = graph(c)?;
    c.expect("}")?;
    Ok(Block { name, inputs, params, outputs, graph })
}

/// Values by the name of their node, first slot.
type Names<'a> = BTreeMap<&'a str, Value>;

fn graph(c: &mut Cursor<'_>) -> Result<Graph> {
    let mut graph = Graph::new();
    let mut names = Names::new();
    while !c.eat_word("return") {
        node(c, &mut graph, &mut names)?;
    }
    let mut outputs = Vec::new();
    loop {
        outputs.extend(value(c, &graph, &names)?);
        if !c.eat(",") {
            break;
        }
    }
    graph.set_outputs(outputs);
    Ok(graph)
}

fn node<'a>(c: &mut Cursor<'a>, graph: &mut Graph, names: &mut Names<'a>) -> Result<()> {
    let line = c.line();
    if !c.eat("%") {
        return Err(c.expected("a node such as `%0 = ..`, or `return`"));
    }
    let name = c.name("the name of a node")?;
    let count = if c.eat(":") { Some(c.number("a number of results")? as usize) } else { None };
    c.expect("=")?;
    let op = op(c)?;
    let mut operands = Vec::new();
    if c.eat("(") {
        let list = c.list(")", |c| match value(c, graph, names)? {
            Some(v) => Ok(v),
            None => Err(c.expected("a value such as `%0`")),
        })?;
        operands.extend(list);
    }
    let wrong = |message: String| Error::Parse { line, message: format!("%{name}: {message}") };
    let node = graph.add(op, &operands).map_err(|e| wrong(e.to_string()))?;
    let found = graph.types(node);
    if count.is_some_and(|n| n != found.len()) {
        return Err(wrong(format!("the op has {} results, the text says {}", found.len(), count.unwrap_or(1))));
    }
    if c.eat(":") {
        check_types(c, found).map_err(|e| wrong(e.to_string()))?;
    }
    if name.contains('.') || names.insert(name, Value { node, slot: 0 }).is_some() {
        return Err(wrong("the name is not a new one of letters, digits and `_`".into()));
    }
    Ok(())
}

/// `type, type, ..` as found by inference.
fn check_types(c: &mut Cursor<'_>, found: &[Type]) -> Result<()> {
    let mut stated = vec![c.ty()?];
    while c.eat(",") {
        stated.push(c.ty()?);
    }
    if stated == found {
        return Ok(());
    }
    let list = |types: &[Type]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(Error::Op { op: "type", message: format!("the op gives {}, the text says {}", list(found), list(&stated)) })
}

/// `%name` or `%name.slot`, if a value comes next.
fn value(c: &mut Cursor<'_>, graph: &Graph, names: &Names<'_>) -> Result<Option<Value>> {
    let line = c.line();
    if !c.eat("%") {
        return Ok(None);
    }
    let text = c.name("the name of a node")?;
    let (name, slot) = text.split_once('.').unwrap_or((text, "0"));
    let found = names.get(name).and_then(|v| Some(Value { node: v.node, slot: slot.parse().ok()? }));
    let found = found.filter(|v| graph.ty(*v).is_ok());
    let unknown = || Error::Parse { line, message: format!("%{text} is not a result of a node above") };
    found.map(Some).ok_or_else(unknown)
}

/// `name` or `name{attribute=value, ..}`.
fn op(c: &mut Cursor<'_>) -> Result<Op> {
    let line = c.line();
    let name = c.name("the name of an op")?;
    let text: String = if c.eat("{") { c.until('}')?.split_whitespace().collect() } else { String::new() };
    let wrong = |message: String| Error::Parse { line, message };
    let Some((_, expected)) = Op::TABLE.iter().find(|(n, _)| *n == name) else {
        return Err(wrong(format!("there is no op called {name}")));
    };
    let attrs: Option<Vec<(&str, &str)>> = split_top(&text).map(|part| part.split_once('=')).collect();
    attrs.and_then(|attrs| Op::from_text(name, &attrs)).ok_or_else(|| {
        let expected = if expected.is_empty() { "none".into() } else { expected.join(", ") };
        wrong(format!("attributes {{{text}}} do not fit {name}, expected values for: {expected}"))
    })
}

/// True when `text` can stand as a name in the text form.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_name_char)
}
