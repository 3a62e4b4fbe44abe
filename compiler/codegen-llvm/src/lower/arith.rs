//! Arithmetic, comparison, selection, dot products.

use super::Lower;
use crate::error::Failure;
use crate::isa::Native;
use inkwell::values::{BasicValueEnum, InstructionOpcode};
use inkwell::{FloatPredicate, IntPredicate};
use llmc_kernels::kir::{BinOp, Cond, Ty, UnOp};

impl<'c> Lower<'c, '_> {
    pub(super) fn unary(&self, op: UnOp, a: BasicValueEnum<'c>, ty: Ty) -> Result<BasicValueEnum<'c>, Failure> {
        let named = |name| self.intrinsic(name, &[self.ty(ty)], &[a]);
        match op {
            UnOp::Neg if ty.elem.is_float() => self.float_neg(a),
            UnOp::Neg => self.op(InstructionOpcode::Sub, self.int(ty, 0), a),
            UnOp::Not => self.op(InstructionOpcode::Xor, a, self.int(ty, -1)),
            UnOp::Abs => named("llvm.fabs"),
            UnOp::Sqrt => named("llvm.sqrt"),
            UnOp::Round => named("llvm.roundeven"),
            UnOp::Floor => named("llvm.floor"),
        }
    }

    fn float_neg(&self, a: BasicValueEnum<'c>) -> Result<BasicValueEnum<'c>, Failure> {
        Ok(match a {
            BasicValueEnum::VectorValue(v) => self.builder.build_float_neg(v, "")?.into(),
            _ => self.builder.build_float_neg(a.into_float_value(), "")?.into(),
        })
    }

    fn op(
        &self,
        opcode: InstructionOpcode,
        a: BasicValueEnum<'c>,
        b: BasicValueEnum<'c>,
    ) -> Result<BasicValueEnum<'c>, Failure> {
        Ok(self.builder.build_binop(opcode, a, b, "")?)
    }

    pub(super) fn binary(
        &self,
        op: BinOp,
        a: BasicValueEnum<'c>,
        b: BasicValueEnum<'c>,
        ty: Ty,
    ) -> Result<BasicValueEnum<'c>, Failure> {
        use InstructionOpcode as I;
        let float = ty.elem.is_float();
        let opcode = match op {
            BinOp::Min => return self.extremum(Cond::Lt, a, b, ty),
            BinOp::Max => return self.extremum(Cond::Gt, a, b, ty),
            BinOp::Add => {
                if float {
                    I::FAdd
                } else {
                    I::Add
                }
            }
            BinOp::Sub => {
                if float {
                    I::FSub
                } else {
                    I::Sub
                }
            }
            BinOp::Mul => {
                if float {
                    I::FMul
                } else {
                    I::Mul
                }
            }
            BinOp::Div => {
                if float {
                    I::FDiv
                } else {
                    I::SDiv
                }
            }
            BinOp::Rem => I::SRem,
            BinOp::And => I::And,
            BinOp::Or => I::Or,
            BinOp::Xor => I::Xor,
            BinOp::Shl => I::Shl,
            BinOp::LShr => I::LShr,
            BinOp::AShr => I::AShr,
        };
        self.op(opcode, a, b)
    }

    /// `a cond b ? a : b`.
    fn extremum(
        &self,
        cond: Cond,
        a: BasicValueEnum<'c>,
        b: BasicValueEnum<'c>,
        ty: Ty,
    ) -> Result<BasicValueEnum<'c>, Failure> {
        let c = self.compare(cond, a, b, ty)?;
        self.select(c, a, b)
    }

    pub(super) fn compare(
        &self,
        cond: Cond,
        a: BasicValueEnum<'c>,
        b: BasicValueEnum<'c>,
        ty: Ty,
    ) -> Result<BasicValueEnum<'c>, Failure> {
        let (int, float) = predicates(cond);
        let build = &self.builder;
        Ok(match (a, b) {
            (BasicValueEnum::VectorValue(a), BasicValueEnum::VectorValue(b)) if ty.elem.is_float() => {
                build.build_float_compare(float, a, b, "")?.into()
            }
            (BasicValueEnum::VectorValue(a), BasicValueEnum::VectorValue(b)) => {
                build.build_int_compare(int, a, b, "")?.into()
            }
            (BasicValueEnum::FloatValue(a), BasicValueEnum::FloatValue(b)) => {
                build.build_float_compare(float, a, b, "")?.into()
            }
            (BasicValueEnum::PointerValue(a), BasicValueEnum::PointerValue(b)) => {
                build.build_int_compare(int, a, b, "")?.into()
            }
            _ => build.build_int_compare(int, a.into_int_value(), b.into_int_value(), "")?.into(),
        })
    }

    pub(super) fn select(
        &self,
        c: BasicValueEnum<'c>,
        a: BasicValueEnum<'c>,
        b: BasicValueEnum<'c>,
    ) -> Result<BasicValueEnum<'c>, Failure> {
        Ok(match c {
            BasicValueEnum::VectorValue(c) => self.builder.build_select(c, a, b, "")?,
            _ => self.builder.build_select(c.into_int_value(), a, b, "")?,
        })
    }

    /// An instruction that differs between processors.
    pub(super) fn native(
        &self,
        native: Option<Native>,
        operands: &[BasicValueEnum<'c>],
    ) -> Result<BasicValueEnum<'c>, Failure> {
        let emit = native.ok_or("an instruction that legalize should have expanded")?;
        emit(self, operands)
    }
}

fn predicates(cond: Cond) -> (IntPredicate, FloatPredicate) {
    match cond {
        Cond::Eq => (IntPredicate::EQ, FloatPredicate::OEQ),
        Cond::Ne => (IntPredicate::NE, FloatPredicate::UNE),
        Cond::Lt => (IntPredicate::SLT, FloatPredicate::OLT),
        Cond::Le => (IntPredicate::SLE, FloatPredicate::OLE),
        Cond::Gt => (IntPredicate::SGT, FloatPredicate::OGT),
        Cond::Ge => (IntPredicate::SGE, FloatPredicate::OGE),
    }
}
