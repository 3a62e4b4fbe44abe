//! Reads instructions.

use super::lexer::Token;
use super::{Parsed, Parser};
use crate::kir::func::Val;
use crate::kir::inst::Tiles;
use crate::kir::names::{BIN, CAST, COND, MMA, PREFETCH, TILES, UN, named};
use crate::kir::{Elem, Hint, Inst, Mma, Op, Ty};

/// Instructions that never have results.
const EFFECTS: [&str; 18] = [
    "arrive",
    "await",
    "fetch",
    "store",
    "prefetch.l1",
    "prefetch.l2",
    "call",
    "barrier",
    "group_barrier",
    "warp_barrier",
    "shared_fence",
    "async_copy",
    "async_commit",
    "async_wait",
    "signal_begin",
    "signal_end",
    "bulk_copy",
    "signal_wait",
];

impl Parser<'_> {
    pub(super) fn instruction(&mut self) -> Parsed<Inst> {
        let results = match self.token {
            Token::Value(_) => {
                let results = self.list(Self::value)?;
                self.mark('=')?;
                results
            }
            _ => Vec::new(),
        };
        let Token::Word(name) = self.token else { return self.fail("an instruction") };
        match name {
            "for" => self.for_loop(results),
            "if" => self.branch(results),
            _ if results.is_empty() && named(&TILES, name).is_some() => self.tiles(name),
            _ if results.is_empty() && EFFECTS.contains(&name) => self.effect(name),
            _ => self.computation(name, &results),
        }
    }

    fn for_loop(&mut self, results: Vec<Val>) -> Parsed<Inst> {
        self.word("for")?;
        let counter = self.value()?;
        self.define(counter, Ty::I64)?;
        self.mark('=')?;
        let lo = self.value()?;
        self.word("to")?;
        let hi = self.value()?;
        self.word("step")?;
        let step = self.value()?;
        let carried = if self.accept(Token::Mark('('))? { self.list_until(')', Self::carried)? } else { vec![] };
        if carried.len() != results.len() {
            return self.fail(&format!("{} carried values, one for each result", results.len()));
        }
        let mut body = self.region()?;
        for (v, (_, _, ty)) in results.iter().zip(&carried) {
            self.define(*v, *ty)?;
        }
        body.params = std::iter::once(counter).chain(carried.iter().map(|(p, ..)| *p)).collect();
        let init = carried.iter().map(|(_, init, _)| *init).collect();
        Ok(Inst { results, op: Op::For { lo, hi, step, init, body } })
    }

    /// `%param = %init: type`.
    fn carried(&mut self) -> Parsed<(Val, Val, Ty)> {
        let param = self.value()?;
        self.mark('=')?;
        let init = self.value()?;
        self.mark(':')?;
        let ty = self.ty()?;
        self.define(param, ty)?;
        Ok((param, init, ty))
    }

    fn branch(&mut self, results: Vec<Val>) -> Parsed<Inst> {
        self.word("if")?;
        let cond = self.value()?;
        let types = if self.accept(Token::Arrow)? { self.list(Self::ty)? } else { vec![] };
        if types.len() != results.len() {
            return self.fail(&format!("{} types, one for each result", results.len()));
        }
        let then = self.region()?;
        let els = if self.accept(Token::Word("else"))? { self.region()? } else { Default::default() };
        for (v, ty) in results.iter().zip(types) {
            self.define(*v, ty)?;
        }
        Ok(Inst { results, op: Op::If { cond, then, els } })
    }

    /// `tiles.KIND %x, %panels, %sums, %rows, [most rows, panels, blocks, strides of x, panels and sums]`.
    fn tiles(&mut self, name: &str) -> Parsed<Inst> {
        let Some(kind) = named(&TILES, name) else { return self.fail("a product in tiles") };
        self.advance()?;
        let ((x, panels), _) = (self.two()?, self.comma()?);
        let ((sums, rows), _) = (self.two()?, self.comma()?);
        self.mark('[')?;
        let shape: Vec<u32> = self.list_until(']', Self::integer)?;
        let [most_rows, columns, blocks, x_stride, panel_stride, sum_stride] = shape[..] else {
            return self.fail("six numbers before this");
        };
        let tiles = Tiles { kind, most_rows, panels: columns, blocks, x_stride, panel_stride, sum_stride };
        Ok(Inst { results: vec![], op: Op::Tiles { tiles, x, panels, sums, rows } })
    }

    /// An instruction that never has results.
    fn effect(&mut self, name: &str) -> Parsed<Inst> {
        self.advance()?;
        let op = match name {
            "store" => {
                let value = self.value()?;
                self.comma()?;
                let (ptr, offset) = self.place()?;
                let (align, hint) = self.guarantee()?;
                Op::Store { ptr, offset, value, align, hint }
            }
            "prefetch.l1" | "prefetch.l2" => {
                let (ptr, offset) = self.place()?;
                Op::Prefetch { ptr, offset, to: named(&PREFETCH, name).expect("both are in the table") }
            }
            "arrive" => Op::Arrive,
            "await" => Op::Await { phase: self.integer()? },
            "barrier" => Op::Barrier { phase: self.integer()? },
            "group_barrier" => Op::GroupBarrier,
            "warp_barrier" => Op::WarpBarrier,
            "shared_fence" => Op::SharedFence,
            "fetch" => {
                let ptr = self.value()?;
                self.comma()?;
                Op::Fetch { ptr, bytes: self.integer()? }
            }
            "async_commit" => Op::AsyncCommit,
            "async_wait" => Op::AsyncWait { pending: self.integer()? },
            "async_copy" => {
                let (to, from) = self.two()?;
                self.comma()?;
                Op::AsyncCopy { to, from, bytes: self.integer()? }
            }
            "signal_begin" => {
                let ptr = self.value()?;
                self.comma()?;
                Op::SignalBegin { ptr, copies: self.integer()? }
            }
            "signal_end" => Op::SignalEnd { ptr: self.value()? },
            "signal_wait" => {
                let (ptr, parity) = self.two()?;
                Op::SignalWait { ptr, parity }
            }
            "bulk_copy" => {
                let (to, from) = self.two()?;
                self.comma()?;
                let bytes = self.integer()?;
                self.comma()?;
                Op::BulkCopy { to, from, bytes, signal: self.value()? }
            }
            _ => {
                let callee = self.symbol()?;
                self.mark('(')?;
                Op::Call { callee, args: self.list_until(')', Self::value)? }
            }
        };
        Ok(Inst { results: vec![], op })
    }

    /// `name TYPE operands`, with one result of that type.
    fn computation(&mut self, name: &str, results: &[Val]) -> Parsed<Inst> {
        let [result] = results[..] else { return self.fail("another instruction for this number of results") };
        if !is_computation(name) {
            return self.fail("an instruction with a result");
        }
        self.advance()?;
        let ty = self.ty()?;
        let op = self.operands(name, ty)?;
        self.define(result, ty)?;
        Ok(Inst { results: vec![result], op })
    }

    fn operands(&mut self, name: &str, ty: Ty) -> Parsed<Op> {
        if let Some(op) = named(&UN, name) {
            return Ok(Op::Un(op, self.value()?));
        }
        if let Some(op) = named(&BIN, name) {
            let (a, b) = self.two()?;
            return Ok(Op::Bin(op, a, b));
        }
        if let Some(cond) = named(&COND, name) {
            let (a, b) = self.two()?;
            return Ok(Op::Cmp(cond, a, b));
        }
        if let Some(cast) = named(&CAST, name) {
            return Ok(Op::Cast(cast, self.value()?));
        }
        if let Some(kind) = named(&MMA, name) {
            let ((acc, a), _) = (self.two()?, self.comma()?);
            return Ok(Op::Mma { kind, acc, a, b: self.value()? });
        }
        if let Some(kind) = wide(name) {
            let ((acc, a), _) = (self.two()?, self.comma()?);
            return Ok(Op::Wgmma { kind, acc, a, b: self.value()? });
        }
        match name {
            "thread" => Ok(Op::Thread),
            "shared" => Ok(Op::Shared { bytes: self.integer()? }),
            "lane_xor" => {
                let (value, mask) = self.lane()?;
                let Ok(mask) = u8::try_from(mask) else { return self.fail("a mask below 32 before this") };
                Ok(Op::LaneXor { value, mask })
            }
            "wgmma_wait" => {
                let sums = self.value()?;
                self.comma()?;
                self.mark('[')?;
                Ok(Op::WgmmaWait { sums, kept: self.list_until(']', Self::value)? })
            }
            "load_matrix" => Ok(Op::LoadMatrix { ptr: self.value()? }),
            "last_of" => {
                let ((counter, add), _) = (self.two()?, self.comma()?);
                Ok(Op::LastOf { counter, add, total: self.integer()? })
            }
            "int" => Ok(Op::Int(self.integer()?)),
            "float" => Ok(Op::Float(self.float(ty)?)),
            "splat" => Ok(Op::Splat(self.value()?)),
            "stack" => Ok(Op::Stack { bytes: self.integer()? }),
            "load" => {
                let (ptr, offset) = self.place()?;
                let (align, hint) = self.guarantee()?;
                Ok(Op::Load { ptr, offset, align, hint })
            }
            "ptr_add" => self.two().map(|(ptr, bytes)| Op::PtrAdd(ptr, bytes)),
            "extract" => self.lane().map(|(a, lane)| Op::Extract(a, lane)),
            "insert" => {
                let (a, lane) = self.lane()?;
                self.comma()?;
                Ok(Op::Insert(a, lane, self.value()?))
            }
            "shuffle" => {
                let (a, b) = self.two()?;
                self.comma()?;
                self.mark('[')?;
                Ok(Op::Shuffle(a, b, self.list_until(']', Self::integer)?))
            }
            "table16" => {
                let (table, index) = self.two()?;
                Ok(Op::Table16 { table, index })
            }
            "lookup16" => {
                let (table, index) = self.two()?;
                Ok(Op::Lookup16 { table, index })
            }
            "add_halves" => self.two().map(|(acc, a)| Op::AddHalves { acc, a }),
            _ => self.three(name),
        }
    }

    fn two(&mut self) -> Parsed<(Val, Val)> {
        let a = self.value()?;
        self.comma()?;
        Ok((a, self.value()?))
    }

    fn three(&mut self, name: &str) -> Parsed<Op> {
        let (a, b) = self.two()?;
        self.comma()?;
        let c = self.value()?;
        match name {
            "fma" => Ok(Op::Fma(a, b, c)),
            "select" => Ok(Op::Select(a, b, c)),
            "dot2_bf16" => Ok(Op::Dot2Bf16 { acc: a, a: b, b: c }),
            "dot4_i8" => Ok(Op::Dot4I8 { acc: a, a: b, b: c }),
            "dot2_i8" => Ok(Op::Dot2I8 { acc: a, a: b, b: c }),
            _ => self.fail("an instruction"),
        }
    }

    /// `%v[lane]`.
    fn lane(&mut self) -> Parsed<(Val, u16)> {
        let v = self.value()?;
        self.mark('[')?;
        let lane = self.integer()?;
        self.mark(']')?;
        Ok((v, lane))
    }

    /// `%ptr`, `%ptr + bytes` or `%ptr - bytes`.
    fn place(&mut self) -> Parsed<(Val, i32)> {
        let ptr = self.value()?;
        let sign = match self.token {
            Token::Mark('+') => 1,
            Token::Mark('-') => -1,
            _ => return Ok((ptr, 0)),
        };
        self.advance()?;
        let bytes: u32 = self.integer()?;
        match i32::try_from(sign * i64::from(bytes)) {
            Ok(offset) => Ok((ptr, offset)),
            Err(_) => self.fail("an offset of 32 bits before this"),
        }
    }

    /// `, align N` and maybe `, stream`.
    fn guarantee(&mut self) -> Parsed<(u32, Hint)> {
        self.comma()?;
        self.word("align")?;
        let align = self.integer()?;
        if !self.accept(Token::Mark(','))? {
            return Ok((align, Hint::None));
        }
        match self.token {
            Token::Word("constant") => self.advance().map(|_| (align, Hint::Constant)),
            _ => self.word("stream").map(|_| (align, Hint::Stream)),
        }
    }

    /// A decimal number, rounded to f32 if that is the type, or the bits of an f64.
    fn float(&mut self, ty: Ty) -> Parsed<f64> {
        let Token::Number(text) = self.token else { return self.fail("a number") };
        let number = match text.strip_prefix("0x") {
            Some(bits) => u64::from_str_radix(bits, 16).ok().map(f64::from_bits),
            None if ty.elem == Elem::F32 => text.parse::<f32>().ok().map(f64::from),
            None => text.parse().ok(),
        };
        let Some(number) = number else { return self.fail("a number") };
        self.advance()?;
        Ok(number)
    }
}

/// What a product of four warps multiplies: its name is `wg` before that of a warp's.
fn wide(name: &str) -> Option<Mma> {
    name.strip_prefix("wg").and_then(|name| named(&MMA, name))
}

fn is_computation(name: &str) -> bool {
    const OTHERS: [&str; 23] = [
        "load_matrix",
        "wgmma_wait",
        "thread",
        "shared",
        "lane_xor",
        "last_of",
        "int",
        "float",
        "splat",
        "stack",
        "load",
        "ptr_add",
        "extract",
        "insert",
        "shuffle",
        "fma",
        "select",
        "dot2_bf16",
        "dot4_i8",
        "dot2_i8",
        "add_halves",
        "table16",
        "lookup16",
    ];
    named(&UN, name).is_some()
        || named(&BIN, name).is_some()
        || named(&COND, name).is_some()
        || named(&CAST, name).is_some()
        || named(&MMA, name).or(wide(name)).is_some()
        || OTHERS.contains(&name)
}
