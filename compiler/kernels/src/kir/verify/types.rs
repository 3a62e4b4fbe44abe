//! Operand and result types of every instruction.
//!
//! | Instruction | Operands | Result |
//! |---|---|---|
//! | `Int` | | integer or i1; the value fits, signed or unsigned |
//! | `Float` | | float; the value is one of its values |
//! | `Un` | `Neg` number; `Not` integer or i1; others float | the same |
//! | `Bin` | two alike: arithmetic number; `Rem`, shifts integer; bitwise integer or i1 | the same |
//! | `Fma` | three floats alike | the same |
//! | `Cmp` | two numbers alike | i1, as many lanes |
//! | `Select` | i1 (scalar or as many lanes), two alike | the same |
//! | `Cast` | see [`cast`] | as many lanes, but for `Bitcast` |
//! | `Splat` | scalar, not a pointer | vector of it |
//! | `Extract`, `Insert` | vector, (scalar); the lane exists | the scalar; the vector |
//! | `Shuffle` | two vectors alike; lanes of both together | vector of the list's length |
//! | `PtrAdd` | ptr, i64 | ptr |
//! | `Load`, `Store` | ptr, (value); anything but i1 | the value; none |
//! | `Dot2Bf16` | f32, i32, i32 with equal lanes | as the first |
//! | `Dot4I8`, `Dot2I8` | three i32 alike | the same |
//! | `AddHalves` | two i32 alike | the same |
//! | `Tiles` | three ptr, i64; 16 or 32 rows, 1 or 2 panels, some blocks | none |
//! | `Table16` | two i8 of 16, 32 or 64 lanes alike | the same |
//! | `Lookup16` | f32x16, i32x16 | f32x16 |
//! | `Thread`, `Shared` | | i64; ptr |
//! | `LaneXor` | i32 or f32 scalar; the mask is 1 to 31 | the same |
//! | `Mma` | sums x4 (f32, or i32 of bytes), i32x4, i32x2 | as the sums |
//! | `Wgmma` | sums x32 or x64 (f32, or i32 of bytes), i32x4, ptr | as the sums |
//! | `WgmmaWait` | sums as of `Wgmma`, some i32x4 | as the sums |
//! | `LoadMatrix` | ptr | i32x4 |
//! | `LastOf` | ptr, i32; the total is positive | i1 |
//! | `AsyncCopy` | two ptr; 4, 8 or 16 bytes | none |
//! | `For` | three i64, carried values | the carried types |
//! | `If` | i1 scalar | what both regions yield |

use super::is_truth;
use crate::kir::{BinOp, Cast, Elem, Mma, Op, Ty, UnOp};

