//! Dot products of bytes, through products of 16-bit pairs.

use super::{Lower, repr};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use llmc_kernels::kir::Ty;

impl Lower<'_> {
    /// `acc` and four products of unsigned bytes of `a` with signed bytes of `b` in each lane. Products
    /// and sums of two fit 32 bits.
    pub(super) fn dot4_i8(&mut self, acc: Value, a: Value, b: Value, ty: Ty) -> Value {
        if ty.lanes > 1 {
            return self.dot4_vector(acc, a, b);
        }
        let [acc, a, b] = [acc, a, b].map(|v| self.b.ins().scalar_to_vector(types::I32X4, v));
        let sum = self.dot4_vector(acc, a, b);
        self.b.ins().extractlane(sum, 0)
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
