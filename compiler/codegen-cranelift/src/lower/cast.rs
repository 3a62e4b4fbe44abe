//! Conversions.

use super::{Lower, is_truth, repr};
use crate::error::Failure;
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use llmc_kernels::kir::{Cast, Elem, Ty};

impl Lower<'_> {
    pub(super) fn cast(&mut self, cast: Cast, a: Value, from: Ty, to: Ty) -> Result<Value, Failure> {
        let vector = to.lanes > 1;
        Ok(match cast {
            Cast::SExt | Cast::ZExt if is_truth(from) => self.truth_to_int(cast, a, to),
            Cast::SExt | Cast::ZExt if vector => self.widen(cast, a, from.elem, to.elem),
            Cast::SExt => self.b.ins().sextend(repr::of(to), a),
            Cast::ZExt => self.b.ins().uextend(repr::of(to), a),
            Cast::Trunc if vector => self.resize_lanes(a, to.lanes, repr::lane(to)),
            Cast::Trunc => self.b.ins().ireduce(repr::of(to), a),
            Cast::IntToFloat => self.int_to_float(a, from, to),
            Cast::FloatToInt => self.float_to_int(a, to),
            Cast::FExt if vector => self.b.ins().fvpromote_low(a),
            Cast::FExt => self.b.ins().fpromote(types::F64, a),
            Cast::FTrunc if vector => self.b.ins().fvdemote(a),
            Cast::FTrunc => self.b.ins().fdemote(types::F32, a),
            Cast::Bitcast => self.bitcast(a, from, to),
            Cast::F16ToF32 | Cast::F32ToF16 => {
                return Err(Failure::from("a half conversion that legalize should have expanded".to_string()));
            }
        })
    }

    /// A truth value as 0 and 1, or 0 and -1.
    fn truth_to_int(&mut self, cast: Cast, a: Value, to: Ty) -> Value {
        if to.lanes == 1 {
            let a = if cast == Cast::SExt { self.b.ins().ineg(a) } else { a };
            return if to.elem == Elem::I8 { a } else { self.b.ins().sextend(repr::of(to), a) };
        }
        let mask = self.resize_lanes(a, to.lanes, repr::lane(to));
        if cast == Cast::SExt {
            return mask;
        }
        let last = self.b.ins().iconst(types::I32, i64::from(to.elem.bits()) - 1);
        self.b.ins().ushr(mask, last)
    }

    /// Doubles the lower lanes' width until they are wide enough.
    fn widen(&mut self, cast: Cast, a: Value, from: Elem, to: Elem) -> Value {
        let steps = to.bits().ilog2() - from.bits().ilog2();
        (0..steps).fold(a, |a, _| match cast {
            Cast::SExt => self.b.ins().swiden_low(a),
            _ => self.b.ins().uwiden_low(a),
        })
    }

    fn int_to_float(&mut self, a: Value, from: Ty, to: Ty) -> Value {
        let wide = if to.lanes > 1 && from.elem.bits() < to.elem.bits() {
            let int = if to.elem == Elem::F32 { Elem::I32 } else { Elem::I64 };
            self.widen(Cast::SExt, a, from.elem, int)
        } else {
            a
        };
        self.b.ins().fcvt_from_sint(repr::of(to), wide)
    }

    /// Scalars narrower than 32 bits come from the lower bits of 32: the value fits.
    fn float_to_int(&mut self, a: Value, to: Ty) -> Value {
        let small = to.lanes == 1 && to.elem.bits() < 32;
        let ty = if small { types::I32 } else { repr::of(to) };
        let int = self.b.ins().fcvt_to_sint_sat(ty, a);
        if small { self.b.ins().ireduce(repr::of(to), int) } else { int }
    }

    fn bitcast(&mut self, a: Value, from: Ty, to: Ty) -> Value {
        match (from.lanes > 1, to.lanes > 1) {
            (true, true) => self.reinterpret(a, repr::of(to)),
            (true, false) => {
                let int = repr::int_of(repr::of(to));
                let register = self.reinterpret(a, repr::register(int));
                let bits = self.b.ins().extractlane(register, 0);
                self.scalar_bits(bits, repr::of(to))
            }
            (false, true) => {
                let int = repr::int_of(repr::of(from));
                let bits = self.scalar_bits(a, int);
                self.low_bits(bits, repr::of(to))
            }
            (false, false) => self.scalar_bits(a, repr::of(to)),
        }
    }

    /// A scalar's bits as a scalar type of the same size.
    fn scalar_bits(&mut self, a: Value, to: Type) -> Value {
        if self.b.func.dfg.value_type(a) == to { a } else { self.b.ins().bitcast(to, repr::LITTLE, a) }
    }

    /// An integer in the lower bits of a register of type `to`.
    pub(super) fn low_bits(&mut self, int: Value, to: Type) -> Value {
        let ty = self.b.func.dfg.value_type(int);
        let (int, ty) = if ty.bits() < 32 { (self.b.ins().uextend(types::I32, int), types::I32) } else { (int, ty) };
        let register = self.b.ins().scalar_to_vector(repr::register(ty), int);
        self.reinterpret(register, to)
    }
}