/// Names of types, for messages.
pub(super) fn names(types: &[Ty]) -> String {
    let names: Vec<String> = types.iter().map(Ty::to_string).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Whether a value may have this type.
pub(super) fn valid(ty: Ty) -> Result<(), String> {
    if !ty.lanes.is_power_of_two() || ty.lanes > 64 {
        return Err(format!("{} lanes; vectors have 2, 4, 8, 16, 32 or 64", ty.lanes));
    }
    need(ty.elem != Elem::Ptr || ty.lanes == 1, || "pointers are not in vectors".into())
}

fn need(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

fn exactly(what: &str, found: &[Ty], expected: &[Ty]) -> Result<(), String> {
    need(found == expected, || format!("{what}: found {}, expected {}", names(found), names(expected)))
}

fn kind(ty: Ty, accept: impl Fn(Elem) -> bool, expected: &str) -> Result<(), String> {
    need(accept(ty.elem), || format!("found {ty}, expected {expected}"))
}

fn number(ty: Ty) -> Result<(), String> {
    kind(ty, |e| e.is_int() || e.is_float(), "an integer or a float")
}

fn int(ty: Ty) -> Result<(), String> {
    kind(ty, Elem::is_int, "an integer")
}

fn bits(ty: Ty) -> Result<(), String> {
    kind(ty, |e| e.is_int() || e == Elem::I1, "an integer or truth value")
}

fn float(ty: Ty) -> Result<(), String> {
    kind(ty, Elem::is_float, "a float")
}

fn vector(ty: Ty) -> Result<(), String> {
    need(ty.lanes > 1, || format!("found {ty}, expected a vector"))
}

fn same_lanes(a: Ty, b: Ty) -> Result<(), String> {
    need(a.lanes == b.lanes, || format!("{a} and {b} have different numbers of lanes"))
}

fn lane(lane: u16, ty: Ty) -> Result<(), String> {
    need(lane < ty.lanes, || format!("{ty} has no lane {lane}"))
}

fn memory(ty: Ty, align: u32) -> Result<(), String> {
    need(align.is_power_of_two(), || format!("alignment {align} is not a power of two"))?;
    need(!is_truth(ty), || "truth values are not in memory".into())
}

/// Checks operands and results of an instruction, its regions and callee aside.
pub(super) fn check(op: &Op, operands: &[Ty], results: &[Ty]) -> Result<(), String> {
    match (op, operands, results) {
        (Op::Store { align, .. }, [ptr, value], []) => {
            exactly("address", &[*ptr], &[Ty::PTR])?;
            memory(*value, *align)
        }
        (Op::Prefetch { .. }, operands, []) => exactly("address", operands, &[Ty::PTR]),
        (Op::Call { .. } | Op::Barrier { .. }, _, []) => Ok(()),
        (Op::Arrive | Op::Await { .. }, [], []) => Ok(()),
        (Op::GroupBarrier | Op::WarpBarrier | Op::SharedFence, [], []) => Ok(()),
        (Op::AsyncCommit | Op::AsyncWait { .. }, [], []) => Ok(()),
        (Op::Fetch { bytes, .. }, operands, []) => {
            need(bytes % 32 == 0 && *bytes > 0, || format!("{bytes} bytes; a multiple of 32 is fetched"))?;
            exactly("address", operands, &[Ty::PTR])
        }
        (Op::AsyncCopy { bytes, .. }, operands, []) => {
            need(matches!(bytes, 4 | 8 | 16), || format!("{bytes} bytes; a copy has 4, 8 or 16"))?;
            exactly("addresses", operands, &[Ty::PTR; 2])
        }
        (Op::SignalBegin { copies, .. }, operands, []) => {
            need(*copies > 0, || "a signal of no copies".into())?;
            exactly("address", operands, &[Ty::PTR])
        }
        (Op::Tiles { tiles, .. }, operands, []) => {
            need(matches!(tiles.most_rows, 16 | 32), || format!("{} rows; tiles have 16 or 32", tiles.most_rows))?;
            need(matches!(tiles.panels, 1 | 2), || format!("{} panels; tiles take 1 or 2", tiles.panels))?;
            need(tiles.blocks > 0, || "tiles of no blocks".into())?;
            exactly("addresses and rows", operands, &[Ty::PTR, Ty::PTR, Ty::PTR, Ty::I64])
        }
        (Op::SignalEnd { .. }, operands, []) => exactly("address", operands, &[Ty::PTR]),
        (Op::SignalWait { .. }, operands, []) => exactly("signal and parity", operands, &[Ty::PTR, Ty::I32]),
        (Op::BulkCopy { bytes, .. }, operands, []) => {
            need(bytes % 16 == 0 && *bytes > 0, || format!("{bytes} bytes; a multiple of 16 is copied"))?;
            exactly("addresses", operands, &[Ty::PTR; 3])
        }
        (Op::For { .. }, operands, _) => exactly("range", &operands[..3], &[Ty::I64; 3]),
        (Op::If { .. }, operands, _) => exactly("condition", operands, &[Ty::I1]),
        (Op::Store { .. } | Op::Prefetch { .. } | Op::Call { .. } | Op::Barrier { .. }, ..) => {
            Err("the instruction has no results".into())
        }
        (_, _, [result]) => value(op, operands, *result),
        _ => Err(format!("found {} results, expected one", results.len())),
    }
}

/// Instructions with one result.
fn value(op: &Op, operands: &[Ty], ty: Ty) -> Result<(), String> {
    match (op, operands) {
        (Op::Int(v), _) => constant_int(*v, ty),
        (Op::Float(v), _) => {
            float(ty)?;
            let fits = ty.elem == Elem::F64 || v.is_nan() || f64::from(*v as f32) == *v;
            need(fits, || format!("{v} is no f32"))
        }
        (Op::Un(op, _), [a]) => {
            exactly("result", &[ty], &[*a])?;
            match op {
                UnOp::Neg => number(ty),
                UnOp::Not => bits(ty),
                UnOp::Abs | UnOp::Sqrt | UnOp::Round | UnOp::Floor => float(ty),
            }
        }
        (Op::Bin(op, ..), operands) => {
            exactly("operands", operands, &[ty; 2])?;
            match op {
                BinOp::Add | BinOp::Sub | BinOp::Mul | BinOp::Div | BinOp::Min | BinOp::Max => number(ty),
                BinOp::Rem | BinOp::Shl | BinOp::LShr | BinOp::AShr => int(ty),
                BinOp::And | BinOp::Or | BinOp::Xor => bits(ty),
            }
        }
        (Op::Fma(..), operands) => {
            exactly("operands", operands, &[ty; 3])?;
            float(ty)
        }
        (Op::Cmp(..), [a, b]) => {
            number(*a)?;
            exactly("operands", &[*a, *b], &[*a; 2])?;
            exactly("result", &[ty], &[a.with_elem(Elem::I1)])
        }
        (Op::Select(..), [c, a, b]) => {
            exactly("operands", &[*a, *b], &[ty; 2])?;
            let holds = is_truth(*c) && (c.lanes == 1 || c.lanes == ty.lanes);
            need(holds, || format!("condition: found {c}, expected i1 or {}", ty.with_elem(Elem::I1)))
        }
        (Op::Cast(op, _), [a]) => cast(*op, *a, ty),
        (Op::Dot2Bf16 { .. }, operands) => {
            kind(ty, |e| e == Elem::F32, "f32")?;
            let packed = ty.with_elem(Elem::I32);
            exactly("operands", operands, &[ty, packed, packed])
        }
        (Op::Dot4I8 { .. } | Op::Dot2I8 { .. }, operands) => {
            kind(ty, |e| e == Elem::I32, "i32")?;
            exactly("operands", operands, &[ty; 3])
        }
        (Op::AddHalves { .. }, operands) => {
            kind(ty, |e| e == Elem::I32, "i32")?;
            exactly("operands", operands, &[ty; 2])
        }
        (Op::Lookup16 { .. }, operands) => {
            let table = Ty::vector(Elem::F32, 16);
            exactly("result", &[ty], &[table])?;
            exactly("operands", operands, &[table, table.with_elem(Elem::I32)])
        }
        (Op::Table16 { .. }, operands) => {
            let holds = ty.elem == Elem::I8 && ty.lanes >= 16;
            need(holds, || format!("result: found {ty}, expected i8x16, i8x32 or i8x64"))?;
            exactly("operands", operands, &[ty; 2])
        }
        (
            Op::Thread
            | Op::Shared { .. }
            | Op::LaneXor { .. }
            | Op::Mma { .. }
            | Op::Wgmma { .. }
            | Op::WgmmaWait { .. }
            | Op::LoadMatrix { .. }
            | Op::LastOf { .. },
            _,
        ) => group(op, operands, ty),
        _ => movement(op, operands, ty),
    }
}

/// Instructions of a group of threads.
fn group(op: &Op, operands: &[Ty], ty: Ty) -> Result<(), String> {
    match op {
        Op::Thread => exactly("result", &[ty], &[Ty::I64]),
        Op::Shared { .. } => exactly("result", &[ty], &[Ty::PTR]),
        Op::LaneXor { mask, .. } => {
            need((1..32).contains(mask), || format!("mask {mask}; it is 1 to 31"))?;
            need(ty == Ty::I32 || ty == Ty::F32, || format!("found {ty}, expected i32 or f32"))?;
            exactly("operand", operands, &[ty])
        }
        Op::Mma { kind, .. } => {
            exactly("result", &[ty], &[Ty::vector(sums_of(*kind), 4)])?;
            exactly("operands", operands, &[ty, Ty::vector(Elem::I32, 4), Ty::vector(Elem::I32, 2)])
        }
        Op::Wgmma { kind, .. } => {
            wide(ty)?;
            exactly("result", &[ty], &[ty.with_elem(sums_of(*kind))])?;
            exactly("operands", operands, &[ty, Ty::vector(Elem::I32, 4), Ty::PTR])
        }
        Op::WgmmaWait { kept, .. } => {
            wide(ty)?;
            exactly("sums", &operands[..1], &[ty])?;
            exactly("factors", &operands[1..], &vec![Ty::vector(Elem::I32, 4); kept.len()])
        }
        Op::LoadMatrix { .. } => {
            exactly("result", &[ty], &[Ty::vector(Elem::I32, 4)])?;
            exactly("operand", operands, &[Ty::PTR])
        }
        Op::LastOf { total, .. } => {
            need(*total > 0, || "the total is not positive".into())?;
            exactly("result", &[ty], &[Ty::I1])?;
            exactly("operands", operands, &[Ty::PTR, Ty::I32])
        }
        _ => Err("not an instruction of a group".into()),
    }
}

/// What sums of a product are.
fn sums_of(kind: Mma) -> Elem {
    if matches!(kind, Mma::U8S8 | Mma::S8S8) { Elem::I32 } else { Elem::F32 }
}

/// Sums of products of four warps.
fn wide(ty: Ty) -> Result<(), String> {
    need(matches!(ty.lanes, 32 | 64), || format!("found {ty}, expected 32 or 64 lanes"))
}

/// Instructions that move lanes, and those on memory.
fn movement(op: &Op, operands: &[Ty], ty: Ty) -> Result<(), String> {
    match (op, operands) {
        (Op::Splat(_), [a]) => {
            vector(ty)?;
            exactly("operand", &[*a], &[Ty::scalar(ty.elem)])
        }
        (Op::Extract(_, i), [a]) => {
            vector(*a)?;
            lane(*i, *a)?;
            exactly("result", &[ty], &[Ty::scalar(a.elem)])
        }
        (Op::Insert(_, i, _), operands) => {
            vector(ty)?;
            lane(*i, ty)?;
            exactly("operands", operands, &[ty, Ty::scalar(ty.elem)])
        }
        (Op::Shuffle(_, _, lanes), [a, b]) => {
            vector(*a)?;
            vector(ty)?;
            exactly("operands", &[*a, *b], &[*a; 2])?;
            let both = Ty::vector(a.elem, a.lanes.saturating_mul(2));
            lanes.iter().try_for_each(|i| lane(*i, both))?;
            exactly("result", &[ty], &[Ty::vector(a.elem, u16::try_from(lanes.len()).unwrap_or(0))])
        }
        (Op::PtrAdd(..), operands) => {
            exactly("operands", operands, &[Ty::PTR, Ty::I64])?;
            exactly("result", &[ty], &[Ty::PTR])
        }
        (Op::Load { align, .. }, operands) => {
            exactly("address", operands, &[Ty::PTR])?;
            memory(ty, *align)
        }
        (Op::Stack { .. }, _) => exactly("result", &[ty], &[Ty::PTR]),
        _ => Err("wrong number of operands".into()),
    }
}

fn constant_int(v: i64, ty: Ty) -> Result<(), String> {
    bits(ty)?;
    let bits = ty.elem.bits();
    let fits = match bits {
        1 => v == 0 || v == 1,
        64 => true,
        _ => (-(1i64 << (bits - 1))..1i64 << bits).contains(&v),
    };
    need(fits, || format!("{v} does not fit {ty}"))
}

/// Types of a conversion from `a` to `ty`.
fn cast(cast: Cast, a: Ty, ty: Ty) -> Result<(), String> {
    let wider = ty.elem.bits() > a.elem.bits();
    let pair = (a.elem, ty.elem);
    let holds = match cast {
        Cast::SExt => a.elem.is_int() && ty.elem.is_int() && wider,
        Cast::ZExt => (a.elem.is_int() || is_truth(a)) && ty.elem.is_int() && wider,
        Cast::Trunc => a.elem.is_int() && ty.elem.is_int() && ty.elem.bits() < a.elem.bits(),
        Cast::IntToFloat => a.elem.is_int() && ty.elem.is_float(),
        Cast::FloatToInt => a.elem.is_float() && ty.elem.is_int(),
        Cast::FExt => pair == (Elem::F32, Elem::F64),
        Cast::FTrunc => pair == (Elem::F64, Elem::F32),
        Cast::F16ToF32 => pair == (Elem::I16, Elem::F32),
        Cast::F32ToF16 => pair == (Elem::F32, Elem::I16),
        Cast::Bitcast => {
            number(a)?;
            number(ty)?;
            return need(a.bytes() == ty.bytes(), || format!("{a} and {ty} have different sizes"));
        }
    };
    need(holds, || format!("no such conversion from {a} to {ty}"))?;
    same_lanes(a, ty)
}
