//! Runs chosen vector instructions lane by lane.

use super::parts::from_lanes;
use super::rewrite::{Env, Pass, copy};
use super::split::address;
use crate::kir::func::Val;
use crate::kir::{Builder, Cast, Op, Ty};

/// The pass, with [`super::Limits::scalarize`].
pub(super) struct Scalarize(pub fn(&Op, Ty, Ty) -> bool);

impl Pass for Scalarize {
    fn op(&self, b: &mut Builder, env: &Env<'_>, op: &Op, ty: Option<Ty>) -> Vec<Val> {
        let first = match op {
            Op::Store { value, .. } => Some(env.ty(*value)),
            Op::Load { .. } => None,
            op => op.operands().first().map(|v| env.ty(*v)),
        };
        let (Some(operand), Some(result)) = (first.or(ty), ty.or(first)) else {
            return copy(b, env, op, ty);
        };
        if !can_run_by_lanes(op, operand, result) || !(self.0)(op, operand, result) {
            return copy(b, env, op, ty);
        }
        match op {
            Op::Store { .. } => store(b, &env.mapped(op), operand),
            Op::Shuffle(x, y, lanes) => vec![shuffle(b, env.one(*x), env.one(*y), lanes)],
            _ => vec![by_lanes(b, &env.mapped(op), result)],
        }
    }
}

fn can_run_by_lanes(op: &Op, operand: Ty, result: Ty) -> bool {
    let kind = match op {
        Op::Un(..) | Op::Bin(..) | Op::Fma(..) | Op::Cmp(..) | Op::Select(..) | Op::Shuffle(..) => true,
        Op::Dot2Bf16 { .. } | Op::Dot4I8 { .. } | Op::Dot2I8 { .. } | Op::AddHalves { .. } => true,
        Op::Load { .. } | Op::Store { .. } => true,
        Op::Cast(cast, _) => *cast != Cast::Bitcast || operand.lanes == result.lanes,
        _ => false,
    };
    kind && result.lanes > 1
}

/// Lane `lane` of a vector, or the scalar itself.
fn lane_of(b: &mut Builder, v: Val, lane: u16) -> Val {
    if b.ty(v).lanes == 1 { v } else { b.extract(v, lane) }
}

fn by_lanes(b: &mut Builder, op: &Op, ty: Ty) -> Val {
    let scalars: Vec<Val> = (0..ty.lanes)
        .map(|lane| {
            let mut op = op.clone();
            match &mut op {
                Op::Load { ptr, offset, align, .. } => {
                    let step = u32::from(lane) * Ty::scalar(ty.elem).bytes();
                    (*ptr, *offset, *align) = address(b, *ptr, (*offset, *align), step);
                }
                op => op.operands_mut().into_iter().for_each(|v| *v = lane_of(b, *v, lane)),
            }
            b.op(op, Some(Ty::scalar(ty.elem))).expect("the instruction has a result")
        })
        .collect();
    from_lanes(b, &scalars)
}

fn store(b: &mut Builder, op: &Op, ty: Ty) -> Vec<Val> {
    let Op::Store { ptr, offset, value, align, hint } = op else { unreachable!("a store is scalarized") };
    for lane in 0..ty.lanes {
        let scalar = b.extract(*value, lane);
        let step = u32::from(lane) * Ty::scalar(ty.elem).bytes();
        let (ptr, offset, align) = address(b, *ptr, (*offset, *align), step);
        b.op(Op::Store { ptr, offset, value: scalar, align, hint: *hint }, None);
    }
    vec![]
}

fn shuffle(b: &mut Builder, x: Val, y: Val, lanes: &[u16]) -> Val {
    let width = b.ty(x).lanes;
    let scalars: Vec<Val> =
        lanes.iter().map(|l| if *l < width { b.extract(x, *l) } else { b.extract(y, *l - width) }).collect();
    from_lanes(b, &scalars)
}
