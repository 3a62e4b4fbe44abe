//! Cuts vectors that are too wide into parts.
//!
//! A vector of numbers is always cut into the fewest parts that fit. A vector of truth values has
//! no width of its own: it has the parts of what was compared, is regrouped where it is used, and
//! counts as 32 bits a lane where it crosses a region or a call.

use super::parts::{pick, regroup};
use super::rewrite::{Env, Pass, copy};
use crate::kir::func::Val;
use crate::kir::{Builder, Cast, Elem, Op, Ty};

/// The pass, with the widest vector in bits.
pub(super) struct Split(pub u32);

impl Pass for Split {
    fn boundary(&self, ty: Ty) -> Vec<Ty> {
        vec![self.part(ty); self.count(ty)]
    }

    fn fit(&self, b: &mut Builder, parts: &[Val], ty: Ty) -> Vec<Val> {
        regroup(b, parts, self.count(ty))
    }

    fn op(&self, b: &mut Builder, env: &Env<'_>, op: &Op, ty: Option<Ty>) -> Vec<Val> {
        let whole = op.operands().iter().all(|v| env.parts(*v).len() == 1);
        if whole && ty.is_none_or(|ty| self.count(ty) == 1 || self.is_mask(ty)) {
            return copy(b, env, op, ty);
        }
        match (op, ty) {
            (Op::Load { .. }, Some(ty)) => self.load(b, env, op, ty),
            (Op::Store { .. }, _) => store(b, env, op),
            (Op::Splat(_) | Op::Int(_) | Op::Float(_), Some(ty)) => self.repeat(b, env, op, ty),
            (Op::Extract(a, lane), _) => vec![extract(b, env.parts(*a), *lane)],
            (Op::Insert(a, lane, s), _) => insert(b, env.parts(*a), *lane, env.one(*s)),
            (Op::Shuffle(x, y, lanes), Some(ty)) => shuffle(b, env.parts(*x), env.parts(*y), lanes, ty),
            (Op::Cast(cast, a), Some(ty)) => self.cast(b, *cast, env.parts(*a), ty),
            (Op::Select(c, x, y), Some(ty)) => {
                let count = env.parts(*x).len().max(env.parts(*y).len());
                let cond =
                    if env.ty(*c).lanes == 1 { vec![env.one(*c); count] } else { regroup(b, env.parts(*c), count) };
                lanewise(b, env, op, ty, Some(cond))
            }
            // A table does not go into smaller parts than 16 lanes, whatever its operands are in.
            (Op::Table16 { table, index }, Some(ty)) => {
                let operands = [table, index].map(|v| env.parts(*v).to_vec());
                in_parts(b, op, ty, &operands, self.count(ty))
            }
            (_, Some(ty)) => lanewise(b, env, op, ty, None),
            (_, None) => unreachable!("without a result only a store reads vectors"),
        }
    }
}

impl Split {
    /// Lanes of a part of a value of this type.
    fn lanes(&self, ty: Ty) -> u16 {
        let bits = if ty.elem == Elem::I1 { 32 } else { ty.elem.bits() };
        (self.0 / bits).min(u32::from(ty.lanes)) as u16
    }

    /// Truth values that one vector of the narrowest lanes has room for.
    fn is_mask(&self, ty: Ty) -> bool {
        ty.elem == Elem::I1 && u32::from(ty.lanes) * Elem::I8.bits() <= self.0
    }

    fn count(&self, ty: Ty) -> usize {
        usize::from(ty.lanes / self.lanes(ty))
    }

    fn part(&self, ty: Ty) -> Ty {
        Ty { elem: ty.elem, lanes: self.lanes(ty) }
    }

    /// A splat or a constant: one value serves as every part.
    fn repeat(&self, b: &mut Builder, env: &Env<'_>, op: &Op, ty: Ty) -> Vec<Val> {
        let part = self.part(ty);
        let value = match op {
            Op::Splat(a) => b.splat(env.one(*a), part.lanes),
            constant => b.op(constant.clone(), Some(part)).expect("a constant is a value"),
        };
        vec![value; self.count(ty)]
    }

    fn load(&self, b: &mut Builder, env: &Env<'_>, op: &Op, ty: Ty) -> Vec<Val> {
        let Op::Load { ptr, offset, align, hint } = op else { unreachable!("a load is split") };
        let part = self.part(ty);
        (0..self.count(ty))
            .map(|k| {
                let (ptr, offset, align) = address(b, env.one(*ptr), (*offset, *align), k as u32 * part.bytes());
                b.load_with(part, ptr, offset, align, *hint)
            })
            .collect()
    }

