//! Dot products of bytes, through products of 16-bit pairs.

use super::{Lower, repr};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use llmc_kernels::kir::Ty;

impl Lower<'_> {
    /// `acc` and four products of unsigned bytes of `a` with signed bytes of `b` in each lane. Products
    /// and sums of two fit 32 bits.
    pub(super) fn dot4_i8(&mut self, acc: Value, a: Value, b: Value, ty: Ty) -> Value {
        self.in_a_vector(&[acc, a, b], ty, |low, v| low.dot4_vector(v[0], v[1], v[2]))
    }

    /// `acc` and the sum of two products in each half of a lane, which saturates; see KIR's `Dot2I8`.
    pub(super) fn dot2_i8(&mut self, acc: Value, a: Value, b: Value, ty: Ty) -> Value {
        self.in_a_vector(&[acc, a, b], ty, |low, v| {
            let [a, b] = [v[1], v[2]].map(|v| low.b.ins().bitcast(types::I8X16, repr::LITTLE, v));
            let acc = low.b.ins().bitcast(types::I16X8, repr::LITTLE, v[0]);
            // Cranelift has the signed bytes first.
            let sums = low.b.ins().x86_pmaddubsw(b, a);
            let sum = low.b.ins().iadd(acc, sums);
            low.b.ins().bitcast(types::I32X4, repr::LITTLE, sum)
        })
    }

    /// `acc` and both halves of each lane of `a`.
    pub(super) fn add_halves(&mut self, acc: Value, a: Value, ty: Ty) -> Value {
        self.in_a_vector(&[acc, a], ty, |low, v| {
            let halves = low.b.ins().bitcast(types::I16X8, repr::LITTLE, v[1]);
            let one = low.b.ins().iconst(types::I16, 1);
            let ones = low.b.ins().splat(types::I16X8, one);
            let sums = low.pairs(halves, ones);
            low.b.ins().iadd(v[0], sums)
        })
    }

    /// Runs on vectors of i32, or on a scalar in the first lane of one.
    fn in_a_vector(&mut self, operands: &[Value], ty: Ty, run: impl FnOnce(&mut Self, &[Value]) -> Value) -> Value {
        if ty.lanes > 1 {
            return run(self, operands);
        }
        let operands: Vec<Value> = operands.iter().map(|v| self.b.ins().scalar_to_vector(types::I32X4, *v)).collect();
        let result = run(self, &operands);
        self.b.ins().extractlane(result, 0)
    }

    fn dot4_vector(&mut self, acc: Value, a: Value, b: Value) -> Value {
        let [a, b] = [a, b].map(|v| self.b.ins().bitcast(types::I16X8, repr::LITTLE, v));
        let low = self.b.ins().iconst(types::I16, 0xff);
        let low = self.b.ins().splat(types::I16X8, low);
        let even_a = self.b.ins().band(a, low);
        let odd_a = self.b.ins().ushr_imm_u(a, 8);
        let raised = self.b.ins().ishl_imm_u(b, 8);
        let even_b = self.b.ins().sshr_imm_u(raised, 8);
        let odd_b = self.b.ins().sshr_imm_u(b, 8);
        let even = self.pairs(even_a, even_b);
        let odd = self.pairs(odd_a, odd_b);
        let sum = self.b.ins().iadd(acc, even);
        self.b.ins().iadd(sum, odd)
    }

    /// Products of 16-bit lanes, added in pairs: one instruction on x86-64.
    fn pairs(&mut self, x: Value, y: Value) -> Value {
        let mut half = |low: bool| {
            let [x, y] = [x, y].map(|v| match low {
                true => self.b.ins().swiden_low(v),
                false => self.b.ins().swiden_high(v),
            });
            self.b.ins().imul(x, y)
        };
        let (low, high) = (half(true), half(false));
        self.b.ins().iadd_pairwise(low, high)
    }
}
