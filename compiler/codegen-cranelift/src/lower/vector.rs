//! Constants, splats, lanes, masks and shuffles.

use super::{Lower, is_truth, repr};
use cranelift_codegen::ir::{ConstantData, InstBuilder, Type, Value, types};
use llmc_kernels::kir::{Elem, Ty, Val};

impl Lower<'_> {
    pub(super) fn int(&mut self, result: Val, ty: Ty, k: i64) -> Value {
        let k = if is_truth(ty) { -(k & 1) } else { k };
        if ty.lanes == 1 {
            let k = if is_truth(ty) { -k } else { k };
            return self.iconst(repr::scalar(ty.elem), k);
        }
        if !is_truth(ty) {
            let scalar = self.iconst(repr::scalar(ty.elem), k);
            self.splats.insert(result, scalar);
        }
        let lane = repr::lane(ty);
        self.fill(lane, &k.to_le_bytes())
    }

    /// An integer constant; bits beyond the type are dropped.
    fn iconst(&mut self, ty: Type, k: i64) -> Value {
        let mask = if ty.bits() == 64 { -1 } else { (1 << ty.bits()) - 1 };
        self.b.ins().iconst(ty, k & mask)
    }

    pub(super) fn float(&mut self, ty: Ty, k: f64) -> Value {
        match (ty.elem, ty.lanes) {
            (Elem::F32, 1) => self.b.ins().f32const(k as f32),
            (_, 1) => self.b.ins().f64const(k),
            (Elem::F32, _) => self.fill(types::F32, &(k as f32).to_le_bytes()),
            _ => self.fill(types::F64, &k.to_le_bytes()),
        }
    }

    /// A register with the first bytes of `lane_bytes` in every lane.
    fn fill(&mut self, lane: Type, lane_bytes: &[u8]) -> Value {
        let lane_bytes = &lane_bytes[..lane.bytes() as usize];
        let bytes: Vec<u8> = lane_bytes.iter().copied().cycle().take(repr::BYTES).collect();
        let constant = self.b.func.dfg.constants.insert(ConstantData::from(&bytes[..]));
        self.b.ins().vconst(repr::register(lane), constant)
    }

    pub(super) fn splat(&mut self, result: Val, a: Value, ty: Ty) -> Value {
        if ty.lanes == 1 {
            return a;
        }
        if is_truth(ty) {
            let lane = self.truth_to_lane(a, repr::lane(ty));
            return self.b.ins().splat(repr::of(ty), lane);
        }
        self.splats.insert(result, a);
        self.b.ins().splat(repr::of(ty), a)
    }

    /// A scalar truth value as a lane of a mask.
    fn truth_to_lane(&mut self, a: Value, lane: Type) -> Value {
        let ones = self.b.ins().ineg(a);
        if lane == types::I8 { ones } else { self.b.ins().sextend(lane, ones) }
    }

    pub(super) fn extract(&mut self, a: Value, ty: Ty, lane: u16) -> Value {
        if ty.lanes == 1 {
            return a;
        }
        let x = self.b.ins().extractlane(a, lane as u8);
        if !is_truth(ty) {
            return x;
        }
        let byte = if repr::lane(ty) == types::I8 { x } else { self.b.ins().ireduce(types::I8, x) };
        self.b.ins().band_imm_u(byte, 1)
    }

    pub(super) fn insert(&mut self, a: Value, ty: Ty, lane: u16, scalar: Value) -> Value {
        if ty.lanes == 1 {
            return scalar;
        }
        let scalar = if is_truth(ty) { self.truth_to_lane(scalar, repr::lane(ty)) } else { scalar };
        self.b.ins().insertlane(a, scalar, lane as u8)
    }

    /// Lanes of `a` then `b`, both of type `ty`.
    pub(super) fn shuffle(&mut self, a: Value, b: Value, ty: Ty, lanes: &[u16]) -> Value {
        if ty.lanes == 1 || lanes.len() == 1 {
            let picks: Vec<Value> = lanes.iter().map(|l| self.lane_of_two(a, b, ty, *l)).collect();
            return self.join(&picks, Ty { elem: ty.elem, lanes: lanes.len() as u16 });
        }
        let to = repr::lane(Ty { elem: ty.elem, lanes: lanes.len() as u16 });
        let from = repr::lane(ty);
        // Any byte of a mask's lane is the lane's value, so lanes of other widths can be filled.
        let byte = |lane: u16, k: u32| {
            let (register, lane) = (lane / ty.lanes, lane % ty.lanes);
            register as u8 * repr::BYTES as u8 + (u32::from(lane) * from.bytes() + k % from.bytes()) as u8
        };
        let picks: Vec<u8> = lanes.iter().flat_map(|l| (0..to.bytes()).map(move |k| byte(*l, k))).collect();
        self.pick_bytes(a, b, &picks, repr::register(to))
    }

    fn lane_of_two(&mut self, a: Value, b: Value, ty: Ty, lane: u16) -> Value {
        if lane < ty.lanes { self.extract(a, ty, lane) } else { self.extract(b, ty, lane - ty.lanes) }
    }

    /// Scalars as a vector; one scalar as itself.
    pub(super) fn join(&mut self, scalars: &[Value], ty: Ty) -> Value {
        if ty.lanes == 1 {
            return scalars[0];
        }
        let zero = self.fill(repr::lane(ty), &[0; 8]);
        let lanes = (0..).zip(scalars);
        lanes.fold(zero, |v, (lane, s)| self.insert(v, ty, lane, *s))
    }

    /// Bytes of `a` then `b` in the lower bytes of a register of type `to`.
    fn pick_bytes(&mut self, a: Value, b: Value, picks: &[u8], to: Type) -> Value {
        let bytes: Vec<u8> = picks.iter().copied().chain(std::iter::repeat(0)).take(repr::BYTES).collect();
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(&bytes[..]));
        let (a, b) = (self.reinterpret(a, types::I8X16), self.reinterpret(b, types::I8X16));
        let picked = self.b.ins().shuffle(a, b, mask);
        self.reinterpret(picked, to)
    }

    /// The lower bits of each of `lanes` lanes, as lanes of type `to`; of masks, to any width.
    pub(super) fn resize_lanes(&mut self, a: Value, lanes: u16, to: Type) -> Value {
        let from = self.b.func.dfg.value_type(a).lane_type();
        if from.bits() == to.bits() {
            return self.reinterpret(a, repr::register(to));
        }
        let byte = |lane: u32, k: u32| (lane * from.bytes() + k % from.bytes()) as u8;
        let picks: Vec<u8> = (0..u32::from(lanes)).flat_map(|l| (0..to.bytes()).map(move |k| byte(l, k))).collect();
        self.pick_bytes(a, a, &picks, repr::register(to))
    }

    /// The same 128 bits as another register type.
    pub(super) fn reinterpret(&mut self, a: Value, to: Type) -> Value {
        if self.b.func.dfg.value_type(a) == to { a } else { self.b.ins().bitcast(to, repr::LITTLE, a) }
    }
}