    /// The side with more parts decides in how many parts the conversion runs; for a bitcast it is
    /// the side with fewer, as lanes do not correspond.
    fn cast(&self, b: &mut Builder, cast: Cast, source: &[Val], ty: Ty) -> Vec<Val> {
        let count = if ty.elem == Elem::I1 { source.len() } else { self.count(ty) };
        let steps = if cast == Cast::Bitcast { count.min(source.len()) } else { count.max(source.len()) };
        let part = Ty { elem: ty.elem, lanes: ty.lanes / steps as u16 };
        let source = regroup(b, source, steps);
        let results: Vec<Val> = source.into_iter().map(|v| b.cast(cast, v, part)).collect();
        regroup(b, &results, count)
    }
}

/// One instruction for each part; `cond` replaces the first operand's parts.
fn lanewise(b: &mut Builder, env: &Env<'_>, op: &Op, ty: Ty, cond: Option<Vec<Val>>) -> Vec<Val> {
    let mut operands: Vec<Vec<Val>> = op.operands().iter().map(|v| env.parts(*v).to_vec()).collect();
    if let Some(cond) = cond {
        operands[0] = cond;
    }
    let count = operands.iter().map(Vec::len).max().expect("a lane-wise instruction has operands");
    in_parts(b, op, ty, &operands, count)
}

/// The instruction on each of `count` parts of its operands.
fn in_parts(b: &mut Builder, op: &Op, ty: Ty, operands: &[Vec<Val>], count: usize) -> Vec<Val> {
    let parts: Vec<Vec<Val>> = operands.iter().map(|p| regroup(b, p, count)).collect();
    let ty = Ty { elem: ty.elem, lanes: ty.lanes / count as u16 };
    (0..count)
        .map(|k| {
            let mut op = op.clone();
            op.operands_mut().into_iter().zip(&parts).for_each(|(v, p)| *v = p[k]);
            b.op(op, Some(ty)).expect("an instruction on parts has a result")
        })
        .collect()
}

fn store(b: &mut Builder, env: &Env<'_>, op: &Op) -> Vec<Val> {
    let Op::Store { ptr, offset, value, align, hint } = op else { unreachable!("a store is split") };
    for (k, part) in (0u32..).zip(env.parts(*value)) {
        let step = k * b.ty(*part).bytes();
        let (ptr, offset, align) = address(b, env.one(*ptr), (*offset, *align), step);
        b.op(Op::Store { ptr, offset, value: *part, align, hint: *hint }, None);
    }
    vec![]
}

/// `ptr + offset + step` with its guaranteed alignment, given that of `ptr + offset`.
pub(super) fn address(b: &mut Builder, ptr: Val, (offset, align): (i32, u32), step: u32) -> (Val, i32, u32) {
    let align = if step == 0 { align } else { align.min(1 << step.trailing_zeros()) };
    match offset.checked_add_unsigned(step) {
        Some(offset) => (ptr, offset, align),
        None => (b.ptr_add_const(ptr, step as usize), offset, align),
    }
}

fn extract(b: &mut Builder, parts: &[Val], lane: u16) -> Val {
    let width = b.ty(parts[0]).lanes;
    let part = parts[usize::from(lane / width)];
    if width == 1 { part } else { b.extract(part, lane % width) }
}

fn insert(b: &mut Builder, parts: &[Val], lane: u16, scalar: Val) -> Vec<Val> {
    let width = b.ty(parts[0]).lanes;
    let mut parts = parts.to_vec();
    let part = &mut parts[usize::from(lane / width)];
    *part = if width == 1 { scalar } else { b.insert(*part, lane % width, scalar) };
    parts
}

fn shuffle(b: &mut Builder, x: &[Val], y: &[Val], lanes: &[u16], ty: Ty) -> Vec<Val> {
    let count = x.len().max(y.len());
    let mut parts = regroup(b, x, count);
    parts.extend(regroup(b, y, count));
    let part = Ty { elem: ty.elem, lanes: b.ty(parts[0]).lanes.min(ty.lanes) };
    lanes.chunks(usize::from(part.lanes)).map(|lanes| pick(b, &parts, lanes, part)).collect()
}
