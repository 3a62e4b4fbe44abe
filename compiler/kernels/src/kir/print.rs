//! The text form. [`super::text`] reads it back.
//!
//! `%result = operation TYPE operands`: the type is the result's. Regions stand in braces; what
//! they yield is their last line.

use super::func::{Function, Program, Region, Val};
use super::inst::{Hint, Inst, Op};
use super::names::{BIN, CAST, COND, MMA, PREFETCH, TILES, UN, name_of};
use super::types::{Elem, Ty};
use std::fmt::{self, Display, Formatter, Write};

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, function) in self.functions.iter().enumerate() {
            write!(f, "{}{function}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl Display for Function {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let params = self.body.params.iter().map(|p| format!("{p}: {}", type_name(self, *p)));
        writeln!(f, "func @{}({}) {{", self.name, params.collect::<Vec<_>>().join(", "))?;
        body(f, self, &self.body, 1)?;
        f.write_str("}\n")
    }
}

/// One instruction on one line, without the bodies of its regions.
pub fn line(function: &Function, inst: &Inst) -> String {
    let mut text = String::new();
    head(&mut text, function, inst).expect("writing to a string succeeds");
    text
}

fn body(f: &mut dyn Write, function: &Function, region: &Region, depth: usize) -> fmt::Result {
    let indent = 2 * depth;
    for inst in &region.body {
        write!(f, "{:indent$}", "")?;
        head(f, function, inst)?;
        match &inst.op {
            Op::For { body: inner, .. } => {
                f.write_char('\n')?;
                body(f, function, inner, depth + 1)?;
                write!(f, "{:indent$}}}", "")?;
            }
            Op::If { then, els, .. } => {
                f.write_char('\n')?;
                body(f, function, then, depth + 1)?;
                if *els != Region::default() {
                    writeln!(f, "{:indent$}}} else {{", "")?;
                    body(f, function, els, depth + 1)?;
                }
                write!(f, "{:indent$}}}", "")?;
            }
            _ => {}
        }
        f.write_char('\n')?;
    }
    if !region.yields.is_empty() {
        writeln!(f, "{:indent$}yield {}", "", list(&region.yields))?;
    }
    Ok(())
}

