//! Arithmetic, comparison and selection.

use super::{Lower, is_truth, repr};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value};
use llmc_kernels::kir::{BinOp, Cond, Ty, UnOp, Val};

impl Lower<'_> {
    pub(super) fn unary(&mut self, op: UnOp, a: Value, ty: Ty) -> Value {
        let ins = self.b.ins();
        match op {
            UnOp::Neg if ty.elem.is_float() => ins.fneg(a),
            UnOp::Neg => ins.ineg(a),
            UnOp::Abs => ins.fabs(a),
            UnOp::Sqrt => ins.sqrt(a),
            UnOp::Round => ins.nearest(a),
            UnOp::Floor => ins.floor(a),
            UnOp::Not if is_truth(ty) && ty.lanes == 1 => ins.bxor_imm_u(a, 1),
            UnOp::Not => ins.bnot(a),
        }
    }

    pub(super) fn binary(&mut self, op: BinOp, a: Val, b: Val, ty: Ty) -> Value {
        if matches!(op, BinOp::Shl | BinOp::LShr | BinOp::AShr) {
            return self.shift(op, a, b, ty);
        }
        let (a, b) = (self.get(a), self.get(b));
        if ty.elem.is_float() { self.float_binary(op, a, b, ty) } else { self.int_binary(op, a, b) }
    }

    fn int_binary(&mut self, op: BinOp, a: Value, b: Value) -> Value {
        let ins = self.b.ins();
        match op {
            BinOp::Add => ins.iadd(a, b),
            BinOp::Sub => ins.isub(a, b),
            BinOp::Mul => ins.imul(a, b),
            BinOp::Div => ins.sdiv(a, b),
            BinOp::Rem => ins.srem(a, b),
            BinOp::Min => ins.smin(a, b),
            BinOp::Max => ins.smax(a, b),
            BinOp::And => ins.band(a, b),
            BinOp::Or => ins.bor(a, b),
            BinOp::Xor => ins.bxor(a, b),
            BinOp::Shl => ins.ishl(a, b),
            BinOp::LShr => ins.ushr(a, b),
            BinOp::AShr => ins.sshr(a, b),
        }
    }

    fn float_binary(&mut self, op: BinOp, a: Value, b: Value, ty: Ty) -> Value {
        let cond = match op {
            BinOp::Add => return self.b.ins().fadd(a, b),
            BinOp::Sub => return self.b.ins().fsub(a, b),
            BinOp::Mul => return self.b.ins().fmul(a, b),
            BinOp::Div => return self.b.ins().fdiv(a, b),
            BinOp::Min => FloatCC::LessThan,
            BinOp::Max => FloatCC::GreaterThan,
            op => unreachable!("verified: {op:?} is not for floats"),
        };
        let c = self.b.ins().fcmp(cond, a, b);
        if ty.lanes == 1 {
            return self.b.ins().select(c, a, b);
        }
        let c = self.reinterpret(c, repr::of(ty));
        self.b.ins().bitselect(c, a, b)
    }

    /// Cranelift shifts all lanes by one amount; other shifts run lane by lane.
    fn shift(&mut self, op: BinOp, a: Val, amount: Val, ty: Ty) -> Value {
        let x = self.get(a);
        if ty.lanes == 1 {
            return self.int_binary(op, x, self.get(amount));
        }
        if let Some(amount) = self.splats.get(&amount).copied() {
            return self.int_binary(op, x, amount);
        }
        let amounts = self.get(amount);
        let lanes: Vec<Value> = (0..ty.lanes)
            .map(|lane| {
                let (x, by) = (self.extract(x, ty, lane), self.extract(amounts, ty, lane));
                self.int_binary(op, x, by)
            })
            .collect();
        self.join(&lanes, ty)
    }

    /// Compares values of type `ty`.
    pub(super) fn compare(&mut self, cond: Cond, a: Value, b: Value, ty: Ty) -> Value {
        let (int, float) = predicates(cond);
        let c = if ty.elem.is_float() { self.b.ins().fcmp(float, a, b) } else { self.b.ins().icmp(int, a, b) };
        if ty.lanes == 1 { c } else { self.resize_lanes(c, ty.lanes, repr::mask_lane(ty.lanes)) }
    }

    /// `c ? a : b` of type `ty`.
    pub(super) fn select(&mut self, c: Value, c_ty: Ty, a: Value, b: Value, ty: Ty) -> Value {
        if c_ty.lanes == 1 {
            return self.b.ins().select(c, a, b);
        }
        let mask = self.resize_lanes(c, ty.lanes, repr::int_of(repr::lane(ty)));
        let mask = self.reinterpret(mask, repr::of(ty));
        self.b.ins().bitselect(mask, a, b)
    }
}

fn predicates(cond: Cond) -> (IntCC, FloatCC) {
    match cond {
        Cond::Eq => (IntCC::Equal, FloatCC::Equal),
        Cond::Ne => (IntCC::NotEqual, FloatCC::NotEqual),
        Cond::Lt => (IntCC::SignedLessThan, FloatCC::LessThan),
        Cond::Le => (IntCC::SignedLessThanOrEqual, FloatCC::LessThanOrEqual),
        Cond::Gt => (IntCC::SignedGreaterThan, FloatCC::GreaterThan),
        Cond::Ge => (IntCC::SignedGreaterThanOrEqual, FloatCC::GreaterThanOrEqual),
    }
}