/// The instruction up to where its first region begins.
fn head(f: &mut dyn Write, function: &Function, inst: &Inst) -> fmt::Result {
    if !inst.results.is_empty() {
        write!(f, "{} = ", list(&inst.results))?;
    }
    let ty = inst.results.first().map(|v| type_name(function, *v)).unwrap_or_default();
    match &inst.op {
        Op::Int(v) => write!(f, "int {ty} {v}"),
        Op::Float(v) => {
            let is_f32 = inst.results.first().is_some_and(|r| type_of(function, *r) == Some(Elem::F32));
            write!(f, "float {ty} {}", float(*v, is_f32))
        }
        Op::Un(op, a) => write!(f, "{} {ty} {a}", name_of(&UN, *op)),
        Op::Bin(op, a, b) => write!(f, "{} {ty} {a}, {b}", name_of(&BIN, *op)),
        Op::Fma(a, b, c) => write!(f, "fma {ty} {a}, {b}, {c}"),
        Op::Cmp(cond, a, b) => write!(f, "{} {ty} {a}, {b}", name_of(&COND, *cond)),
        Op::Select(c, a, b) => write!(f, "select {ty} {c}, {a}, {b}"),
        Op::Cast(cast, a) => write!(f, "{} {ty} {a}", name_of(&CAST, *cast)),
        Op::Splat(a) => write!(f, "splat {ty} {a}"),
        Op::Extract(a, lane) => write!(f, "extract {ty} {a}[{lane}]"),
        Op::Insert(a, lane, s) => write!(f, "insert {ty} {a}[{lane}], {s}"),
        Op::Shuffle(a, b, lanes) => write!(f, "shuffle {ty} {a}, {b}, [{}]", list(lanes)),
        Op::PtrAdd(ptr, bytes) => write!(f, "ptr_add {ty} {ptr}, {bytes}"),
        Op::Stack { bytes } => write!(f, "stack {ty} {bytes}"),
        Op::Dot2Bf16 { acc, a, b } => write!(f, "dot2_bf16 {ty} {acc}, {a}, {b}"),
        Op::Table16 { table, index } => write!(f, "table16 {ty} {table}, {index}"),
        Op::Lookup16 { table, index } => write!(f, "lookup16 {ty} {table}, {index}"),
        Op::Dot4I8 { acc, a, b } => write!(f, "dot4_i8 {ty} {acc}, {a}, {b}"),
        Op::Dot2I8 { acc, a, b } => write!(f, "dot2_i8 {ty} {acc}, {a}, {b}"),
        Op::AddHalves { acc, a } => write!(f, "add_halves {ty} {acc}, {a}"),
        Op::Tiles { tiles: t, x, panels, sums, rows } => {
            let (name, strides) = (name_of(&TILES, t.kind), [t.x_stride, t.panel_stride, t.sum_stride]);
            let shape = list(&[t.most_rows, t.panels, t.blocks].into_iter().chain(strides).collect::<Vec<_>>());
            write!(f, "{name} {x}, {panels}, {sums}, {rows}, [{shape}]")
        }
        Op::Load { ptr, offset, align, hint } => {
            write!(f, "load {ty} {}{}", place(*ptr, *offset), guarantee(*align, *hint))
        }
        Op::Store { ptr, offset, value, align, hint } => {
            write!(f, "store {value}, {}{}", place(*ptr, *offset), guarantee(*align, *hint))
        }
        Op::Prefetch { ptr, offset, to } => write!(f, "{} {}", name_of(&PREFETCH, *to), place(*ptr, *offset)),
        Op::For { lo, hi, step, init, body } => {
            let counter = body.params.first().map(Val::to_string).unwrap_or_default();
            let carried = body.params.iter().skip(1).zip(init);
            let carried = carried.map(|(p, v)| format!("{p} = {v}: {}", type_name(function, *p)));
            let carried = carried.collect::<Vec<_>>().join(", ");
            let carried = if carried.is_empty() { carried } else { format!("({carried}) ") };
            write!(f, "for {counter} = {lo} to {hi} step {step} {carried}{{")
        }
        Op::If { cond, .. } => {
            let types = inst.results.iter().map(|v| type_name(function, *v)).collect::<Vec<_>>().join(", ");
            let types = if types.is_empty() { types } else { format!("-> {types} ") };
            write!(f, "if {cond} {types}{{")
        }
        Op::Call { callee, args } => write!(f, "call @{callee}({})", list(args)),
        Op::Barrier { phase } => write!(f, "barrier {phase}"),
        Op::Arrive => f.write_str("arrive"),
        Op::Await { phase } => write!(f, "await {phase}"),
        Op::Thread => write!(f, "thread {ty}"),
        Op::Shared { bytes } => write!(f, "shared {ty} {bytes}"),
        Op::GroupBarrier => f.write_str("group_barrier"),
        Op::WarpBarrier => f.write_str("warp_barrier"),
        Op::LaneXor { value, mask } => write!(f, "lane_xor {ty} {value}[{mask}]"),
        Op::Mma { kind, acc, a, b } => write!(f, "{} {ty} {acc}, {a}, {b}", name_of(&MMA, *kind)),
        Op::Wgmma { kind, acc, a, b } => write!(f, "wg{} {ty} {acc}, {a}, {b}", name_of(&MMA, *kind)),
        Op::WgmmaWait { sums, kept } => write!(f, "wgmma_wait {ty} {sums}, [{}]", list(kept)),
        Op::SharedFence => f.write_str("shared_fence"),
        Op::LoadMatrix { ptr } => write!(f, "load_matrix {ty} {ptr}"),
        Op::LastOf { counter, add, total } => write!(f, "last_of {ty} {counter}, {add}, {total}"),
        Op::AsyncCopy { to, from, bytes } => write!(f, "async_copy {to}, {from}, {bytes}"),
        Op::Fetch { ptr, bytes } => write!(f, "fetch {ptr}, {bytes}"),
        Op::AsyncCommit => f.write_str("async_commit"),
        Op::AsyncWait { pending } => write!(f, "async_wait {pending}"),
        Op::SignalBegin { ptr, copies } => write!(f, "signal_begin {ptr}, {copies}"),
        Op::SignalEnd { ptr } => write!(f, "signal_end {ptr}"),
        Op::BulkCopy { to, from, bytes, signal } => write!(f, "bulk_copy {to}, {from}, {bytes}, {signal}"),
        Op::SignalWait { ptr, parity } => write!(f, "signal_wait {ptr}, {parity}"),
    }
}

fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn type_of(function: &Function, v: Val) -> Option<Elem> {
    function.types.get(v.0 as usize).map(|ty| ty.elem)
}

/// Type of a value; `?` if the function has no such value.
fn type_name(function: &Function, v: Val) -> String {
    function.types.get(v.0 as usize).map_or("?".into(), Ty::to_string)
}

fn place(ptr: Val, offset: i32) -> String {
    match offset {
        0 => ptr.to_string(),
        1.. => format!("{ptr} + {offset}"),
        _ => format!("{ptr} - {}", offset.unsigned_abs()),
    }
}

fn guarantee(align: u32, hint: Hint) -> String {
    let hint = match hint {
        Hint::None => "",
        Hint::Stream => ", stream",
        Hint::Constant => ", constant",
    };
    format!(", align {align}{hint}")
}

/// Shortest decimal number that reads back as the same bits; otherwise the bits of the f64.
fn float(v: f64, is_f32: bool) -> String {
    let narrow = v as f32;
    match (v.is_finite(), is_f32 && f64::from(narrow).to_bits() == v.to_bits()) {
        (true, true) => format!("{narrow:?}"),
        (true, false) => format!("{v:?}"),
        _ => format!("{:#018x}", v.to_bits()),
    }
}
